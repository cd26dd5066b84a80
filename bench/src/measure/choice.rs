//! What the kernel's choice of a replica costs, and that it does not grow with their number.
//!
//! For replicas in a network namespace of the benchmark's own, connections are begun, and the kernel tells what one run of
//! the program that chooses took (`BPF_ENABLE_STATS`). The same program, for packets to a port that no replica listens on,
//! is measured in the same run as the floor: it looks the port up and leaves the packet to the kernel. It takes no engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::{AsFd as _, AsRawFd as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};
use sameport::{
    engine::ContainerId,
    kernel::{
        KernelError, Netns, capability,
        sockets::Transport,
        steering::{KernelSteering, PodWish, ReplicaWish, Rules, Steering as _},
    },
    spec::{Balance, PodName, PortSet, ProjectName, ServiceName},
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    bench::Bench,
    extent::Extent,
    results::{Better, Bound, By, Goal, Id, Kind, Measure, Series},
};

/// The word by which this binary becomes a replica.
pub const WORD: &str = "choice-replica";

const PORT: u16 = 8080;
/// Nobody listens there.
const OTHER_PORT: u16 = 8081;
/// The pod's address, as those see it who come from outside.
const POD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const POLICIES: [(Balance, &str); 3] =
    [(Balance::LeastConnections, "least-connections"), (Balance::Hash, "hash"), (Balance::Random, "random")];
/// How long replicas may take to listen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Is a replica: accepts whatever comes, without an option for sharing.
pub fn be_replica() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    loop {
        drop(listener.accept()?);
    }
}

/// How often [`Bench::step`] is called.
pub fn steps(extent: &Extent) -> u64 {
    (extent.rounds * POLICIES.len() * extent.choices.len()) as u64
}

/// F8: each policy with each number of replicas.
pub fn measure(bench: &Bench) -> Result<Vec<Measure>> {
    let extent = &bench.extent;
    let mut measures = POLICIES.map(|(_, policy)| question(policy, extent));
    let _stats = enable_stats(Stats::RunTime).context("the kernel does not measure BPF programs")?;
    for _ in 0..extent.rounds {
        for ((balance, policy), measure) in POLICIES.into_iter().zip(&mut measures) {
            for (&size, series) in extent.choices.iter().zip(&mut measure.series) {
                bench.step(&format!("F8: {policy} among {size}"))?;
                let pod = Pod::start(&bench.project("choice"), size, balance)?;
                series.samples.push(pod.measure(extent.connections)?);
            }
        }
    }
    Ok(measures.into())
}

fn question(policy: &str, extent: &Extent) -> Measure {
    let peer = |size: &u16| format!("{size} replicas");
    let series: Vec<_> = extent.choices.iter().map(|size| Series::new(peer(size), Kind::Sameport)).collect();
    let cheap = series.iter().map(|series| Goal::new(&series.peer, By::One, Bound::AtMost(150.0)));
    let ends = extent.choices.first().zip(extent.choices.last()).filter(|(few, many)| few != many);
    let flat = ends.map(|(few, many)| Goal::new(peer(many), By::Peer(peer(few)), Bound::AtMost(1.3)));
    Measure {
        id: Id::F8,
        title: format!("ns for a choice by {policy}, beyond the floor of the measuring itself"),
        how: format!(
            "What one run of the program that chooses takes for a new connection, by the kernel's own statistics, mean of {} \
             connections that are begun one by one; less what it takes for a packet to another port (the floor: it looks the port \
             up, finds none, and a part is the measuring itself), measured in the same run. No proxy or translation is shown here, for nothing of theirs is comparable.",
            extent.connections
        ),
        better: Better::Lower,
        goals: cheap.chain(flat).collect(),
        series,
    }
}

/// A process that ends with this.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // It fails where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A control group that goes with this.
struct Cgroup(PathBuf);

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("warning: the control group {} is left: {error}", self.0.display());
        }
    }
}

/// The process goes first, and then its group.
struct Replica {
    process: Ends,
    _cgroup: Cgroup,
}

struct Pod {
    steering: KernelSteering,
    replicas: Vec<Replica>,
    sandbox: Ends,
}

impl Pod {
    fn start(name: &str, size: u16, balance: Balance) -> Result<Self> {
        let sandbox = sandbox()?;
        let steering = KernelSteering::start(&ProjectName::new(name)?)?;
        let mut pod = Self { steering, replicas: Vec::new(), sandbox };
        pod.want(balance)?;
        pod.wait_until(|_| true)?;
        for number in 0..size {
            let replica = pod.replica(&format!("{name}-{number}"))?;
            pod.replicas.push(replica);
        }
        // Each is in its group, and is no shell any more.
        thread::sleep(Duration::from_millis(200));
        pod.want(balance)?;
        pod.wait_until(|listening| listening == usize::from(size))?;
        Ok(pod)
    }

    fn replica(&self, name: &str) -> Result<Replica> {
        let path = capability::mounted("cgroup2").context("no control groups of version 2")?.join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let cgroup = Cgroup(path);
        let process = Command::new("nsenter")
            .arg(format!("--net=/proc/{}/ns/net", self.sandbox.0.id()))
            .args(["sh", "-c", r#"echo $$ >"$0/cgroup.procs"; exec "$@""#])
            .arg(&cgroup.0)
            .arg(std::env::current_exe()?)
            .arg(WORD)
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start a replica")?;
        Ok(Replica { process: Ends(process), _cgroup: cgroup })
    }

    fn want(&self, balance: Balance) -> Result<()> {
        let service = ServiceName::new("bench")?;
        let replicas = (1_u16..).zip(&self.replicas).map(|(number, replica)| {
            let [high, low] = number.to_be_bytes();
            ReplicaWish {
                id: ContainerId(number.to_string()),
                pid: replica.process.0.id(),
                service: service.clone(),
                slot: u32::from(number),
                address: Ipv4Addr::new(127, 77, high, low),
                weight: 100,
            }
        });
        let wish = PodWish {
            pid: self.sandbox.0.id(),
            netns: self.netns()?.inode,
            declared: BTreeSet::from([(Transport::Tcp, PORT)]),
            exclusive: PortSet::default(),
            rules: BTreeMap::from([(service.clone(), Rules { balance, hold: Duration::ZERO })]),
            replicas: replicas.collect(),
        };
        self.steering.want(BTreeMap::from([(PodName::new("bench")?, wish)]));
        Ok(())
    }

    fn netns(&self) -> Result<Netns> {
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

    /// Nanoseconds that the choice took for each connection, beyond what a look at the port takes.
    fn measure(&self, packets: u32) -> Result<f64> {
        let choice = self.cost(PORT, packets)?;
        let floor = self.cost(OTHER_PORT, packets)?;
        if std::env::var_os("SAMEPORT_BENCH_VERBOSE").is_some() {
            eprintln!("choice {choice:.0} ns, floor {floor:.0} ns");
        }
        Ok(choice - floor)
    }

    /// Nanoseconds that the program takes for a packet from outside to a port.
    fn cost(&self, port: u16, packets: u32) -> Result<f64> {
        let netns = self.netns()?;
        begin_connections(&netns, port, packets / 10)?;
        let before = Cost::of("sameport_lookup")?;
        begin_connections(&netns, port, packets)?;
        let cost = Cost::of("sameport_lookup")?.mean_since(before);
        if !cost.is_finite() {
            bail!("the program has not run");
        }
        Ok(cost)
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
fn sandbox() -> Result<Ends> {
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

/// Sends first packets of handshakes, whose answers go nowhere: what is measured is the choice alone, and not how 256
/// processes take turns on the processors.
fn begin_connections(netns: &Netns, port: u16, packets: u32) -> Result<(), KernelError> {
    netns.within(|| {
        let fail = || KernelError::io("send a packet");
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).map_err(fail())?;
        let to = SocketAddr::from((POD, port)).into();
        for number in 0..packets {
            raw.send_to(&syn(number, port), &to).map_err(fail())?;
        }
        Ok(())
    })
}

/// The first packet of a handshake, from another address and port each time.
fn syn(number: u32, port: u16) -> Vec<u8> {
    let [high, low] = u16::try_from(number % 60_000 + 1024).unwrap_or(1024).to_be_bytes();
    let from = [192, 0, 2, u8::try_from(number % 250 + 1).unwrap_or(1)];
    let to = POD.octets();
    let [port_high, port_low] = port.to_be_bytes();
    // Five words long, SYN, a window, no checksum yet, nothing urgent.
    let mut tcp =
        vec![high, low, port_high, port_low, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0];
    let pseudo = [&from[..], &to, &[0, 6, 0, 20], &tcp].concat();
    tcp.splice(16..18, checksum(&pseudo).to_be_bytes());
    // The kernel fills in length, id and checksum of this header.
    let ip = [&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0][..], &from, &to].concat();
    [ip, tcp].concat()
}

/// The Internet's checksum of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).filter_map(|pair| Some(u16::from_be_bytes(pair.try_into().ok()?)));
    let mut sum: u32 = words.map(u32::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// What a program has taken so far.
#[derive(Clone, Copy)]
struct Cost {
    nanoseconds: u64,
    runs: u64,
}

impl Cost {
    /// Of the newest program with that name, as the kernel tells of a descriptor of it.
    fn of(name: &str) -> Result<Self> {
        let programs = loaded_programs().filter_map(Result::ok);
        let newest = programs.filter(|info| info.name_as_str() == Some(name)).max_by_key(|info| info.id());
        let file = newest.with_context(|| format!("the program {name} is not there"))?.fd()?;
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_fd().as_raw_fd()))?;
        let value = |key: &str| -> Result<u64> {
            let line = info.lines().find_map(|line| line.strip_prefix(key));
            let line = line.ok_or_else(|| anyhow!("the kernel tells no {key} of {name}"))?;
            Ok(line.trim_start_matches(':').trim().parse()?)
        };
        Ok(Self { nanoseconds: value("run_time_ns")?, runs: value("run_cnt")? })
    }

    /// Of one run since then; not a number if there was none.
    fn mean_since(self, before: Self) -> f64 {
        (self.nanoseconds - before.nanoseconds) as f64 / (self.runs - before.runs) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_what_has_one_is_zero() {
        let packet = syn(7, PORT);
        let (ip, tcp) = packet.split_at(20);
        let pseudo = [&ip[12..20], &[0, 6, 0, 20], tcp].concat();
        assert_eq!(checksum(&pseudo), 0);
    }

    #[test]
    fn a_smoke_test_is_short() {
        assert_eq!(steps(&Extent::SMOKE), 3);
        assert_eq!(steps(&Extent::FULL), 3 * 3 * 4);
    }
}
