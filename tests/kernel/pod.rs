//! A pod without an engine: a network namespace, and replicas in control groups of their own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, BufRead, BufReader},
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
        steering::{KernelSteering, PodReport, PodWish, ReplicaWish, Rules, Steering, Traffic},
    },
    spec::{Balance, PodName, ProjectName},
};

use super::support::wait::{self, check};

static PODS: AtomicU32 = AtomicU32::new(0);

/// A pod of a test's own, steered by the kernel. Everything goes with it.
pub struct Pod {
    pub steering: Option<KernelSteering>,
    pub project: ProjectName,
    sandbox: Child,
    replicas: BTreeMap<u32, Replica>,
    pub rules: Rules,
    pub declared: BTreeSet<(Transport, u16)>,
    /// The weight of replicas when they start.
    pub usual_weight: u32,
}

struct Replica {
    child: Child,
    cgroup: PathBuf,
    weight: u32,
}

impl Pod {
    /// One without replicas.
    pub fn new() -> Self {
        let number = PODS.fetch_add(1, Ordering::Relaxed);
        let project: ProjectName = format!("spk{}-{number}", std::process::id()).parse().unwrap();
        let mut sandbox = Command::new("unshare")
            .args([
                "--net",
                "sh",
                "-c",
                "ip link set lo up; echo 1 >/proc/sys/net/ipv4/tcp_migrate_req; echo up; exec sleep 600",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(sandbox.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n", "`unshare` and `ip` make a network namespace (root is needed)");
        let steering = Some(KernelSteering::start(&project).unwrap());
        let rules = Rules { balance: Balance::LeastConnections, hold: Duration::from_secs(10) };
        let pod = Self {
            steering,
            project,
            sandbox,
            replicas: BTreeMap::new(),
            rules,
            declared: BTreeSet::new(),
            usual_weight: 100,
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

    /// Starts a replica in `slot`, in place of one that was there.
    pub fn start(&mut self, slot: u32, command: &mut Command) {
        let root = capability::mounted("cgroup2").unwrap();
        let cgroup = root.join(format!("{}-{slot}-{}", self.project, fastrand::u32(..)));
        fs::create_dir(&cgroup).unwrap();
        let words: Vec<_> = [command.get_program()]
            .into_iter()
            .chain(command.get_args())
            .map(|w| w.to_str().unwrap().to_owned())
            .collect();
        let mut inside = Command::new("nsenter");
        inside
            .arg(format!("--net=/proc/{}/ns/net", self.sandbox.id()))
            .args(["sh", "-c", r#"echo $$ >"$0/cgroup.procs"; exec "$@""#])
            .arg(&cgroup)
            .args(words)
            .env("REPLICA", slot.to_string())
            .stdin(Stdio::null());
        for (key, value) in command.get_envs() {
            inside.env(key, value.unwrap());
        }
        let child = inside.spawn().unwrap();
        wait::until("it is in its control group", || {
            let procs = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
            check(procs.lines().any(|pid| pid == child.id().to_string()), procs)
        });
        if let Some(old) = self.replicas.insert(slot, Replica { child, cgroup, weight: self.usual_weight }) {
            end(old);
        }
        self.tell();
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

    pub fn tell(&self) {
        let service: sameport::spec::ServiceName = "web".parse().unwrap();
        let wish = PodWish {
            pid: self.sandbox.id(),
            netns: self.netns().inode,
            declared: self.declared.clone(),
            exclusive: sameport::spec::PortSet::default(),
            rules: BTreeMap::from([(service.clone(), self.rules)]),
            replicas: self
                .replicas
                .iter()
                .map(|(slot, replica)| ReplicaWish {
                    id: id(*slot),
                    pid: replica.child.id(),
                    service: service.clone(),
                    slot: *slot,
                    address: Ipv4Addr::new(127, 77, 0, u8::try_from(*slot).unwrap()),
                    weight: replica.weight,
                })
                .collect(),
        };
        if let Some(steering) = &self.steering {
            steering.want(BTreeMap::from([(name(), wish)]));
        }
    }

    pub fn report(&self) -> PodReport {
        let reports = self.steering.as_ref().unwrap().reports();
        let report = Arc::clone(&reports.borrow());
        report.pods.get(&name()).cloned().unwrap_or_default()
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
    for _ in 0..100 {
        let procs = fs::read_to_string(replica.cgroup.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines().filter_map(|pid| pid.parse().ok()) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        if fs::remove_dir(&replica.cgroup).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    eprintln!("{} stays", replica.cgroup.display());
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
