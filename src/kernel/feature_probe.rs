//! Finds out by trying what this host's kernel does for a pod: in a network namespace that nobody else is in, with
//! sockets of our own, and with everything taken away afterwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, unshare};

use super::{
    KernelError, capability, host,
    processes::Cgroup,
    programs::Programs,
    raw, rights,
    sockets::Transport,
    steering::{KernelSteering, PodReport, ReplicaConfig, ReplicaReport, Rules, Steering, SteeringConfig},
};
use crate::{
    engine::ContainerId,
    spec::{Balance, PodName, ProjectName, ServiceName},
};

/// Something that the kernel does for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// Programs are loaded, attached and pinned.
    Programs,
    /// Any program's port is shared.
    Sharing,
    /// Only replicas that are ready get connections.
    Gate,
    /// Open connections are counted for each replica.
    Counting,
    /// Each replica has an address of its own.
    Addresses,
    /// A replica's `localhost` is itself.
    Localhost,
    /// Connections wait while no replica is ready.
    Hold,
    /// A flow of datagrams stays with its replica.
    Flows,
    /// No program in a pod takes over the choice, whichever architecture's calls it makes.
    Choice,
}

/// The result of a probe.
#[derive(Debug)]
pub struct FeatureProbe {
    /// What was tried.
    pub feature: Feature,
    /// Whether it worked; if not, why.
    pub result: Result<(), String>,
}

const PORT: u16 = 8080;
/// How long anything may take that takes milliseconds. An emulated machine has taken more than three seconds.
const PATIENCE: Duration = Duration::from_secs(10);
const OWN: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);
/// An address of nobody in particular: to this process, which is a replica, 127.0.0.1 is itself.
const SHARED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Tries everything. What is not reached because something before it fails is left out.
#[must_use]
pub fn run() -> Vec<FeatureProbe> {
    // A network namespace is a thread's own, and goes with it.
    thread::spawn(in_thread).join().unwrap_or_default()
}

fn in_thread() -> Vec<FeatureProbe> {
    let mut feature_probes = Vec::new();
    let mut note = |feature, result: Result<(), String>| {
        let worked = result.is_ok();
        feature_probes.push(FeatureProbe { feature, result });
        worked
    };
    let place = match Place::open() {
        Ok(place) => {
            note(Feature::Programs, Ok(()));
            place
        }
        Err(error) => {
            note(Feature::Programs, Err(error.to_string()));
            return feature_probes;
        }
    };
    let sharing = place.sharing();
    let listeners = match sharing {
        Ok(listeners) => {
            note(Feature::Sharing, Ok(()));
            listeners
        }
        Err(error) => {
            note(Feature::Sharing, Err(error));
            return feature_probes;
        }
    };
    if note(Feature::Gate, place.gate(&listeners)) {
        note(Feature::Counting, place.counting(&listeners));
        note(Feature::Addresses, place.addresses(&listeners));
        // Where no control group can be made it cannot be tried.
        if let Some(result) = place.localhost() {
            note(Feature::Localhost, result);
        }
        note(Feature::Hold, place.hold(listeners));
    }
    note(Feature::Flows, place.flows());
    note(Feature::Choice, choice());
    feature_probes
}

/// A pod with one replica, which is this process.
struct Place {
    steering: KernelSteering,
    netns: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = self.steering.remove() {
            tracing::warn!(%error, "something of the feature probe stays");
        }
    }
}

type Tried<T = ()> = Result<T, String>;

fn text(error: &io::Error) -> String {
    error.to_string()
}

impl Place {
    fn open() -> Result<Self, KernelError> {
        rights::raise()?;
        let name = format!("sameport-doctor-{}", std::process::id());
        let project = ProjectName::new(name.as_str()).map_err(|error| KernelError::Unsupported {
            what: "try".to_owned(),
            reason: error.to_string(),
        })?;
        let steering = KernelSteering::start(&project)?;
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| KernelError::io("make a network namespace")(errno.into()))?;
        raw::raise_loopback().map_err(KernelError::io("raise the loopback interface"))?;
        // This thread's, not the process's.
        let netns = std::os::unix::fs::MetadataExt::ino(
            &std::fs::metadata("/proc/thread-self/ns/net").map_err(KernelError::io("look at a network"))?,
        );
        let place = Self { steering, netns };
        place.want(0);
        place
            .until(|pod| pod.netns == place.netns && pod.error.is_none())
            .map_err(|reason| KernelError::Unsupported { what: "steer a pod".to_owned(), reason })?;
        Ok(place)
    }

    /// Configures this process as a replica of that weight.
    fn want(&self, weight: u32) {
        let (Ok(pod), Ok(service)) = (PodName::new("doctor"), ServiceName::new("doctor")) else { return };
        let thread = u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap_or(0);
        let replica = ReplicaConfig {
            id: ContainerId("doctor".to_owned()),
            pid: std::process::id(),
            service: service.clone(),
            slot: 1,
            address: OWN,
            weight,
        };
        let config = SteeringConfig {
            coming: BTreeMap::new(),
            pid: thread,
            netns: self.netns,
            declared: BTreeSet::from([(Transport::Tcp, PORT)]),
            exclusive: crate::spec::PortSet::default(),
            rules: BTreeMap::from([(
                service,
                Rules { balance: Balance::LeastConnections, hold: PATIENCE, gates_undeclared: true },
            )]),
            replicas: vec![replica],
        };
        self.steering.want(BTreeMap::from([(pod, config)]));
    }

    /// Waits until the kernel shows something.
    fn until(&self, holds: impl Fn(&PodReport) -> bool) -> Tried {
        let begin = Instant::now();
        loop {
            self.steering.look();
            let report = self.steering.reports().borrow().clone();
            let pod = report.pods.values().next().cloned().unwrap_or_default();
            if holds(&pod) {
                return Ok(());
            }
            if begin.elapsed() > PATIENCE {
                return Err(pod
                    .error
                    .unwrap_or_else(|| "the kernel does not show what it should".to_owned()));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn replica(&self, holds: impl Fn(&ReplicaReport) -> bool) -> Tried {
        self.until(|pod| pod.replicas.values().next().is_some_and(&holds))
    }

    /// Two listeners that do not share, on one port.
    fn sharing(&self) -> Tried<[TcpListener; 2]> {
        let listen = || {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).map_err(|e| text(&e))?;
            listener.set_nonblocking(true).map_err(|e| text(&e))?;
            Ok::<_, String>(listener)
        };
        let pair = [listen()?, listen()?];
        self.replica(|replica| replica.listens_on(&(Transport::Tcp, PORT)))?;
        Ok(pair)
    }

    /// Nobody is let in before the replica is ready; then it is.
    fn gate(&self, listeners: &[TcpListener]) -> Tried {
        let early = connect((SHARED, PORT))?;
        if accept(listeners, Duration::from_millis(50)).is_ok() {
            return Err("a replica that is not ready got a connection".to_owned());
        }
        self.want(100);
        accept(listeners, PATIENCE).map_err(|error| format!("a connection that waited was lost: {error}"))?;
        drop(early);
        self.replica(|replica| replica.weight == 100)
    }

    fn counting(&self, listeners: &[TcpListener]) -> Tried {
        let live = |wanted| {
            self.replica(move |replica| {
                replica.ports.get(&(Transport::Tcp, PORT)).is_some_and(|traffic| traffic.live == wanted)
            })
        };
        live(0)?;
        let client = connect((SHARED, PORT))?;
        let server = accept(listeners, PATIENCE)?;
        live(1)?;
        drop((client, server));
        live(0)
    }

    fn addresses(&self, listeners: &[TcpListener]) -> Tried {
        let own = connect((OWN, PORT))?;
        accept(listeners, PATIENCE)?;
        drop(own);
        Ok(())
    }

    /// A process in a control group of its own listens on the port that the replica has, and asks itself.
    fn localhost(&self) -> Option<Tried> {
        let group = match Group::make() {
            Ok(group) => group,
            Err(KernelError::Denied { .. }) => return None,
            Err(error) => return Some(Err(error.to_string())),
        };
        let mut command = Command::new("/proc/self/exe");
        command.env(ASKS_ITSELF, &group.0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // It is made by this thread, and so in this thread's network.
        Some(command.output().map_err(|error| text(&error)).and_then(
            |output| match output.status.success() {
                true => Ok(()),
                false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            },
        ))
    }

    fn hold(&self, listeners: [TcpListener; 2]) -> Tried {
        drop(listeners);
        self.replica(|replica| !replica.listens())?;
        let waiting = connect((SHARED, PORT))?;
        let listeners = self.sharing()?;
        accept(&listeners, PATIENCE)
            .map_err(|error| format!("a connection that waited was lost: {error}"))?;
        drop(waiting);
        Ok(())
    }

    fn flows(&self) -> Tried {
        self.want(100);
        let open = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).map_err(|e| text(&e));
        let servers = [open()?, open()?];
        servers.iter().try_for_each(|server| server.set_nonblocking(true)).map_err(|e| text(&e))?;
        self.replica(|replica| replica.listens_on(&(Transport::Udp, PORT)))?;
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| text(&e))?;
        let mut receivers = BTreeSet::new();
        for _ in 0..8 {
            client.send_to(b"?", (Ipv4Addr::LOCALHOST, PORT)).map_err(|e| text(&e))?;
            let begin = Instant::now();
            let receiver = loop {
                let received = servers.iter().position(|server| server.recv(&mut [0; 8]).is_ok());
                match received {
                    Some(receiver) => break receiver,
                    None if begin.elapsed() > PATIENCE => return Err("a datagram was lost".to_owned()),
                    None => thread::sleep(Duration::from_millis(1)),
                }
            };
            receivers.insert(receiver);
        }
        if receivers.len() == 1 { Ok(()) } else { Err("a flow went to several replicas".to_owned()) }
    }
}

/// Whether that which looks at calls of another architecture is attached. It takes no heed of us, who supervise, so that it
/// cannot be tried.
fn choice() -> Tried {
    let root = capability::mounted("bpf").map(|bpffs| bpffs.join("sameport"));
    match root.is_some_and(|root| Programs::has_compat(&host::folder(&root))) {
        true => Ok(()),
        false => Err("the kernel takes no BPF program in front of setsockopt(2) (`fmod_ret`)".to_owned()),
    }
}

/// The variable that makes a process of this program ask itself; its value is a control group.
const ASKS_ITSELF: &str = "SAMEPORT_ASKS_ITSELF";

/// If this process was started to ask itself ([`Feature::Localhost`]): what came of it. To be called before anything else.
#[must_use]
pub fn asks_itself() -> Option<Result<(), String>> {
    let group = std::env::var_os(ASKS_ITSELF)?;
    Some(ask_itself(Path::new(&group)))
}

fn ask_itself(group: &Path) -> Tried {
    fs::write(group.join("cgroup.procs"), std::process::id().to_string()).map_err(|e| text(&e))?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).map_err(|e| text(&e))?;
    listener.set_nonblocking(true).map_err(|e| text(&e))?;
    for _ in 0..8 {
        let _client = connect((Ipv4Addr::LOCALHOST, PORT))?;
        accept(std::slice::from_ref(&listener), Duration::from_millis(500))
            .map_err(|_| "a connection to localhost reached another replica".to_owned())?;
    }
    Ok(())
}

/// A control group that goes with this.
struct Group(PathBuf);

impl Group {
    fn make() -> Result<Self, KernelError> {
        // Below our own: that at the root may not be ours to write.
        let own = Cgroup::of(std::process::id())?;
        let path = own.path().join(format!("sameport-doctor-{}", std::process::id()));
        fs::create_dir(&path).map_err(KernelError::io(format!("make {}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that has just ended may be in it for a moment.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        tracing::warn!(group = %self.0.display(), "a control group of the feature probe stays");
    }
}

fn connect(to: impl Into<SocketAddr>) -> Tried<TcpStream> {
    TcpStream::connect_timeout(&to.into(), PATIENCE).map_err(|e| text(&e))
}

/// A connection to any of them.
fn accept(listeners: &[TcpListener], limit: Duration) -> Tried<TcpStream> {
    let begin = Instant::now();
    loop {
        for listener in listeners {
            match listener.accept() {
                Ok((connection, _)) => return Ok(connection),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(text(&error)),
            }
        }
        if begin.elapsed() > limit {
            return Err("no connection came".to_owned());
        }
        thread::sleep(Duration::from_millis(1));
    }
}
