//! A kernel in memory: replicas listen a while after their start, have connections and flows of datagrams, and finish them
//! when they get no new ones.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use sameport::{
    engine::{ContainerId, memory::Memory},
    kernel::{
        KernelError,
        sockets::Transport,
        steering::{PodReport, ReplicaReport, Report, Steering, SteeringConfigs, Traffic},
    },
    spec::{ProjectName, Service},
    supervisor::{Beginning, Kernel},
};
use tokio::{sync::watch, time::Instant};

/// What is in the kernel, and outlives each supervisor.
#[derive(Clone)]
pub struct SimulatedKernel {
    engine: Memory,
    state: Arc<Mutex<State>>,
}

struct State {
    steering_configs: SteeringConfigs,
    chance: fastrand::Rng,
    /// Open connections.
    live: BTreeMap<ContainerId, u64>,
    /// When each replica's last datagram came.
    datagrams: BTreeMap<ContainerId, Instant>,
    sender: watch::Sender<Arc<Report>>,
    /// How often something was wanted.
    wanted: u64,
}

impl SimulatedKernel {
    pub fn new(engine: Memory, seed: u64) -> Self {
        let state = State {
            steering_configs: SteeringConfigs::new(),
            chance: fastrand::Rng::with_seed(seed),
            live: BTreeMap::new(),
            datagrams: BTreeMap::new(),
            sender: watch::channel(Arc::default()).0,
            wanted: 0,
        };
        Self { engine, state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// How much a replica gets by what the kernel was told last; none if it was not told of it.
    pub fn weight(&self, id: &ContainerId) -> Option<u32> {
        let state = self.state();
        let found =
            state.steering_configs.values().flat_map(|pod| &pod.replicas).find(|replica| &replica.id == id);
        found.map(|replica| replica.weight)
    }

    /// What is wanted is in force after a moment; whoever gets nothing new finishes after a few more.
    fn show(&self) {
        let this = self.clone();
        let wanted = this.state().wanted;
        tokio::spawn(async move {
            loop {
                let pause = this.state().chance.u64(1..200);
                tokio::time::sleep(Duration::from_millis(pause)).await;
                // Something newer is on its way to be in force.
                if this.state().wanted != wanted || this.step() {
                    return;
                }
            }
        });
    }

    /// Returns whether nothing changes any more by itself.
    fn step(&self) -> bool {
        let mut state = self.state();
        let State { steering_configs, chance, live, datagrams, sender, .. } = &mut *state;
        let mut settled = true;
        let mut report = Report::default();
        for (name, config) in &*steering_configs {
            // A pod is open only as long as its network is.
            let is_there = self.engine.world().netns_of(config.pid) == Some(config.netns);
            let mut pod =
                PodReport { netns: if is_there { config.netns } else { 0 }, ..PodReport::default() };
            for replica in &config.replicas {
                let count = live.entry(replica.id.clone()).or_insert(0);
                if replica.weight > 0 {
                    *count = chance.u64(0..4);
                } else if *count > 0 {
                    *count -= 1;
                    settled = false;
                }
                // New flows come to who is in rotation, and those that are there go on for a while.
                let odds = if replica.weight > 0 { 10 } else { 100 };
                let has_flows = replica.weight > 0 || datagrams.contains_key(&replica.id);
                if has_flows && chance.u32(0..odds) == 0 {
                    datagrams.insert(replica.id.clone(), Instant::now());
                }
                let last = datagrams.get(&replica.id).filter(|_| replica.weight == 0);
                let idle =
                    |last: &Instant| Duration::from_secs(last.elapsed().as_secs()).min(Service::UDP_IDLE);
                let usual = Traffic { listens: true, shared: true, ..Traffic::default() };
                let traffic = Traffic { live: *count, ..usual };
                let flows = Traffic { udp_idle: last.map(idle), ..usual };
                settled &= !flows.has_flows();
                let ports = BTreeMap::from([((Transport::Tcp, 80), traffic), ((Transport::Udp, 53), flows)]);
                let (pid, address, weight) = (replica.pid, Some(replica.address), replica.weight);
                let report = ReplicaReport { pid, address, weight, ports, pulse: None };
                pod.replicas.insert(replica.id.clone(), report);
            }
            report.pods.insert(name.clone(), pod);
        }
        sender.send_if_modified(|last| {
            let changed = **last != report;
            if changed {
                *last = Arc::new(report);
            }
            changed
        });
        settled
    }
}

impl Steering for SimulatedKernel {
    fn want(&self, steering_configs: SteeringConfigs) {
        let mut state = self.state();
        state.steering_configs = steering_configs;
        state.wanted += 1;
        drop(state);
        self.show();
    }

    fn look(&self) {}

    fn reports(&self) -> watch::Receiver<Arc<Report>> {
        self.state().sender.subscribe()
    }

    fn remove(&self) -> Result<(), KernelError> {
        self.state().steering_configs.clear();
        Ok(())
    }
}

impl Kernel for SimulatedKernel {
    /// It takes its time, and more than an engine takes to start something.
    fn steer(&self, _: &ProjectName) -> Beginning {
        let pause = Duration::from_millis(self.state().chance.u64(0..3000));
        let steering: Arc<dyn Steering> = Arc::new(self.clone());
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            Ok(steering)
        })
    }

    fn steers(&self, _: &ProjectName) -> bool {
        true
    }

    fn clear(&self, _: &ProjectName) -> Result<(), KernelError> {
        self.state().steering_configs.clear();
        Ok(())
    }
}
