//! Pods of the benchmark's own, without an engine: processes in a network namespace, whose ports the kernel shares.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader},
    net::Ipv4Addr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use sameport::{
    engine::ContainerId,
    kernel::{
        Netns, capability,
        sockets::Transport,
        steering::{KernelSteering, ReplicaConfig, Rules, Steering as _, SteeringConfig},
    },
    spec::{Balance, PodName, PortSet, ProjectName, ServiceName},
};

/// Where replicas listen.
pub const PORT: u16 = 8080;
/// A pod's address, as those see it who come from outside.
pub const POD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// How long replicas may take to listen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that ends with this.
pub struct Ends(pub Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // It fails where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A control group that goes with this.
pub struct Cgroup(pub PathBuf);

impl Cgroup {
    /// One of that name.
    pub fn new(name: &str) -> Result<Self> {
        let path = capability::mounted("cgroup2").context("no control groups of version 2")?.join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("warning: the control group {} is left: {error}", self.0.display());
        }
    }
}

/// A process in a network and a control group of its own, which is this binary by another word. It goes first, and then its
/// group.
pub struct Member {
    /// The process.
    pub process: Ends,
    _cgroup: Cgroup,
}

impl Member {
    /// Starts one in the network of a process; whoever starts it says what its input and output are.
    pub fn start(name: &str, network: u32, word: &str, set: impl FnOnce(&mut Command)) -> Result<Self> {
        let cgroup = Cgroup::new(name)?;
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{network}/ns/net"))
            .args(["sh", "-c", r#"echo $$ >"$0/cgroup.procs"; exec "$@""#])
            .arg(&cgroup.0)
            .arg(std::env::current_exe()?)
            .arg(word)
            .stdin(Stdio::null());
        set(&mut command);
        let process = command.spawn().context("cannot start a replica")?;
        Ok(Self { process: Ends(process), _cgroup: cgroup })
    }
}

/// Replicas in a network namespace, steered by the kernel, without an engine.
pub struct Pod {
    steering: KernelSteering,
    replicas: Vec<Member>,
    sandbox: Ends,
    project: String,
}

impl Pod {
    /// One with so many replicas, which are this binary by that word and listen on [`PORT`].
    pub fn start(name: &str, size: u16, balance: Balance, word: &str) -> Result<Self> {
        let mut pod = Self::empty(name, balance)?;
        for number in 0..size {
            let replica = Member::start(&format!("{name}-{number}"), pod.network(), word, |_| ())?;
            pod.replicas.push(replica);
        }
        // Each is in its group, and is no shell any more.
        thread::sleep(Duration::from_millis(200));
        pod.settle(balance)?;
        Ok(pod)
    }

    /// One without replicas.
    pub fn empty(name: &str, balance: Balance) -> Result<Self> {
        let sandbox = sandbox()?;
        let steering = KernelSteering::start(&ProjectName::new(name)?)?;
        let pod = Self { steering, replicas: Vec::new(), sandbox, project: name.to_owned() };
        pod.want(balance)?;
        pod.wait_until(|_| true)?;
        Ok(pod)
    }

    /// Takes a replica in that is in its network already.
    pub fn add(&mut self, replica: Member, balance: Balance) -> Result<&mut Member> {
        self.replicas.push(replica);
        self.settle(balance)?;
        self.replicas.last_mut().context("no replica")
    }

    /// A process that is in its network.
    pub fn network(&self) -> u32 {
        self.sandbox.0.id()
    }

    /// Where the link of its program is pinned that chooses.
    pub fn link(&self) -> Result<PathBuf> {
        let project = capability::mounted("bpf").context("no bpffs")?.join("sameport").join(&self.project);
        let mut found = fs::read_dir(&project)?.filter_map(Result::ok).map(|entry| entry.path());
        let pod =
            found.find(|path| path.is_dir()).with_context(|| format!("no pod in {}", project.display()))?;
        Ok(pod.join("link_sameport_lookup"))
    }

    fn settle(&self, balance: Balance) -> Result<()> {
        self.want(balance)?;
        self.wait_until(|listening| listening == self.replicas.len())
    }

    fn want(&self, balance: Balance) -> Result<()> {
        let service = ServiceName::new("bench")?;
        let replicas = (1_u16..).zip(&self.replicas).map(|(number, replica)| {
            let [high, low] = number.to_be_bytes();
            ReplicaConfig {
                id: ContainerId(number.to_string()),
                pid: replica.process.0.id(),
                service: service.clone(),
                slot: u32::from(number),
                address: Ipv4Addr::new(127, 77, high, low),
                weight: 100,
            }
        });
        let config = SteeringConfig {
            coming: BTreeMap::new(),
            pid: self.sandbox.0.id(),
            netns: self.netns()?.inode,
            declared: BTreeSet::from([(Transport::Tcp, PORT)]),
            exclusive: PortSet::default(),
            rules: BTreeMap::from([(
                service.clone(),
                Rules { balance, hold: Duration::ZERO, gates_undeclared: true },
            )]),
            replicas: replicas.collect(),
        };
        self.steering.want(BTreeMap::from([(PodName::new("bench")?, config)]));
        Ok(())
    }

    /// Its network.
    pub fn netns(&self) -> Result<Netns> {
        Ok(Netns::of(self.sandbox.0.id())?)
    }

    /// Waits until so many listen.
    fn wait_until(&self, enough: impl Fn(usize) -> bool) -> Result<()> {
        let begin = Instant::now();
        loop {
            self.steering.look();
            let report = self.steering.reports().borrow().clone();
            let pod = report.pods.values().next().cloned().unwrap_or_default();
            let listening = pod.replicas.values().filter(|replica| replica.listens()).count();
            if pod.netns != 0 && enough(listening) {
                return Ok(());
            }
            if begin.elapsed() > PATIENCE {
                bail!("{listening} replicas listen: {:?}", pod.error);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Err(error) = self.steering.remove() {
            eprintln!("warning: programs are left in the kernel: {error}");
        }
    }
}

/// A process with a network namespace of its own, in which packets from addresses of the documentation's block are taken.
pub fn sandbox() -> Result<Ends> {
    let script = format!(
        "ip link set lo up; ip addr add {POD}/32 dev lo; ip route add 192.0.2.0/24 dev lo; echo up; exec sleep 3600"
    );
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", &script]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut sandbox = Ends(command.spawn().context("cannot make a network namespace")?);
    let mut line = String::new();
    BufReader::new(sandbox.0.stdout.take().context("no output")?).read_line(&mut line)?;
    if line.trim() != "up" {
        bail!("the network namespace did not come up");
    }
    Ok(sandbox)
}
