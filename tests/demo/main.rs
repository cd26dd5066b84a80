//! The commands of the demo, as a user runs them. `.ci/run` and the engine tests run the demo as a whole.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has to stop")]

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sameport::demo::{client::Load, server};

fn sameport() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sameport"))
}

/// A demo server in a process of its own, killed when the test ends.
struct Server(Child);

impl Server {
    fn start(replica: &str, port: u16) -> Self {
        let child = sameport()
            .args(["demo-server", "--port", &port.to_string()])
            .env("SAMEPORT_REPLICA", replica)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, as some tests want.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn two_servers_share_a_port_and_the_one_that_stays_answers_everything() {
    let port = free_port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let (mut first, second) = (Server::start("1", port), Server::start("2", port));
    eventually("a listener", || TcpStream::connect(address).is_ok());
    let mut both = Vec::new();
    while both != ["1", "2"] {
        let request_stats = Load { requests: Some(40), ..Load::new(address) }.start().finish().await;
        both = request_stats.answered.into_keys().collect();
    }
    kill(first.pid(), Signal::SIGTERM).unwrap();
    assert!(first.0.wait().unwrap().success());

    let request_stats = Load { requests: Some(40), ..Load::new(address) }.start().finish().await;
    assert_eq!(request_stats.answered.keys().collect::<Vec<_>>(), ["2"], "{:?}", request_stats.examples);
    assert_eq!(request_stats.failures(), 0, "{:?}", request_stats.examples);
    drop(second);
}

#[test]
fn a_server_whose_port_somebody_has_alone_says_so() {
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = sameport().args(["demo-server", "--port", &port.to_string()]).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("Address already in use"), "{message}");
}

#[test]
fn without_an_engine_the_demo_says_so_and_exits_with_3() {
    let output = sameport().arg("demo").env("DOCKER_HOST", "tcp://127.0.0.1:1").output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{message}");
    assert!(message.contains("127.0.0.1:1"), "{message}");
}

#[test]
fn one_replica_is_too_few_to_kill_one() {
    let output = sameport().args(["demo", "--replicas", "1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn headers_of_the_server_are_those_that_the_client_looks_for() {
    assert_eq!(Load::new(SocketAddr::from(([127, 0, 0, 1], 1))).identity, {
        sameport::demo::client::Identity::Header(server::REPLICA.to_owned())
    });
}
