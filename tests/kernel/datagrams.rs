//! Flows of datagrams: each one stays with its replica until that is gone, also when it gets nothing new, and is with one
//! that is ready from then on.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use sameport::kernel::sockets::Transport;
use serde_json::json;

use super::{
    agent::Agent,
    network::{V4, V6},
    pod::Pod,
    support::wait::{self, check},
};

const PORT: u16 = 5300;
const UDP: (Transport, u16) = (Transport::Udp, PORT);
const OTHER: (Transport, u16) = (Transport::Udp, PORT + 1);
/// The client's own addresses, and those that it asks.
const FAMILIES: [(&str, &str); 2] = [("10.77.3.1", V4), ("fd77:3::1", V6)];

const ANY: [&str; 2] = ["0.0.0.0", "::"];

/// A flow is a port of the client's.
type Flow = (usize, u16);

fn flows(count: u16) -> Vec<Flow> {
    (0..FAMILIES.len()).flat_map(|family| (0..count).map(move |n| (family, 40_000 + n))).collect()
}

/// Who answers in each flow, as `replica label`: one question each.
fn ask(client: &mut Agent, flows: &[Flow], port: u16) -> BTreeMap<Flow, String> {
    let question = |(family, from): &Flow| {
        let (own, to) = FAMILIES[*family];
        json!({"how": "udp", "to": to, "port": port, "source": [own, from]})
    };
    let questions: Vec<_> = flows.iter().map(question).collect();
    let told = client.call("ask", json!({"questions": questions}));
    let who = |answers: &serde_json::Value| match answers[0][0].as_str() {
        Some(who) => format!("{who} {}", answers[0][1].as_str().unwrap()),
        None => answers[0][2].as_str().unwrap().to_owned(),
    };
    flows.iter().copied().zip(told.as_array().unwrap().iter().map(who)).collect()
}

fn replicas(answers: &BTreeMap<Flow, String>) -> BTreeSet<&str> {
    answers.values().map(String::as_str).collect()
}

/// Those flows that this one answers.
fn of(answers: &BTreeMap<Flow, String>, who: &str) -> Vec<Flow> {
    answers.iter().filter(|(_, found)| *found == who).map(|(flow, _)| *flow).collect()
}

/// A replica whose program serves both ports, those of IPv4 and IPv6 by one socket.
fn serve(pod: &mut Pod, slot: u32, ports: [(Transport, u16); 2]) -> Agent {
    let mut agent = pod.agent(slot);
    for (_, port) in ports {
        let label = port.to_string();
        agent.call("udp", json!({"address": "::", "port": port, "label": label, "reuseport": 1}));
    }
    agent
}

fn two() -> (Pod, Vec<Agent>, Agent) {
    let mut pod = Pod::wired();
    pod.declared = BTreeSet::from([UDP, OTHER]);
    let agents = [1, 2].map(|slot| serve(&mut pod, slot, [UDP, OTHER])).into_iter().collect();
    [UDP, OTHER].into_iter().for_each(|port| pod.listening(2, port));
    let client = pod.outside();
    (pod, agents, client)
}

#[test]
fn flows_stay_with_a_replica_that_drains_and_move_at_once_when_it_is_gone() {
    let (mut pod, mut agents, mut client) = two();
    let old = flows(12);
    let before = ask(&mut client, &old, PORT);
    assert_eq!(replicas(&before), BTreeSet::from(["1 5300", "2 5300"]));
    pod.weighed(2, 0);
    let new: Vec<_> = old.iter().map(|(family, port)| (*family, port + 100)).collect();
    for _ in 0..3 {
        assert_eq!(replicas(&ask(&mut client, &new, PORT)), BTreeSet::from(["1 5300"]));
        assert_eq!(ask(&mut client, &old, PORT), before);
    }
    // The kernel sees by itself that its sockets are gone.
    pod.kill(2);
    drop(agents.pop());
    assert_eq!(replicas(&ask(&mut client, &old, PORT)), BTreeSet::from(["1 5300"]));
}

#[test]
fn a_replica_that_drains_is_seen_to_until_no_datagram_has_come_for_the_time() {
    let (mut pod, _agents, mut client) = two();
    let all = flows(12);
    let theirs = of(&ask(&mut client, &all, PORT), "2 5300");
    pod.weighed(2, 0);
    for (family, _) in FAMILIES.iter().enumerate() {
        let flow = theirs.iter().find(|flow| flow.0 == family).unwrap();
        ask(&mut client, &[*flow], PORT);
        let last = Instant::now();
        let busy = |pod: &Pod| pod.traffic(UDP)[&2].has_flows();
        while last.elapsed() < Duration::from_millis(4500) {
            assert!(busy(&pod), "{:?} after a datagram, {family}", last.elapsed());
            std::thread::sleep(Duration::from_millis(50));
        }
        wait::until("it is idle", || check(!busy(&pod), pod.traffic(UDP)));
        assert!(last.elapsed() < Duration::from_secs(7), "{:?}", last.elapsed());
    }
    assert_eq!(pod.traffic(UDP)[&1].udp_idle, None, "one that gets new flows is not waited for");
}

/// The kernel itself gives datagrams to such a socket, so nobody sees when the last one came.
#[test]
fn a_socket_that_is_connected_to_a_client_is_a_connection_that_a_replica_finishes() {
    let (mut pod, mut agents, mut client) = two();
    let all = flows(12);
    let theirs = of(&ask(&mut client, &all, PORT), "2 5300");
    let flows: Vec<_> =
        (0..FAMILIES.len()).map(|family| *theirs.iter().find(|flow| flow.0 == family).unwrap()).collect();
    for (family, port) in &flows {
        let (to, any) = (FAMILIES[*family].0, ANY[*family]);
        let label = format!("of {port} by {any}");
        let socket = json!({"address": any, "port": PORT, "to": to, "to_port": port, "label": label});
        agents[1].call("udp_connected", socket);
    }
    pod.weighed(2, 0);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(5500) {
        let answers = ask(&mut client, &flows, PORT);
        assert!(answers.values().all(|who| who.starts_with("2 of ")), "{answers:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let traffic = pod.traffic(UDP)[&2];
    assert_eq!((traffic.live, traffic.has_flows()), (2, false), "{traffic:?}");
    assert_eq!(pod.traffic(UDP)[&1].live, 0);
    for (family, port) in flows {
        let label = format!("of {port} by {}", ANY[family]);
        agents[1].call("close", json!({"label": label}));
    }
    wait::until("it has finished", || check(pod.traffic(UDP)[&2].live == 0, pod.traffic(UDP)));
}

#[test]
fn a_flow_of_a_replica_that_is_gone_never_goes_to_one_that_is_not_ready_nor_to_another_port() {
    let (mut pod, mut agents, mut client) = two();
    let all = flows(12);
    let answers = ask(&mut client, &all, PORT);
    let (ours, theirs) = (of(&answers, "1 5300"), of(&answers, "2 5300"));
    pod.remove(2);
    drop(agents.pop());
    pod.listening(1, UDP);
    // It gets the numbers that are free, the other way round.
    pod.usual_weight = 0;
    let mut late = serve(&mut pod, 3, [OTHER, UDP]);
    [UDP, OTHER].into_iter().for_each(|port| pod.listening(2, port));
    assert_eq!(replicas(&ask(&mut client, &theirs, PORT)), BTreeSet::from(["1 5300"]));
    assert_eq!(replicas(&ask(&mut client, &ours, PORT)), BTreeSet::from(["1 5300"]));
    late.call("close", json!({"label": "5301"}));
}
