//! What all projects of a host share.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read as _,
    net::{Ipv4Addr, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    time::{Duration, Instant},
};

use aya::maps::MapData;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sameport::{
    engine::ContainerId,
    kernel::{
        Netns, capability,
        steering::{KernelSteering, PodReport, ReplicaConfig, Rules, Steering, SteeringConfig},
    },
    spec::{Balance, PodName, PortSet, ServiceName},
};

use super::{
    crowd::Crowd,
    network::Group,
    pod::Pod,
    server::{PORT, answers, http, shared},
    support::{
        apart::apart,
        wait::{self, check},
    },
};

/// The kernel takes 64 programs of a kind at one control group.
const PROJECTS: u32 = 70;
/// So many that serve are on one host.
const MANY: u32 = 200;
/// So much memory may the kernel take for each of them.
const MOST_OF_PROJECT: u64 = 2_000_000;
/// So long each may take to come, to be seen, or to go, on a busy machine.
const MOST_TIME: Duration = Duration::from_millis(1500);

#[test]
fn more_projects_than_the_kernel_takes_programs_share_their_ports() {
    let name = |number: u32| format!("sph{}-{number}", std::process::id()).parse().unwrap();
    let projects: Vec<_> =
        (0..PROJECTS).map(|number| KernelSteering::start(&name(number)).unwrap()).collect();
    let mut pod = Pod::new();
    for slot in 1..=2 {
        pod.start(slot, &mut http());
    }
    pod.listening(2, PORT);
    assert_eq!(answers(&pod, 20).keys().collect::<Vec<_>>(), ["1", "2"]);
    // The others go; who is left is none the worse.
    for project in projects {
        project.remove().unwrap();
    }
    assert_eq!(answers(&pod, 20).keys().collect::<Vec<_>>(), ["1", "2"]);
    pod.start(3, &mut http());
    pod.listening(3, PORT);
    assert_eq!(answers(&pod, 30).keys().collect::<Vec<_>>(), ["1", "2", "3"]);
}

/// A project of a pod whose two replicas share a port.
struct Project {
    steering: KernelSteering,
    network: u32,
    /// Each with its process.
    replicas: Vec<(Group, u32)>,
}

impl Project {
    fn new(number: u32, network: u32) -> Self {
        let name = format!("spm{}-{number}", std::process::id()).parse().unwrap();
        Self { steering: KernelSteering::start(&name).unwrap(), network, replicas: Vec::new() }
    }

    fn tell(&self) {
        let service: ServiceName = "web".parse().unwrap();
        let replicas = (1..).zip(&self.replicas).map(|(slot, (_, pid))| ReplicaConfig {
            id: ContainerId(format!("{slot:064}")),
            pid: *pid,
            service: service.clone(),
            slot,
            address: Ipv4Addr::new(127, 77, 0, u8::try_from(slot).unwrap()),
            weight: 100,
        });
        let config = SteeringConfig {
            coming: BTreeMap::new(),
            pid: self.network,
            netns: Netns::of(self.network).unwrap().inode,
            declared: BTreeSet::from([PORT]),
            exclusive: PortSet::default(),
            replicas: replicas.collect(),
            rules: BTreeMap::from([(
                service.clone(),
                Rules { balance: Balance::LeastConnections, hold: Duration::ZERO, gates_undeclared: true },
            )]),
        };
        self.steering.want(BTreeMap::from([(PodName::new("web").unwrap(), config)]));
    }

    fn report(&self) -> PodReport {
        let reports = self.steering.reports();
        let report = reports.borrow();
        report.pods.values().next().cloned().unwrap_or_default()
    }

    fn until(&self, listening: usize) {
        wait::until("its replicas listen", || {
            let report = self.report();
            let seen = report.replicas.values().filter(|replica| replica.listens_on(&PORT)).count();
            check(report.netns != 0 && report.error.is_none() && seen == listening, report)
        });
    }

    /// Both replicas answer, and nobody else.
    fn answer(&self) {
        let ask = || {
            let mut answers = BTreeSet::new();
            for _ in 0..8 {
                let mut text = String::new();
                let mut stream = TcpStream::connect(shared()).unwrap();
                stream.read_to_string(&mut text).unwrap();
                answers.insert(text);
            }
            Ok(answers)
        };
        let answers = Netns::of(self.network).unwrap().within(ask).unwrap();
        assert_eq!(answers.into_iter().collect::<Vec<_>>(), ["1", "2"]);
    }
}

/// What the maps that are pinned in a folder and below take, in bytes.
fn memory(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| {
        if entry.file_type().unwrap().is_dir() {
            return memory(&entry.path());
        }
        if !entry.file_name().to_string_lossy().starts_with("sp_") {
            return 0;
        }
        let map = MapData::from_pin(entry.path()).unwrap();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd())).unwrap();
        let locked = info.lines().find_map(|line| line.strip_prefix("memlock:")).unwrap();
        locked.trim().parse::<u64>().unwrap()
    };
    entries.map(of).sum()
}

/// Does something for each, and says how long it took.
fn timed<T>(what: &str, count: u32, work: impl FnMut(u32) -> T) -> Vec<T> {
    let begin = Instant::now();
    let done: Vec<T> = (0..count).map(work).collect();
    let each = begin.elapsed() / count;
    eprintln!("{what}: {:.1} s, {:.1} ms each", begin.elapsed().as_secs_f64(), each.as_secs_f64() * 1000.0);
    assert!(each < wait::slowly(MOST_TIME), "{what}: {each:?}");
    done
}

/// Each supervisor has some descriptors; here they are all in one process.
fn take_descriptors() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
}

#[test]
fn more_projects_than_the_kernel_takes_programs_serve() {
    // All supervisors together look at what is pinned more often than an emulated processor can.
    serve(if wait::is_emulated() { PROJECTS / 7 } else { PROJECTS });
}

#[test]
#[ignore = "takes half a minute: `.ci/full many-projects`"]
fn many_projects_serve() {
    serve(MANY);
}

/// Each serves by two replicas that share a port, and all of it goes.
fn serve(count: u32) {
    take_descriptors();
    apart(|| {
        let root = capability::mounted("bpf").unwrap().join("sameport");
        let mut crowd = Crowd::new();
        let networks: Vec<_> = (0..count).map(|_| crowd.network()).collect();
        let mut projects = timed("come", count, |number| {
            let project = Project::new(number, networks[number as usize]);
            project.tell();
            project
        });
        projects.iter().for_each(|project| project.until(0));
        timed("replicas begin", count, |number| {
            let project = &mut projects[number as usize];
            for slot in 1..=2 {
                let group = Group::new(&format!("spm{}-{number}-{slot}", std::process::id()));
                let pid = crowd.serve(project.network, &group.0, &slot.to_string());
                project.replicas.push((group, pid));
            }
            project.tell();
        });
        timed("are seen", count, |number| projects[number as usize].until(2));
        timed("answer", count, |number| projects[number as usize].answer());
        let host = memory(&root.join("_host_2"));
        let each = (memory(&root) - host) / u64::from(count);
        eprintln!("maps: {host} bytes for all, and {each} for each project");
        assert!(each < MOST_OF_PROJECT && host < 40_000_000, "{host}, {each}");
        // One more is as soon there as the first.
        let begin = Instant::now();
        let last = Project::new(count, crowd.network());
        last.tell();
        last.until(0);
        eprintln!("one more: {:.1} ms", begin.elapsed().as_secs_f64() * 1000.0);
        last.steering.remove().unwrap();
        // Whoever stays is none the worse.
        let first = projects.remove(0);
        let mut going = projects.into_iter();
        timed("go", count - 1, |_| going.next().unwrap().steering.remove().unwrap());
        first.answer();
        first.steering.remove().unwrap();
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "nothing is left");
    });
}
