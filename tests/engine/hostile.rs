//! One replica of three does what it can to keep the supervisor busy, and others from being served again.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::support::{
    load,
    project::Project,
    wait::{self, check},
};

/// Three replicas and one of another service in one pod, and a service in a pod of its own.
const COMPOSE: &str = r#"
services:
  web:
    image: ${PYTHON}
    command: ["python3", "-c", "exec(open('/server.py').read().replace('server = T', 'ThreadingHTTPServer.allow_reuse_port = True; server = T'))"]
    environment: { REPLICA: "{{.Slot}}" }
    ports: ["${PORT}:8080"]
    deploy: { replicas: 3 }
    x-sameport: { pod: web }
  side:
    image: ${PYTHON}
    command: ["python3", "-c", "exec(open('/server.py').read().replace('8080', '9090'))"]
    environment: { REPLICA: side }
    expose: [9090]
    x-sameport: { pod: web }
  api:
    image: ${PYTHON}
    environment: { REPLICA: api }
"#;

/// What the processor time of the supervisor may be, in percent of a core.
const SHARE: f64 = 5.0;
const SIBLING: Duration = Duration::from_secs(2);
const OTHER: Duration = Duration::from_millis(1500);
/// What is measured may be twice as bad on another machine.
const TOLERANCE: u32 = 2;

/// Of 2,000 listeners so many are opened at least: some ports are in use.
const MANY: u64 = 1900;

/// The program of the kernel tests, in the container of a replica.
const AGENT: &str = include_str!("../kernel/agent.py");

struct Agent {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Agent {
    fn start(project: &Project, container: &str) -> Self {
        let mut command = Command::new("docker");
        project.docker.choose(&mut command);
        command.args(["exec", "-i", "-u", "0", container, "python3", "-c", AGENT]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut agent = Self { child, to, from };
        agent.hear();
        agent
    }

    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        assert!(told.get("ok").is_some(), "{told}");
        told["ok"].clone()
    }

    fn call(&mut self, function: &str, arguments: &Value) -> Value {
        writeln!(self.to, "{}", json!([function, arguments])).unwrap();
        self.hear()
    }

    /// It ends with its input.
    fn end(self) {
        let Self { mut child, to, from } = self;
        drop((to, from));
        child.wait().unwrap();
    }
}

/// Processor time that a task has used, in seconds.
fn cpu(stat: &str) -> f64 {
    let text = fs::read_to_string(stat).unwrap_or_default();
    let Some((_, rest)) = text.rsplit_once(')') else { return 0.0 };
    let fields: Vec<_> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}

/// Processor time of the supervisor, and of its threads that steer.
fn used(pid: Pid) -> (f64, f64) {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let name = |task: &fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    let steering = tasks.filter(|task| name(task).starts_with("steering"));
    let steering = steering.map(|task| cpu(task.path().join("stat").to_str().unwrap())).sum();
    (cpu(&format!("/proc/{pid}/stat")), steering)
}

/// Kills a container, and says how long it takes until its next process answers.
fn kill_and_wait(project: &Project, container: &str, at: SocketAddr, who: &str) -> Duration {
    let victim = project.docker.pid(&format!("{}-{container}", project.name));
    let begin = Instant::now();
    kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
    // What the hostile one gets it may never answer, so nobody waits for that.
    let (sender, answers) = mpsc::channel();
    while !answers.try_iter().any(|answer: Option<String>| answer.as_deref() == Some(who)) {
        assert!(begin.elapsed() < Duration::from_secs(60), "{container} is not back");
        let sender = sender.clone();
        thread::spawn(move || sender.send(load::request(at).ok()));
        thread::sleep(Duration::from_millis(20));
    }
    let took = begin.elapsed();
    // What ends soon after its start is started later the next time.
    thread::sleep(Duration::from_secs(1));
    took
}

/// What one attack does: shares of a core, and how long each takes to be back.
struct Figures {
    share: f64,
    steering: f64,
    sibling: Duration,
    same_pod: Duration,
    other_pod: Duration,
}

fn suffer(project: &Project, attack: &[(&str, Value)]) -> Figures {
    let mut agent = Agent::start(project, &format!("{}-web-3", project.name));
    for (function, arguments) in attack {
        let done = agent.call(function, arguments);
        assert!(done.as_u64().is_none_or(|count| count >= MANY), "{function}: {done}");
    }
    thread::sleep(Duration::from_secs(3));
    let pid = project.supervisor().unwrap();
    let (before, begin) = (used(pid), Instant::now());
    thread::sleep(Duration::from_secs(6));
    let (after, took) = (used(pid), begin.elapsed().as_secs_f64());
    let (web, side, api) =
        (project.in_pod("web", 8080), project.in_pod("web", 9090), project.in_pod("api", 8080));
    let figures = Figures {
        share: 100.0 * (after.0 - before.0) / took,
        steering: 100.0 * (after.1 - before.1) / took,
        sibling: kill_and_wait(project, "web-1", web, "1"),
        same_pod: kill_and_wait(project, "side-1", side, "side"),
        other_pod: kill_and_wait(project, "api-1", api, "api"),
    };
    agent.end();
    figures
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn whatever_a_replica_does_others_are_back_soon() {
    let project = Project::new(COMPOSE);
    project.run(&["up", "-d", "--wait"]);
    project.serves(3);
    let hoard = |kind: &str, ports: Vec<u16>, reuseport: u8| {
        ("hoard", json!({"kind": kind, "address": "0.0.0.0", "ports": ports, "reuseport": reuseport}))
    };
    let churn = |kind: &str, port: u16| {
        ("churn", json!({"kind": kind, "address": "0.0.0.0", "port": port, "reuseport": 1}))
    };
    let crowd = |processes: u32, descriptors: u32| {
        ("crowd", json!({"processes": processes, "descriptors": descriptors}))
    };
    let cases: [(&str, Vec<(&str, Value)>); 7] = [
        ("nothing", vec![]),
        ("2,000 listeners on other ports", vec![hoard("tcp", (20_000..22_000).collect(), 0)]),
        ("2,000 listeners on the shared port", vec![hoard("tcp", vec![8080; 2000], 1)]),
        ("bind, listen, close in a loop", vec![churn("tcp", 23_000)]),
        ("the same on the shared port", vec![churn("tcp", 8080)]),
        ("the same with UDP", vec![churn("udp", 23_000)]),
        (
            "the same with 600 processes and 20,000 descriptors",
            vec![crowd(600, 20_000), churn("tcp", 23_000)],
        ),
    ];
    let mut bad = Vec::new();
    for (case, attack) in cases {
        let figures = suffer(&project, &attack);
        let Figures { share, steering, sibling, same_pod, other_pod } = &figures;
        let line = format!(
            "{case}: {share:.1} % of a core, {steering:.1} % of it steering; back after: sibling {sibling:.1?}, \
             another service in the pod {same_pod:.1?}, in another pod {other_pod:.1?}"
        );
        println!("{line}");
        let is_late = *sibling > SIBLING * TOLERANCE || (*same_pod).max(*other_pod) > OTHER * TOLERANCE;
        if *share > SHARE * f64::from(TOLERANCE) || is_late {
            bad.push(line);
        }
        wait::until("all serve", || {
            let report = load::send(project.in_pod("web", 8080), 60);
            check(report.answers.len() == 3 && report.failures.is_empty(), report.to_string())
        });
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

/// A terminal's title, its clipboard, a colour, a line that is written over, C1, and text that runs backwards.
const ESCAPES: &str = r"\033]0;owned\007 \033]52;c;b3duZWQ=\007 \033[31mred\033[0m over\rwritten \302\23331m \342\200\256sdrawkcab";

#[test]
fn what_a_container_writes_does_not_command_the_terminal() {
    let project = Project::new(&format!(
        r#"
services:
  web:
    image: ${{PYTHON}}
    entrypoint: [sh, -c, 'printf "{ESCAPES}\n"; exit 1']
    restart: "no"
"#
    ));
    let colored = |args: &[&str]| {
        let done = project.try_run(&[&["--color", "always"], args].concat());
        format!("{}{}", done.stdout, done.stderr)
    };
    let up = colored(&["up", "-d", "--wait"]);
    let shown = "␛]0;owned␇ ␛]52;c;b3duZWQ=␇ ␛[31mred␛[0m over␍written <U+009B>31m <U+202E>sdrawkcab";
    for (command, said) in [("up", up), ("events", colored(&["events", "--no-follow"]))] {
        assert!(said.contains(shown), "{command}: {said:?}");
        assert!(is_harmless(&said), "{command}: {said:?}");
    }
    for command in [&["ps"][..], &["status"], &["ls"], &["logs"]] {
        let said = colored(command);
        assert!(is_harmless(&said), "{command:?}: {said:?}");
    }
    let logs = colored(&["logs"]);
    assert!(logs.contains("␛]0;owned␇ ␛]52;c;b3duZWQ=␇ \u{1b}[31mred\u{1b}[0m over␍written"), "{logs:?}");
    let own = "\u{1b}]0;owned\u{7} \u{1b}]52;c;b3duZWQ=\u{7} \u{1b}[31mred\u{1b}[0m over\rwritten \u{9b}31m \u{202e}sdrawkcab\n";
    assert_eq!(project.try_run(&["logs", "--no-log-prefix"]).stdout, own);
    assert_eq!(project.try_run(&["logs", "--raw"]).stdout, format!("web-1 | {own}"));
}

/// Whether nothing is in it that commands a terminal, but for colours.
fn is_harmless(text: &str) -> bool {
    sameport::control_chars::with_colors(text) == text
}
