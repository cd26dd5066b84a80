//! Replicas of a DNS server share a UDP port, and each flow, which is a socket of a client, stays with its replica.
//!
//! Flows go to the pod itself: the published port leads through Docker's proxy, which has sockets of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use super::support::{
    project::Project,
    wait::{self, check},
};

/// Three replicas of dnsmasq.
const DNS: &str = r#"
services:
  dns:
    image: ${DNSMASQ}
    environment: { REPLICA: "{{.Slot}}" }
    ports: ["${PORT}:5353/udp"]
    deploy: { replicas: 3 }
"#;

/// A client.
struct Flow {
    socket: UdpSocket,
    /// Who answered the first question.
    replica: String,
}

impl Flow {
    /// A client that has asked once.
    fn new(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut flow = Self { socket, replica: String::new() };
        flow.replica = flow.ask().expect("an answer");
        flow
    }

    /// So many of them.
    fn some(server: SocketAddr, count: usize) -> Vec<Self> {
        (0..count).map(|_| Self::new(server)).collect()
    }

    /// Asks for the text of `who.test`, which names the replica; none if there is no answer in time.
    fn ask(&self) -> Option<String> {
        let id = fastrand::u16(..).to_be_bytes();
        let header = [0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
        let query = [&id[..], &header, b"\x03who\x04test\0", &[0, 16, 0, 1]].concat();
        self.socket.send(&query).ok()?;
        let mut answer = [0; 512];
        loop {
            let length = self.socket.recv(&mut answer).ok()?;
            let answer = &answer[..length];
            // One to an earlier question may have come late.
            if answer.starts_with(&id) {
                // Name, type, class, time to live and length, which are 12 bytes, stand before the text and its length.
                let text = &answer[query.len() + 12..];
                return Some(String::from_utf8(text[1..=text[0].into()].to_vec()).unwrap());
            }
        }
    }
}

/// All flows ask once; those of other replicas than `except` have to be answered by the one that they are with.
fn stay(flows: &[Flow], except: &str) {
    for (number, flow) in flows.iter().enumerate().filter(|(_, flow)| flow.replica != except) {
        assert_eq!(flow.ask().as_ref(), Some(&flow.replica), "flow {number}");
    }
}

fn replicas_of(flows: &[Flow]) -> BTreeMap<&str, usize> {
    let mut replicas = BTreeMap::new();
    flows.iter().for_each(|flow| *replicas.entry(flow.replica.as_str()).or_default() += 1);
    replicas
}

fn are_up(project: &Project, count: usize) -> Result<(), String> {
    let replicas = project.replicas("dns");
    check(replicas.len() == count && replicas.iter().all(|replica| replica.state.is_up()), replicas)
}

#[test]
fn flows_are_spread_and_each_one_stays_with_its_replica() {
    let project = Project::new(DNS);
    project.run(&["up", "-d", "--wait"]);
    let flows = Flow::some(project.in_pod("dns", 5353), 60);
    let replicas = replicas_of(&flows);
    assert_eq!(replicas.keys().collect::<Vec<_>>(), [&"1", &"2", &"3"]);
    assert!(replicas.values().all(|flows| *flows >= 10), "{replicas:?}");
    (0..20).for_each(|_| stay(&flows, ""));
}

#[test]
fn flows_stay_when_a_replica_is_added_and_when_another_one_is_killed() {
    let project = Project::new(DNS);
    project.run(&["up", "-d", "--wait"]);
    let server = project.in_pod("dns", 5353);
    let flows = Flow::some(server, 60);

    let _scale = project.start(&["scale", "dns=4"]);
    wait::until("there are four", || {
        stay(&flows, "");
        are_up(&project, 4)
    });
    stay(&flows, "");
    assert!(replicas_of(&Flow::some(server, 60)).contains_key("4"));

    let before = project.docker.pid(&format!("{}-dns-2", project.name));
    project.run(&["kill", "dns-2"]);
    wait::until("the killed one is replaced", || {
        stay(&flows, "2");
        are_up(&project, 4)
    });
    assert_ne!(project.docker.pid(&format!("{}-dns-2", project.name)), before);
    for _ in 0..20 {
        stay(&flows, "2");
    }
    // Those of the killed one are with somebody who lives, and stay there.
    for (number, flow) in flows.iter().enumerate().filter(|(_, flow)| flow.replica == "2") {
        let answers: BTreeSet<_> = (0..20).map(|_| flow.ask().expect("an answer")).collect();
        assert_eq!(answers.len(), 1, "flow {number}: {answers:?}");
    }
}

#[test]
fn a_replica_that_drains_answers_its_flows_and_gets_no_new_ones() {
    let project = Project::new(DNS);
    project.run(&["up", "-d", "--wait"]);
    let server = project.in_pod("dns", 5353);
    let old = Flow::some(server, 60);
    project.run(&["drain", "dns.2"]);
    let new = Flow::some(server, 60);
    assert_eq!(replicas_of(&new).keys().collect::<Vec<_>>(), [&"1", &"3"]);
    for _ in 0..20 {
        stay(&old, "");
        stay(&new, "");
    }
    assert!(replicas_of(&old).contains_key("2"));
}
