//! What the kernel's choice of a replica costs, and that it does not grow with their number.
//!
//! For 4, 16, 64 and 256 replicas in a network namespace of the benchmark's own, connections are begun, and the kernel
//! tells what one run of the program that chooses took (`BPF_ENABLE_STATS`). The smallest program that does anything at
//! all there, a look-up in a map for each packet (`sameport_gate`), is measured in the same run as the floor: most of it
//! is the measuring itself. `cargo bench --bench choice`; it needs root, and no engine.

#![allow(clippy::print_stdout, reason = "this is what it is for")]

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};
use sameport::{
    engine::ContainerId,
    kernel::{
        KernelError, Netns, capability,
        sockets::Transport,
        steering::{KernelSteering, PodWish, ReplicaWish, Rules, Steering},
    },
    spec::{Balance, PodName, ProjectName, ServiceName},
};
use socket2::{Domain, Protocol, Socket, Type};

const PORT: u16 = 8080;
const SIZES: [u16; 4] = [4, 16, 64, 256];
const POLICIES: [Balance; 3] = [Balance::LeastConnections, Balance::Hash, Balance::Random];
const PACKETS: u32 = 20_000;
const REPLICA: &str = "--replica";

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().any(|arg| arg == REPLICA) {
        return replica();
    }
    let cpus = thread::available_parallelism()?;
    println!("one choice, mean of {PACKETS} new connections, {cpus} CPUs, Linux {}", capability::release());
    println!("replicas  policy            floor     choice  to 4 replicas");
    let _stats = enable_stats(Stats::RunTime)?;
    for policy in POLICIES {
        let mut first = None;
        for size in SIZES {
            let pod = Pod::start(size, policy)?;
            let (floor, choice) = pod.measure()?;
            let ratio = choice / *first.get_or_insert(choice);
            let policy = format!("{policy:?}");
            println!("{size:8}  {policy:16}  {floor:4.0} ns  {choice:6.0} ns  x{ratio:.2}");
        }
    }
    Ok(())
}

/// Accepts whatever comes, without an option for sharing.
fn replica() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    loop {
        drop(listener.accept()?);
    }
}

struct Pod {
    steering: KernelSteering,
    sandbox: Child,
    replicas: Vec<(Child, PathBuf)>,
}

impl Pod {
    fn start(size: u16, balance: Balance) -> Result<Self, Box<dyn Error>> {
        let project = ProjectName::new(format!("bench{}", std::process::id()).as_str())?;
        let mut sandbox = Command::new("unshare")
            .args([
                "--net",
                "sh",
                "-c",
                "ip link set lo up; ip route add 192.0.2.0/24 dev lo; echo up; exec sleep 3600",
            ])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(sandbox.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let steering = KernelSteering::start(&project)?;
        let mut pod = Self { steering, sandbox, replicas: Vec::new() };
        pod.want(balance)?;
        pod.until(|_| true)?;
        let root = capability::mounted("cgroup2").ok_or("no cgroup2")?;
        for number in 0..size {
            let cgroup = root.join(format!("{project}-{number}"));
            fs::create_dir(&cgroup)?;
            let child = Command::new("nsenter")
                .arg(format!("--net=/proc/{}/ns/net", pod.sandbox.id()))
                .args(["sh", "-c", r#"echo $$ >"$0/cgroup.procs"; exec "$@""#])
                .arg(&cgroup)
                .arg(std::env::current_exe()?)
                .arg(REPLICA)
                .spawn()?;
            pod.replicas.push((child, cgroup));
        }
        thread::sleep(Duration::from_millis(200));
        pod.want(balance)?;
        pod.until(|listening| listening == usize::from(size))?;
        Ok(pod)
    }

    fn want(&self, balance: Balance) -> Result<(), Box<dyn Error>> {
        let service = ServiceName::new("bench")?;
        let replicas = (1_u16..).zip(&self.replicas).map(|(number, (child, _))| {
            let [high, low] = number.to_be_bytes();
            ReplicaWish {
                id: ContainerId(number.to_string()),
                pid: child.id(),
                service: service.clone(),
                address: Ipv4Addr::new(127, 77, high, low),
                weight: 100,
            }
        });
        let wish = PodWish {
            pid: self.sandbox.id(),
            netns: Netns::of(self.sandbox.id())?.inode,
            declared: BTreeSet::from([(Transport::Tcp, PORT)]),
            rules: BTreeMap::from([(service.clone(), Rules { balance, hold: Duration::ZERO })]),
            replicas: replicas.collect(),
        };
        self.steering.want(BTreeMap::from([(PodName::new("bench")?, wish)]));
        Ok(())
    }

    /// Waits until so many listen.
    fn until(&self, enough: impl Fn(usize) -> bool) -> Result<(), Box<dyn Error>> {
        let begin = Instant::now();
        loop {
            self.steering.look();
            let report = self.steering.reports().borrow().clone();
            let pod = report.pods.values().next().cloned().unwrap_or_default();
            let listening = pod.replicas.values().filter(|replica| replica.listens()).count();
            if pod.netns != 0 && enough(listening) {
                return Ok(());
            }
            if begin.elapsed() > Duration::from_secs(60) {
                return Err(format!("{listening} replicas listen: {:?}", pod.error).into());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Nanoseconds that the gate and the choice took for each connection.
    fn measure(&self) -> Result<(f64, f64), Box<dyn Error>> {
        let netns = Netns::of(self.sandbox.id())?;
        self.load(&netns, PACKETS / 10)?;
        let before = (cost("sameport_gate")?, cost("sameport_select")?);
        self.load(&netns, PACKETS)?;
        let after = (cost("sameport_gate")?, cost("sameport_select")?);
        let mean =
            |before: (u64, u64), after: (u64, u64)| (after.0 - before.0) as f64 / (after.1 - before.1) as f64;
        Ok((mean(before.0, after.0), mean(before.1, after.1)))
    }

    /// Sends first packets of handshakes, whose answers go nowhere: what is measured is the choice alone, and not how
    /// 256 processes take turns on the processors.
    fn load(&self, netns: &Netns, packets: u32) -> Result<(), KernelError> {
        netns.within(|| {
            let fail = || KernelError::io("send a packet");
            let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).map_err(fail())?;
            let to = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)).into();
            for number in 0..packets {
                raw.send_to(&syn(number), &to).map_err(fail())?;
            }
            Ok(())
        })
    }
}

/// The first packet of a handshake, from another address and port each time.
fn syn(number: u32) -> Vec<u8> {
    let [high, low] = u16::try_from(number % 60_000 + 1024).unwrap_or(1024).to_be_bytes();
    let from = [192, 0, 2, u8::try_from(number % 250 + 1).unwrap_or(1)];
    let to = Ipv4Addr::LOCALHOST.octets();
    let [port_high, port_low] = PORT.to_be_bytes();
    // Five words long, SYN, a window, no checksum yet, nothing urgent.
    let mut tcp =
        vec![high, low, port_high, port_low, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0];
    let pseudo = [&from[..], &to, &[0, 6, 0, 20], &tcp].concat();
    let words = pseudo.chunks_exact(2).filter_map(|pair| Some(u16::from_be_bytes(pair.try_into().ok()?)));
    let mut sum: u32 = words.map(u32::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !u16::try_from(sum).unwrap_or(0);
    tcp.splice(16..18, checksum.to_be_bytes());
    // The kernel fills in length, id and checksum of this header.
    let ip = [&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0][..], &from, &to].concat();
    [ip, tcp].concat()
}

/// Nanoseconds and runs of the newest program with that name, as the kernel tells of a descriptor of it.
fn cost(name: &str) -> Result<(u64, u64), Box<dyn Error>> {
    let programs = loaded_programs().filter_map(Result::ok);
    let newest = programs.filter(|info| info.name_as_str() == Some(name)).max_by_key(|info| info.id());
    let file = newest.ok_or("the program is not there")?.fd()?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_fd().as_raw_fd()))?;
    let value = |key: &str| -> Result<u64, Box<dyn Error>> {
        let line = info.lines().find_map(|line| line.strip_prefix(key)).ok_or("no statistics")?;
        Ok(line.trim_start_matches(':').trim().parse()?)
    };
    Ok((value("run_time_ns")?, value("run_cnt")?))
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Err(error) = self.steering.remove() {
            eprintln!("{error}");
        }
        for (child, cgroup) in &mut self.replicas {
            // They end by this, and only what is ours is ended.
            let _ = child.kill();
            let _ = child.wait();
            let _ = fs::remove_dir(cgroup);
        }
        let _ = self.sandbox.kill();
        let _ = self.sandbox.wait();
    }
}
