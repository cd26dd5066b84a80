//! What one replica or service opens takes nothing from the others of its pod.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use sameport::kernel::{
    sockets::Transport,
    steering::{Port, ReplicaReport},
};
use serde_json::json;

use super::{
    agent::Agent,
    pod::{Pod, SIDECAR, id},
    server::{PORT, http},
    support::wait::{self, check},
};

/// Of the other service: declared, and two that nobody has declared.
const OTHER: [Port; 3] = [(Transport::Tcp, 8081), (Transport::Tcp, 9090), (Transport::Udp, 9091)];
/// What is opened shows that soon, whatever else is open. On a busy machine; without hurry it takes some milliseconds.
fn soon() -> Duration {
    Duration::from_secs(if wait::is_emulated() { 60 } else { 10 })
}

fn seen(pod: &Pod, slot: u32) -> ReplicaReport {
    pod.report().replicas.get(&id(slot)).cloned().unwrap_or_default()
}

/// How many undeclared listeners of a replica are not steered.
fn unsteered(pod: &Pod, slot: u32) -> u64 {
    pod.report().unsteered.get(&id(slot)).copied().unwrap_or(0)
}

fn serve_other(agent: &mut Agent) {
    for (transport, port) in OTHER {
        let (how, label) = if transport == Transport::Tcp { ("listen", "tcp") } else { ("udp", "udp") };
        agent.call(how, json!({"address": "0.0.0.0", "port": port, "label": format!("{label}:{port}")}));
    }
}

/// Waits until replicas are seen on all ports of the other service, and nothing that they have is left alone.
fn other_is_steered(pod: &Pod, slots: [u32; 2]) {
    let begin = Instant::now();
    wait::until("the other service is steered", || {
        let all = |slot: &u32| OTHER.iter().all(|port| seen(pod, *slot).listens_on(port));
        check(slots.iter().all(all), pod.report())
    });
    assert!(begin.elapsed() < soon(), "{:?}", begin.elapsed());
    assert_eq!(slots.map(|slot| unsteered(pod, slot)), [0, 0]);
}

/// Who answers 20 connections, each from a socket of its own.
fn who(client: &mut Agent, (transport, port): Port) -> BTreeSet<String> {
    let how = if transport == Transport::Tcp { "tcp" } else { "udp" };
    let question = json!([{"how": how, "to": super::network::V4, "port": port}]);
    let told = client.call("ask", json!({"questions": question, "times": 20}));
    told[0]
        .as_array()
        .unwrap()
        .iter()
        .map(|seen| seen[0].as_str().map_or_else(|| seen[2].to_string(), str::to_owned))
        .collect()
}

#[test]
fn a_service_that_opens_hundreds_of_ports_leaves_room_for_another_one() {
    let mut pod = Pod::wired();
    pod.declared.extend([PORT, OTHER[0]]);
    let mut web: Vec<_> = (1..=3).map(|slot| pod.agent(slot)).collect();
    pod.settled();
    // More than there is room for, on an emulated machine too, which looks at few at a time.
    let count = if wait::is_emulated() { 50 } else { 100 };
    for (agent, first) in web.iter_mut().zip([30_000, 31_000, 32_000]) {
        for (kind, label) in [("udp", "u"), ("tcp", "t")] {
            let many =
                json!({"kind": kind, "address": "0.0.0.0", "first": first, "count": count, "label": label});
            agent.call("many", many);
        }
    }
    wait::until("all of them were looked at", || {
        let report = pod.report();
        let looked_at = |slot| unsteered(&pod, slot) + seen(&pod, slot).ports.len() as u64;
        check((1..=3).all(|slot| looked_at(slot) == 2 * count), report)
    });
    // Its service comes later, and has as much room as if it had been the first.
    let (first, second) = (SIDECAR + 1, SIDECAR + 2);
    let mut others: Vec<_> = [first, second].into_iter().map(|slot| pod.agent(slot)).collect();
    pod.settled();
    others.iter_mut().for_each(serve_other);
    other_is_steered(&pod, [first, second]);
    pod.weighed(first, 0);
    let mut client = pod.outside();
    for port in OTHER {
        assert_eq!(who(&mut client, port), BTreeSet::from([second.to_string()]), "{port:?}");
    }
}

#[test]
fn a_replica_with_thousands_of_listeners_does_not_hold_up_its_siblings() {
    // What looks at a replica's listeners takes 1 % of a processor, and an emulated one is slow.
    let many: u64 = if wait::is_emulated() { 400 } else { 2000 };
    let mut pod = Pod::new();
    pod.declared.insert(PORT);
    let mut hostile = pod.agent(1);
    pod.start(2, &mut http());
    pod.listening(1, PORT);
    hostile.call(
        "many",
        json!({"kind": "tcp", "address": "0.0.0.0", "first": 20_000, "count": many, "label": "t"}),
    );
    sibling_is_back_soon(&mut pod);
    wait::within(6 * wait::LONG, "all of them were looked at", || {
        let steered = seen(&pod, 1).ports.len() as u64;
        check(unsteered(&pod, 1) + steered == many && (1..=64).contains(&steered), pod.report())
    });
    for _ in 0..2 {
        sibling_is_back_soon(&mut pod);
    }
    assert_eq!(pod.report().error, None);
}

/// Ends the replica in slot 2: the next one there is seen soon.
fn sibling_is_back_soon(pod: &mut Pod) {
    pod.kill(2);
    pod.start(2, &mut http());
    let begin = Instant::now();
    wait::until("its sibling is back", || {
        let is_back = seen(pod, 2).pid == pod.pid(2) && seen(pod, 2).listens_on(&PORT);
        check(is_back, pod.report())
    });
    assert!(begin.elapsed() < soon(), "{:?}", begin.elapsed());
}

#[test]
fn more_listeners_on_a_shared_port_than_there_is_room_for_are_left_alone_and_told() {
    const MANY: u64 = 300;
    let mut pod = Pod::new();
    pod.declared.insert(PORT);
    let mut hostile = pod.agent(1);
    pod.start(2, &mut http());
    pod.listening(1, PORT);
    let many = json!({"kind": "tcp", "address": "0.0.0.0", "first": PORT.1, "count": MANY, "label": "t",
        "reuseport": 1, "again": true});
    hostile.call("many", many);
    wait::until("those that there is no room for are told", || {
        // 126 of a replica on a port.
        check(unsteered(&pod, 1) == MANY - 126, pod.report())
    });
    let report = pod.report();
    assert_eq!(report.error, None);
    assert_eq!(unsteered(&pod, 2), 0);
}

#[test]
fn who_was_left_alone_is_steered_once_there_is_room() {
    let mut pod = Pod::new();
    let mut agent = pod.agent(1);
    pod.settled();
    let many = |first: u16, count: u32, label: &str| json!({"kind": "tcp", "address": "0.0.0.0", "first": first, "count": count, "label": label});
    agent.call("many", many(20_000, 200, "first"));
    wait::until("all of them were looked at", || {
        let steered = seen(&pod, 1).ports.len() as u64;
        check(steered > 0 && unsteered(&pod, 1) + steered == 200, pod.report())
    });
    agent.call("many", many(30_000, 3, "later"));
    wait::until("three more are left alone", || {
        let steered = seen(&pod, 1).ports.len() as u64;
        check(unsteered(&pod, 1) + steered == 203, pod.report())
    });
    agent.call("close_many", json!({"count": 200, "label": "first"}));
    wait::until("the later ones are steered", || {
        let ports = [30_000, 30_001, 30_002].map(|port| (Transport::Tcp, port));
        check(ports.iter().all(|port| seen(&pod, 1).listens_on(port)), pod.report())
    });
    assert_eq!(unsteered(&pod, 1), 0);
}
