//! Projects with many ports, and supervisors that may open few files.

use std::{
    fs, io,
    io::Read,
    net::{SocketAddr, TcpStream, UdpSocket},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::unistd::Pid;
use sameport::kernel::Pins;

use super::support::{
    docker, ports,
    project::Project,
    wait::{self, check},
};

/// A server on many ports, which tells on each who it is. It is told `tcp` or `udp`, the first port, and how many.
const SERVER: &str = "
import os, resource, selectors, signal, socket, sys
kind, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
me, all = os.environ['REPLICA'].encode(), selectors.DefaultSelector()
for port in range(first, first + count):
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == 'tcp' else socket.SOCK_DGRAM)
    if kind == 'tcp':
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('0.0.0.0', port))
    if kind == 'tcp':
        s.listen(64)
    s.setblocking(False)
    all.register(s, selectors.EVENT_READ)
while True:
    for key, _ in all.select():
        try:
            if kind == 'tcp':
                with key.fileobj.accept()[0] as c:
                    c.sendall(me)
            else:
                data, peer = key.fileobj.recvfrom(100)
                key.fileobj.sendto(me, peer)
        except OSError:
            pass
";

/// How many ports each service has.
const PORTS: u16 = 200;
/// The first of those that are exposed.
const EXPOSED: u16 = 20_000;

/// A service in so many replicas with ports that other services reach.
fn exposed(replicas: u32) -> String {
    let last = EXPOSED + PORTS - 1;
    service("api", &format!("expose: [\"{EXPOSED}-{last}\"]"), replicas, "tcp", EXPOSED)
}

/// A service with ports that are published as they are.
fn published(first: u16) -> String {
    let last = first + PORTS - 1;
    service("media", &format!("ports: [\"{first}-{last}:{first}-{last}/udp\"]"), 1, "udp", first)
}

fn service(name: &str, ports: &str, replicas: u32, kind: &str, first: u16) -> String {
    let server = serde_json::to_string(SERVER).unwrap();
    format!(
        r#"
  {name}:
    image: ${{PYTHON}}
    environment: {{ REPLICA: "{name}-{{{{.Slot}}}}" }}
    command: ["python3", "-c", {server}, "{kind}", "{first}", "{PORTS}"]
    {ports}
    deploy: {{ replicas: {replicas} }}"#
    )
}

/// A `sameport` command that may have no more files open than that; it begins with as few as a login does.
fn limited(project: &Project, files: u32, args: &[&str]) -> Command {
    let inside = project.command(args);
    let mut command = Command::new("sh");
    let line = format!(
        "ulimit -n {files}; ulimit -Sn {}; exec timeout --foreground --kill-after=10 120 \"$@\"",
        files.min(1024)
    );
    command.args(["-c", &line, "sh"]).arg(inside.get_program()).args(inside.get_args());
    command.current_dir(inside.get_current_dir().unwrap());
    for (key, value) in inside.get_envs() {
        command.env(key, value.unwrap());
    }
    command
}

/// Runs it to a good end.
fn run(mut command: Command) -> String {
    let output = command.output().unwrap();
    let told =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {told}");
    told
}

/// What a supervisor uses.
#[derive(Debug)]
struct Used {
    files: usize,
    kilobytes: u64,
    processor: Duration,
}

impl Used {
    fn by(supervisor: Pid) -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/{supervisor}/{name}")).unwrap();
        let status = read("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let stat = read("stat");
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks = |at: usize| fields.split(' ').nth(at).unwrap().parse::<u64>().unwrap();
        Self {
            files: fs::read_dir(format!("/proc/{supervisor}/fd")).unwrap().count(),
            kilobytes: resident.split_whitespace().next().unwrap().parse().unwrap(),
            processor: Duration::from_millis(10 * (ticks(11) + ticks(12))),
        }
    }
}

/// The share of a processor that a supervisor takes in a while in which nothing happens.
fn share(supervisor: Pid) -> f64 {
    const WHILE: Duration = Duration::from_secs(5);
    let before = Used::by(supervisor).processor;
    thread::sleep(WHILE);
    (Used::by(supervisor).processor - before).as_secs_f64() / WHILE.as_secs_f64()
}

fn ask_tcp(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn ask_udp(address: SocketAddr) -> io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut buffer = [0; 100];
    // A datagram may be lost.
    let mut answered = Err(io::Error::other("nobody was asked"));
    for _ in 0..3 {
        socket.send(b"?")?;
        answered = socket.recv(&mut buffer);
        if answered.is_ok() {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&buffer[..answered?]).into_owned())
}

/// Ports of a pod that were not answered by that service.
fn unanswered(
    project: &Project,
    service: &str,
    first: u16,
    ask: impl Fn(SocketAddr) -> io::Result<String>,
) -> Vec<(u16, String)> {
    let at = project.in_pod(service, first);
    let told = |port: u16| match ask((at.ip(), port).into()) {
        Ok(who) if who.starts_with(service) => None,
        Ok(who) => Some((port, who)),
        Err(error) => Some((port, error.to_string())),
    };
    (first..first + PORTS).filter_map(told).collect()
}

fn nothing_is_left(project: &Project) {
    let filter = docker::of_project(&project.name);
    assert_eq!(project.docker.lines(&["ps", "-aq", "--filter", &filter]), Vec::<String>::new());
    assert!(!Pins::exist(&project.name.parse().unwrap()), "something stays in the kernel");
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn a_project_with_four_hundred_ports_starts_and_all_of_them_are_reached() {
    let first = ports::free_range(PORTS);
    let project = Project::new(&format!("services:{}{}", published(first), exposed(3)));
    let begin = Instant::now();
    run(limited(&project, 4096, &["up", "-d", "--wait"]));
    let started = begin.elapsed();
    wait::until("all exposed ports are reached", || {
        let missing = unanswered(&project, "api", EXPOSED, ask_tcp);
        check(missing.is_empty(), missing)
    });
    let missing = unanswered(&project, "media", first, ask_udp);
    assert_eq!(missing, []);
    // The way through the engine.
    assert_eq!(ask_udp((project.outside().ip(), first).into()).unwrap(), "media-1");
    let supervisor = project.supervisor().unwrap();
    let (used, share) = (Used::by(supervisor), share(supervisor));
    let begin = Instant::now();
    let told = project.run(&["ps"]);
    let asked = begin.elapsed();
    assert!(told.contains("api-3") && told.contains("media-1"), "{told}");
    let begin = Instant::now();
    project.run(&["down"]);
    let down = begin.elapsed();
    eprintln!(
        "400 ports: started in {started:.1?}, {used:?}, {:.1} % of a core, ps {asked:.1?}, down {down:.1?}",
        100. * share
    );
    nothing_is_left(&project);
    assert!(used.files < 700, "{used:?}");
    assert!(used.kilobytes < 200_000, "{used:?}");
    assert!(share < 0.3, "{share}");
}

#[test]
fn a_supervisor_that_may_open_few_files_steers_all_ports_tells_what_is_missing_and_goes_down() {
    let project = Project::new(&format!("services:{}", exposed(2)));
    run(limited(&project, 256, &["up", "-d", "--wait"]));
    wait::until("all ports are reached", || {
        let missing = unanswered(&project, "api", EXPOSED, ask_tcp);
        check(missing.is_empty(), missing)
    });
    let told = project.status().pods[0].error.clone().unwrap_or_default();
    assert!(told.contains("open files") && told.contains("ulimit -n"), "{told}");
    let supervisor = project.supervisor().unwrap();
    let share = share(supervisor);
    assert!(share < 0.5, "{share}");
    // Told once, not at each look.
    let log = project.log();
    assert!(log.matches("open files").count() <= 3, "{log}");
    // Who is ready and who not still counts.
    project.run(&["drain", "api-1"]);
    let at = project.in_pod("api", EXPOSED + PORTS - 1);
    let who: Vec<_> = (0..20).map(|_| ask_tcp(at).unwrap()).collect();
    assert!(who.iter().all(|who| who == "api-2"), "{who:?}");
    let begin = Instant::now();
    project.run(&["down"]);
    eprintln!("256 files: {:?}, {:.1} % of a core, down {:.1?}", told, 100. * share, begin.elapsed());
    nothing_is_left(&project);
}

#[test]
fn a_supervisor_whose_limit_of_files_is_lowered_while_it_runs_goes_down() {
    let project = Project::new(&format!("services:{}", exposed(2)));
    project.run(&["up", "-d", "--wait"]);
    wait::until("all ports are reached", || {
        let missing = unanswered(&project, "api", EXPOSED, ask_tcp);
        check(missing.is_empty(), missing)
    });
    let supervisor = project.supervisor().unwrap();
    let before = Used::by(supervisor);
    run({
        let mut command = Command::new("prlimit");
        command.args(["--pid", &supervisor.to_string(), "--nofile=160:160"]);
        command
    });
    // It has something to do.
    project.docker.run(&["kill", &format!("{}-api-1", project.name)]);
    thread::sleep(Duration::from_secs(3));
    let (used, share) = (Used::by(supervisor), share(supervisor));
    assert!(share < 0.5, "{share}, {used:?}");
    assert_eq!(unanswered(&project, "api", EXPOSED, ask_tcp), [], "who is there goes on serving");
    let begin = Instant::now();
    project.run(&["down"]);
    eprintln!(
        "lowered to 160 files: {before:?} before, {used:?}, {:.1} % of a core, down {:.1?}",
        100. * share,
        begin.elapsed()
    );
    nothing_is_left(&project);
}

#[test]
fn listeners_that_there_is_no_room_for_are_told_once_and_counted() {
    let project = Project::new(&format!(
        "services:{}",
        service("api", &format!("expose: [\"{EXPOSED}\"]"), 1, "tcp", EXPOSED)
    ));
    project.run(&["up", "-d", "--wait"]);
    let left =
        || project.replicas("api")[0].traffic.as_ref().map_or(0, |traffic| traffic.unsteered_listeners);
    wait::until("all are looked at", || {
        let ports =
            project.replicas("api")[0].traffic.as_ref().map_or(0, |traffic| traffic.ports.len() as u64);
        check(left() > 0 && left() + ports == u64::from(PORTS), (left(), ports))
    });
    let told = "listeners too many";
    let output = project.try_run(&["ps"]);
    let shown = format!("{}{}", output.stdout, output.stderr);
    assert!(shown.contains(&format!("api-1 has {} {told}", left())), "{shown}");
    // It is looked again and again whether there is room for them.
    thread::sleep(Duration::from_secs(12));
    for text in [project.run(&["events", "--no-follow"]), project.log()] {
        assert_eq!(text.matches(told).count(), 1, "{text}");
    }
    // The kernel gives them their connections.
    assert_eq!(unanswered(&project, "api", EXPOSED, ask_tcp), []);
    project.run(&["down"]);
    nothing_is_left(&project);
}
