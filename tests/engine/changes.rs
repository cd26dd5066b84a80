//! Many changes of a service, one after the other, under load of both kinds of clients: no request fails.
//!
//! `SAMEPORT_CHANGES` is how many there are of each kind of change. What is seen is printed past the test's captured
//! output, because the numbers are what this is for.

use std::{
    collections::BTreeSet,
    env,
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use super::support::{
    docker::Docker,
    load::{Load, Report},
    project::Project,
    wait::{self, check},
};

mod usual_way;

/// How many of each kind of change there are, unless somebody says so.
const FEW: u32 = 2;
/// Clients that keep a connection.
const KEPT: u32 = 8;

/// A server, and what it is asked to bear.
struct Server {
    /// The variable that stands for its image.
    image: &'static str,
    /// What it is told besides its name.
    environment: &'static str,
    /// The signal on which it finishes what it has.
    stop_signal: &'static str,
    /// Requests a second by each of the two kinds of clients.
    rate: u32,
    /// How many replicas there are at first.
    first: u32,
    /// And how many then, over and over.
    then: [u32; 4],
}

const NGINX: Server = Server {
    image: "NGINX",
    environment: r#"LISTEN: """#,
    stop_signal: "SIGQUIT",
    rate: 300,
    first: 3,
    then: [5, 2, 4, 3],
};

const GO: Server = Server { image: "GO", environment: "", stop_signal: "SIGTERM", ..NGINX };

/// It takes a second of processor time to start.
const HTTPBIN: Server = Server {
    image: "HTTPBIN",
    environment: r#"SHARE: "no", KEEPALIVE: "75""#,
    stop_signal: "SIGTERM",
    rate: 100,
    first: 2,
    then: [1, 2, 3, 2],
};

/// How a service behind a port is changed.
trait Way {
    /// Where its clients go.
    fn address(&self) -> SocketAddr;
    /// Brings it to another version.
    fn rollout(&mut self, number: u32);
    /// Runs so many replicas from now on.
    fn scale(&mut self, replicas: u32);
    /// Gives each replica a new process.
    fn restart(&mut self);
}

/// What clients saw, each kind for itself.
struct Seen {
    fresh: Report,
    kept: Report,
    changes: Vec<(Duration, String)>,
    took: Duration,
}

impl Seen {
    /// A report of both kinds of clients.
    fn all(&self) -> Report {
        let mut all = self.fresh.clone();
        all.merge(self.kept.clone());
        all
    }

    fn requests(&self) -> usize {
        let all = self.all();
        all.answered() as usize + all.failures.len()
    }

    /// Which change a moment belongs to.
    fn change_at(&self, at: Duration) -> &str {
        self.changes.iter().rev().find(|(begin, _)| *begin <= at).map_or("none yet", |(_, change)| change)
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        for (kind, report) in [("a connection per request", &self.fresh), ("kept connections", &self.kept)] {
            let (answered, failed, closed) = (report.answered(), report.failures.len(), report.closed);
            let _ = writeln!(text, "  {kind}: {answered} answered, {failed} failed, {closed} closed");
            for (at, failure) in report.failures.iter().take(20) {
                let _ = writeln!(text, "    after {at:.2?}, during {}: {failure:?}", self.change_at(*at));
            }
        }
        text
    }
}

/// Changes a service in each way so many times, under load.
fn change(way: &mut impl Way, server: &Server, times: u32) -> Seen {
    let begin = Instant::now();
    let fresh = Load::start(way.address(), server.rate);
    let kept = Load::kept(way.address(), "/get", KEPT, server.rate);
    let mut changes = Vec::new();
    for (number, replicas) in (1..=times).zip(server.then.into_iter().cycle()) {
        changes.push((begin.elapsed(), format!("rollout {number}")));
        way.rollout(number);
        changes.push((begin.elapsed(), format!("scale to {replicas}")));
        way.scale(replicas);
        changes.push((begin.elapsed(), format!("restart {number}")));
        way.restart();
    }
    let (fresh, kept) = (fresh.finish(), kept.finish());
    Seen { fresh, kept, changes, took: begin.elapsed() }
}

/// A project of sameport's.
struct Ours {
    project: Project,
    server: &'static Server,
    other: Tag,
}

/// Another name of an image, for as long as this lives.
struct Tag(String);

impl Drop for Tag {
    fn drop(&mut self) {
        if let Err(error) = Docker::default().try_run(&["rmi", &self.0]) {
            eprintln!("the name {} stays: {error}", self.0);
        }
    }
}

impl Ours {
    fn start(server: &'static Server) -> Self {
        let project = Project::new(&file(server, 0));
        let other = Tag(format!("localhost/{}:other", project.name));
        project.docker.run(&["tag", &project.image(server.image), &other.0]);
        project.run(&["up", "-d", "--wait"]);
        Self { project, server, other }
    }

    /// The versions of its replicas.
    fn generations(&self) -> BTreeSet<Option<String>> {
        self.project.replicas("app").into_iter().map(|replica| replica.generation).collect()
    }
}

/// Replicas of that version.
fn file(server: &Server, version: u32) -> String {
    let Server { image, environment, stop_signal, first, .. } = server;
    format!(
        r#"
services:
  app:
    image: ${{{image}}}
    environment: {{ REPLICA: "{version}.{{{{.Slot}}}}", {environment} }}
    ports: ["${{PORT}}:8080"]
    stop_signal: {stop_signal}
    deploy: {{ replicas: {first}, update_config: {{ monitor: 0s }} }}
    x-sameport:
      drain: 300ms
      probe: {{ http: /get, port: 8080, interval: 200ms }}
"#
    )
}

impl Way for Ours {
    fn address(&self) -> SocketAddr {
        self.project.outside()
    }

    fn rollout(&mut self, number: u32) {
        let before = self.generations();
        // The file's next version, and the same image by another name in turns.
        if number % 2 == 1 {
            self.project.write(&file(self.server, number));
            self.project.run(&["up", "-d", "--wait"]);
        } else {
            self.project.run(&["rollout", "app", "--image", &self.other.0]);
        }
        let after = self.generations();
        assert!(after.len() == 1 && after.is_disjoint(&before), "{before:?}, {after:?}");
    }

    fn scale(&mut self, replicas: u32) {
        self.project.run(&["scale", &format!("app={replicas}")]);
        assert_eq!(self.project.replicas("app").len(), replicas as usize);
    }

    fn restart(&mut self) {
        let started = || self.project.replicas("app").iter().map(|r| r.started_at).collect::<Vec<_>>();
        let before = started();
        self.project.run(&["restart", "app"]);
        assert!(started().iter().zip(&before).all(|(after, before)| after > before), "{before:?}");
    }
}

/// How many of each kind of change there are.
fn times() -> u32 {
    env::var("SAMEPORT_CHANGES").map_or(FEW, |text| text.parse().expect("SAMEPORT_CHANGES is a number"))
}

/// Says it where it is also seen of a test that passes.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn nobody_notices(server: &'static Server) {
    let mut ours = Ours::start(server);
    let seen = change(&mut ours, server, times());
    let (requests, text) = (seen.requests(), seen.describe());
    let summary = format!("{}: {requests} requests in {:.0?}\n{text}", server.image, seen.took);
    say(&summary);
    assert!(seen.all().failures.is_empty(), "{summary}");
    assert!(seen.fresh.answered() > 500 && seen.kept.answered() > 500, "{summary}");
}

#[test]
fn nobody_notices_changes_of_nginx() {
    nobody_notices(&NGINX);
}

#[test]
fn nobody_notices_changes_of_go() {
    nobody_notices(&GO);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn nobody_notices_changes_of_gunicorn() {
    nobody_notices(&HTTPBIN);
}

#[test]
fn a_request_that_is_being_sent_when_its_replica_is_told_to_end_is_answered() {
    let ours = Ours::start(&HTTPBIN);
    ours.project.run(&["scale", "app=1"]);
    let mut client = TcpStream::connect(ours.address()).unwrap();
    client.write_all(b"POST /post HTTP/1.1\r\nHost: test\r\nContent-Length: 13\r\n\r\nhalf").unwrap();
    let _restart = ours.project.start(&["restart", "app"]);
    wait::until("its replica is told to end", || {
        let log = ours.project.run(&["logs", "app"]);
        check(log.contains("Handling signal: term"), log)
    });
    client.write_all(b" and half").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("half and half"), "{answer}");
}
