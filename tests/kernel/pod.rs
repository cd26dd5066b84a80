//! A pod without an engine: a network namespace, and replicas in control groups of their own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sameport::{
    engine::ContainerId,
    kernel::{
        Netns, capability,
        sockets::Transport,
        steering::{KernelSteering, PodReport, ReplicaConfig, Rules, Steering, SteeringConfig, Traffic},
    },
    spec::{Balance, PodName, PortSet, ProjectName, ServiceName},
};

use super::{
    agent::Agent,
    network::{Group, Outside, process, sandbox},
    support::wait::{self, check},
};

static PODS: AtomicU32 = AtomicU32::new(0);

/// A pod of a test's own, steered by the kernel. Everything goes with it.
pub struct Pod {
    pub steering: Option<KernelSteering>,
    pub project: ProjectName,
    sandbox: Child,
    outside: Option<Outside>,
    replicas: BTreeMap<u32, Replica>,
    pub rules: Rules,
    pub declared: BTreeSet<(Transport, u16)>,
    /// Ports that one replica holds at a time.
    pub exclusive: PortSet,
    /// The users as whom replicas are about to begin.
    pub coming: BTreeMap<ServiceName, u32>,
    /// The weight of replicas when they start.
    pub usual_weight: u32,
    /// Other pods of the project, which the kernel is told of as well.
    pub neighbours: BTreeMap<PodName, SteeringConfig>,
}

/// What a replica of another service than `web` is numbered from.
pub const SIDECAR: u32 = 100;

struct Replica {
    child: Child,
    cgroup: Group,
    weight: u32,
}

/// A replica's service, by its number.
fn service(number: u32) -> ServiceName {
    if number < SIDECAR { "web" } else { "sidecar" }.parse().unwrap()
}

impl Pod {
    /// One without replicas.
    pub fn new() -> Self {
        let number = PODS.fetch_add(1, Ordering::Relaxed);
        let project: ProjectName = format!("spk{}-{number}", std::process::id()).parse().unwrap();
        let sandbox = sandbox();
        let steering = Some(KernelSteering::start(&project).unwrap());
        let rules = Rules {
            balance: Balance::LeastConnections,
            hold: Duration::from_secs(10),
            gates_undeclared: true,
        };
        let pod = Self {
            steering,
            project,
            sandbox,
            outside: None,
            replicas: BTreeMap::new(),
            rules,
            declared: BTreeSet::new(),
            exclusive: PortSet::default(),
            coming: BTreeMap::new(),
            usual_weight: 100,
            neighbours: BTreeMap::new(),
        };
        pod.tell();
        wait::until("the pod is steered", || {
            let report = pod.report();
            check(report.netns == pod.netns().inode && report.error.is_none(), report)
        });
        pod
    }

    pub fn netns(&self) -> Netns {
        Netns::of(self.sandbox.id()).unwrap()
    }

    /// One that is reached from outside, too, at [`network::V4`] and [`network::V6`].
    pub fn wired() -> Self {
        let mut pod = Self::new();
        pod.outside = Some(Outside::of(pod.sandbox()));
        pod
    }

    /// Starts a replica in `slot`, in place of one that was there. From [`SIDECAR`] on it is one of another service, whose
    /// slots are counted from there.
    pub fn start(&mut self, slot: u32, command: &mut Command) {
        let cgroup = self.group(slot);
        let command = command.env("REPLICA", slot.to_string());
        let mut inside = process(self.sandbox(), Some(&cgroup.0), command);
        let child = inside.stdin(Stdio::null()).spawn().unwrap();
        wait::until("it is in its control group", || {
            let procs = fs::read_to_string(cgroup.0.join("cgroup.procs")).unwrap();
            check(procs.lines().any(|pid| pid == child.id().to_string()), procs)
        });
        self.enter(slot, child, cgroup);
        self.tell();
    }

    /// Starts a replica whose first process is an agent.
    pub fn agent(&mut self, slot: u32) -> Agent {
        let agent = self.untold(slot);
        self.tell();
        agent
    }

    /// One that the kernel is not told of before somebody tells.
    pub fn untold(&mut self, slot: u32) -> Agent {
        let cgroup = self.group(slot);
        let (agent, child) = Agent::first(&slot.to_string(), self.sandbox(), &cgroup.0);
        self.enter(slot, child, cgroup);
        agent
    }

    /// Another process of a replica, in a group below its own if that has a name.
    pub fn beside(&self, slot: u32, below: &str) -> Agent {
        let cgroup = self.replicas[&slot].cgroup.0.join(below);
        fs::create_dir_all(&cgroup).unwrap();
        Agent::start(&slot.to_string(), self.sandbox(), Some(&cgroup))
    }

    /// What a program prints that runs beside the others of a replica.
    pub fn run(&self, slot: u32, command: &Command) -> String {
        let mut inside = process(self.sandbox(), Some(&self.replicas[&slot].cgroup.0), command);
        let told = inside.stderr(Stdio::inherit()).output().unwrap();
        String::from_utf8(told.stdout).unwrap()
    }

    /// A process in the pod's network that is no replica's: it has a control group of its own, as another container has.
    pub fn foreign(&self) -> Agent {
        let mut agent = Agent::start("foreign", self.sandbox(), None);
        agent.move_to(self.group(0));
        agent
    }

    /// A client in another network.
    pub fn outside(&self) -> Agent {
        Agent::start("outside", self.outside_pid(), None)
    }

    /// A process in that other network.
    pub fn outside_pid(&self) -> u32 {
        self.outside.as_ref().unwrap().pid()
    }

    /// Waits until the kernel is told of all replicas.
    pub fn settled(&self) {
        wait::until("replicas are known", || {
            let report = self.report();
            let known = |(slot, replica): (&u32, &Replica)| {
                report.replicas.get(&id(*slot)).is_some_and(|seen| seen.pid == replica.child.id())
            };
            check(self.replicas.iter().all(known), report.clone())
        });
    }

    fn group(&self, slot: u32) -> Group {
        Group::new(&format!("{}-{slot}-{}", self.project, fastrand::u32(..)))
    }

    fn enter(&mut self, slot: u32, child: Child, cgroup: Group) {
        if let Some(old) = self.replicas.insert(slot, Replica { child, cgroup, weight: self.usual_weight }) {
            end(old);
        }
    }

    /// Ends a replica by force, and does not tell.
    pub fn kill(&mut self, slot: u32) {
        let replica = self.replicas.get_mut(&slot).unwrap();
        replica.child.kill().unwrap();
        replica.child.wait().unwrap();
    }

    /// Ends a replica by force.
    pub fn remove(&mut self, slot: u32) {
        end(self.replicas.remove(&slot).unwrap());
        self.tell();
    }

    pub fn weigh(&mut self, slot: u32, weight: u32) {
        self.replicas.get_mut(&slot).unwrap().weight = weight;
        self.tell();
    }

    /// Gives a replica a weight, and waits until it is in force.
    pub fn weighed(&mut self, slot: u32, weight: u32) {
        self.weigh(slot, weight);
        wait::until("the weight is in force", || {
            let report = self.report();
            check(report.replicas.get(&id(slot)).is_some_and(|replica| replica.weight == weight), report)
        });
    }

    pub fn sandbox(&self) -> u32 {
        self.sandbox.id()
    }

    pub fn pid(&self, slot: u32) -> u32 {
        self.replicas[&slot].child.id()
    }

    /// What is wanted of it.
    pub fn config(&self) -> SteeringConfig {
        let services = self.replicas.keys().map(|slot| service(*slot)).chain([service(1)]);
        SteeringConfig {
            coming: self.coming.clone(),
            pid: self.sandbox.id(),
            netns: self.netns().inode,
            declared: self.declared.clone(),
            exclusive: self.exclusive.clone(),
            rules: services.map(|service| (service, self.rules)).collect(),
            replicas: self
                .replicas
                .iter()
                .map(|(slot, replica)| ReplicaConfig {
                    id: id(*slot),
                    pid: replica.child.id(),
                    service: service(*slot),
                    slot: *slot % SIDECAR,
                    address: Ipv4Addr::new(127, 77, 0, u8::try_from(*slot).unwrap()),
                    weight: replica.weight,
                })
                .collect(),
        }
    }

    pub fn tell(&self) {
        let Some(steering) = &self.steering else { return };
        let mut steering_configs = self.neighbours.clone();
        steering_configs.insert(name(), self.config());
        steering.want(steering_configs);
    }

    pub fn report(&self) -> PodReport {
        self.report_of(&name())
    }

    /// What is seen of this pod, or of a neighbour.
    pub fn report_of(&self, name: &PodName) -> PodReport {
        let reports = self.steering.as_ref().unwrap().reports();
        let report = Arc::clone(&reports.borrow());
        report.pods.get(name).cloned().unwrap_or_default()
    }

    /// Makes this pod one of another project from now on: whoever has that one steers it.
    pub fn give_up(&mut self) {
        self.steering.take().unwrap().remove().unwrap();
    }

    /// Waits until so many replicas listen on a port.
    pub fn listening(&self, replicas: usize, port: (Transport, u16)) {
        wait::until("replicas listen", || {
            let report = self.report();
            let count = report.replicas.values().filter(|replica| replica.listens_on(&port)).count();
            check(count == replicas, report)
        });
    }

    /// Does something on a thread in the pod's network, as another container or the host does from outside of its
    /// replicas.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let mut result = None;
        self.netns()
            .within(|| {
                result = Some(work());
                Ok(())
            })
            .unwrap();
        result.unwrap()
    }

    /// Connects from within the pod.
    pub fn connect(&self, address: impl Into<SocketAddr>) -> io::Result<TcpStream> {
        let address = address.into();
        self.inside(|| TcpStream::connect_timeout(&address, Duration::from_secs(5)))
    }

    /// Open connections of each replica, by slot.
    pub fn live(&self, port: (Transport, u16)) -> BTreeMap<u32, u64> {
        self.traffic(port).into_iter().map(|(slot, traffic)| (slot, traffic.live)).collect()
    }

    /// What goes on at each replica, by slot.
    pub fn traffic(&self, port: (Transport, u16)) -> BTreeMap<u32, Traffic> {
        self.steering.as_ref().unwrap().look();
        let report = self.report();
        let of = |slot: &u32| {
            report.replicas.get(&id(*slot)).and_then(|replica| replica.ports.get(&port)).copied()
        };
        self.replicas.keys().filter_map(|slot| Some((*slot, of(slot)?))).collect()
    }

    /// Another supervisor takes over: as after `kill -9` of the first, or with another version of sameport.
    pub fn succeed(&mut self) {
        self.steering = None;
        self.steering = Some(KernelSteering::start(&self.project).unwrap());
        self.tell();
    }

    /// What is pinned for it.
    pub fn pins(&self) -> Vec<String> {
        let names = fs::read_dir(self.pinned("")).into_iter().flatten().flatten();
        names.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    /// What is pinned for it, in the pod's folder as well.
    pub fn all_pins(&self) -> Vec<String> {
        let below = |name: String| {
            let inside = fs::read_dir(self.pinned(&name)).into_iter().flatten().flatten();
            let mut names: Vec<_> =
                inside.map(|entry| format!("{name}/{}", entry.file_name().into_string().unwrap())).collect();
            names.push(name);
            names
        };
        self.pins().into_iter().flat_map(below).collect()
    }

    /// Where something is pinned for the pod.
    pub fn pinned_of_pod(&self, name: &str) -> PathBuf {
        let pod = self.pins().into_iter().find(|name| name.starts_with("pod_")).unwrap();
        self.pinned(&pod).join(name)
    }

    /// Where something is pinned for it.
    pub fn pinned(&self, name: &str) -> PathBuf {
        capability::mounted("bpf").unwrap().join("sameport").join(self.project.as_str()).join(name)
    }
}

pub fn id(slot: u32) -> ContainerId {
    ContainerId(format!("{slot:064}"))
}

fn name() -> PodName {
    PodName::new("web".to_owned()).unwrap()
}

fn end(mut replica: Replica) {
    let _ = replica.child.kill();
    let _ = replica.child.wait();
}

impl Drop for Pod {
    fn drop(&mut self) {
        if std::thread::panicking() && self.steering.is_some() {
            eprintln!("{:#?}", self.report());
        }
        if let Some(steering) = self.steering.take() {
            let _ = steering.remove();
        } else {
            let _ = sameport::kernel::Pins::clear(&self.project);
        }
        std::mem::take(&mut self.replicas).into_values().for_each(end);
        let _ = self.sandbox.kill();
        let _ = self.sandbox.wait();
    }
}
