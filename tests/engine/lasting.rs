//! Connections that last, of servers and clients that many use: WebSocket, gRPC, HTTP/2, uploads and event streams go through
//! rollouts with a clean close at most.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use sameport::api::schema::Replica;
use serde::Deserialize;

use super::support::{
    load::{Load, Report},
    project::Project,
    wait::{self, check},
};

/// Each with the kind of its clients, and the service that they speak to.
const KINDS: [(&str, &str); 5] =
    [("websocket", "chat"), ("grpc", "calls"), ("http2", "pages"), ("upload", "files"), ("events", "files")];
const CLIENTS: u32 = 3;

fn file(version: u32) -> String {
    let service = |name: &str, image: &str, command: &str, drain: &str| {
        format!(
            r#"
  {name}:
    image: ${{{image}}}
    {command}
    environment: {{ V: "{version}" }}
    expose: [8080]
    deploy: {{ replicas: 2, update_config: {{ parallelism: 2, monitor: 1s }} }}
    x-sameport: {{ drain: {drain} }}
"#
        )
    };
    // With the signal of its official image.
    let nginx = r#"stop_signal: SIGQUIT
    command:
      - sh
      - -c
      - |
        echo "daemon off; user root; pid /tmp/pid; events {} http { access_log off; server { listen 8080 http2;
        location / { return 200 \"$$V\"; } } }" >/tmp/http2.conf
        exec nginx -c /tmp/http2.conf -e stderr"#;
    let hypercorn = r#"command: [python3, -m, hypercorn, --bind, "0.0.0.0:8080", --graceful-timeout, "8", "app:application"]"#;
    [
        "services:".to_owned(),
        service("chat", "LASTING", "command: [python3, /server.py, websocket]", "2s"),
        service("calls", "LASTING", "command: [python3, /server.py, grpc]", "8s"),
        service("pages", "NGINX", nginx, "2s"),
        // An upload takes four seconds.
        service("files", "LASTING", hypercorn, "8s"),
    ]
    .concat()
}

/// What clients saw.
#[derive(Debug, Deserialize)]
struct Seen {
    /// By version.
    answers: BTreeMap<String, u64>,
    /// How often a server closed a connection in good order, where that can be seen.
    closed: u64,
    errors: Vec<String>,
}

/// Clients of one kind, in a container of their own beside the project.
struct Clients<'a> {
    project: &'a Project,
    name: String,
    child: Child,
    told: BufReader<ChildStdout>,
}

impl<'a> Clients<'a> {
    fn start(project: &'a Project, kind: &str, service: &str) -> Self {
        let name = format!("{}-{kind}-client", project.name);
        let mut child = Command::new("docker")
            .args(["run", "--rm", "-i", "--name", &name, "--network", &format!("{}_default", project.name)])
            .args([&project.image("LASTING"), "python3", "/client.py", kind])
            .args([format!("{service}:8080"), CLIENTS.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let told = BufReader::new(child.stdout.take().unwrap());
        Self { project, name, child, told }
    }

    /// Returns once they are answered.
    fn begun(&mut self) {
        let mut line = String::new();
        self.told.read_line(&mut line).unwrap();
        assert_eq!(line, "begun\n", "{}", self.name);
    }

    fn finish(mut self) -> Seen {
        drop(self.child.stdin.take());
        let mut told = String::new();
        self.told.read_to_string(&mut told).unwrap();
        serde_json::from_str(&told).unwrap_or_else(|error| panic!("{}: {error}: {told:?}", self.name))
    }
}

impl Drop for Clients<'_> {
    fn drop(&mut self) {
        let _ = self.project.docker.try_run(&["rm", "-f", &self.name]);
        let _ = self.child.wait();
    }
}

/// Starts the project and its clients, once all servers listen: before that, a port that is only exposed refuses.
fn begin<'a>(project: &'a Project) -> [(&'static str, Clients<'a>); 5] {
    project.run(&["up", "-d", "--wait"]);
    wait::until("all servers listen", || {
        let status = project.status();
        let listens = |replica: &Replica| {
            replica.traffic.as_ref().is_some_and(|traffic| traffic.ports.iter().any(|port| port.listening))
        };
        check(status.replicas.iter().all(listens), &status.replicas)
    });
    let mut clients = KINDS.map(|(kind, service)| (kind, Clients::start(project, kind, service)));
    clients.iter_mut().for_each(|(_, clients)| clients.begun());
    clients
}

#[test]
#[ignore = "takes a minute: `.ci/full engine`"]
fn connections_that_last_end_with_a_clean_close_at_most() {
    let project = Project::new(&file(1));
    let clients = begin(&project);
    let begin = Instant::now();
    for version in 2..=3 {
        project.write(&file(version));
        project.run(&["up", "-d", "--wait"]);
    }
    eprintln!("two rollouts took {:.1?}", begin.elapsed());
    // The last uploads to the last version.
    thread::sleep(Duration::from_secs(6));
    for (kind, clients) in clients {
        let Seen { answers, closed, errors } = clients.finish();
        eprintln!("{kind}: {answers:?}, closed {closed} times, {errors:#?}");
        assert!(errors.is_empty(), "{kind}: {errors:#?}\n{}", project.log());
        assert_eq!(answers.keys().collect::<Vec<_>>(), ["1", "2", "3"], "{kind}: {answers:?}");
        if kind == "websocket" {
            assert_eq!(closed, 2 * u64::from(CLIENTS));
        }
    }
}

/// All kinds at once, with requests on connections of their own and on kept ones besides.
#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn a_million_requests_of_all_kinds_go_through_rollouts() {
    const REQUESTS: u64 = 1_000_000;
    let file = |version| {
        let plain = format!(
            r#"
  plain:
    image: ${{NGINX}}
    environment: {{ REPLICA: "{version}" }}
    ports: ["${{PORT}}:8080"]
    deploy: {{ replicas: 2, update_config: {{ parallelism: 2, monitor: 1s }} }}
    x-sameport: {{ drain: 3s }}
"#
        );
        file(version) + &plain
    };
    let project = Project::new(&file(1));
    let clients = begin(&project);
    let address = project.outside();
    let loads = [("plain", Load::start(address, 200)), ("kept", Load::kept(address, "/", 8, 10_000))];
    let mut reports = loads.each_ref().map(|_| Report::default());
    let (begin, mut version) = (Instant::now(), 1);
    while reports.iter().map(|report| u64::from(report.answered())).sum::<u64>() < REQUESTS {
        version += 1;
        project.write(&file(version));
        project.run(&["up", "-d", "--wait"]);
        for (report, (_, load)) in reports.iter_mut().zip(&loads) {
            report.merge(load.take());
        }
    }
    eprintln!("{} rollouts in {:.0?}", version - 1, begin.elapsed());
    for (report, (kind, load)) in reports.iter_mut().zip(loads) {
        report.merge(load.finish());
        eprintln!(
            "{kind}: {} answered, {} failed, {} closed",
            report.answered(),
            report.failures.len(),
            report.closed
        );
    }
    for (kind, clients) in clients {
        let Seen { answers, closed, errors } = clients.finish();
        eprintln!(
            "{kind}: {} answered, {} failed, {closed} closed",
            answers.values().sum::<u64>(),
            errors.len()
        );
        assert!(errors.is_empty(), "{kind}: {errors:#?}");
    }
    for report in reports {
        assert!(report.failures.is_empty(), "{report}");
    }
}
