//! A port that a replica has already is taken for it, as it is for a program alone, and never because of its siblings.

use std::{collections::BTreeSet, thread, time::Duration};

use sameport::spec::{PortRange, Protocol};
use serde_json::{Value, json};

use super::{
    agent::Agent,
    judge,
    network::Plain,
    pod::Pod,
    support::wait::{self, check},
};

/// Address, and whether it is for IPv6 only.
const ADDRESSES: [(&str, u8); 7] = [
    ("0.0.0.0", 0),
    ("127.0.0.1", 0),
    ("127.0.0.2", 0),
    ("::", 0),
    ("::", 1),
    ("::1", 0),
    ("::ffff:127.0.0.1", 0),
];
const PORT: u16 = 9100;
const KINDS: [&str; 2] = ["tcp", "udp"];

/// All pairs of addresses and of options; with TCP once with the first one listening, and once only bound.
fn pairs(kind: &str) -> Vec<Value> {
    let mut pairs = Vec::new();
    for first in ADDRESSES {
        for second in ADDRESSES {
            for bits in 0..32_u8 {
                let bit = |number: u8| bits >> number & 1;
                if kind == "udp" && bit(4) == 1 {
                    continue;
                }
                pairs.push(json!([
                    kind,
                    [first.0, first.1, bit(0), bit(1)],
                    [second.0, second.1, bit(2), bit(3)],
                    bit(4),
                    PORT
                ]));
            }
        }
    }
    pairs
}

fn every_pair(kind: &str) {
    let (plain, mut pod) = (Plain::new(), Pod::new());
    let mut alone = Agent::start("alone", plain.pid(), None);
    let (mut replica, mut neighbour) = (pod.agent(1), pod.agent(2));
    pod.settled();
    let pairs = pairs(kind);
    let expected = alone.call("pairs", json!({"questions": pairs}));
    let mut differ = vec![];
    for (pair, expected) in pairs.iter().zip(expected.as_array().unwrap()) {
        // The neighbour has the same before, and keeps it.
        let [kind, first, second, listening, port] = pair.as_array().unwrap().as_slice() else { panic!() };
        let arguments = json!({"kind": kind, "first": first, "second": second, "listening": listening,
                               "port": port});
        let mut held = arguments.clone();
        held["hold"] = json!(true);
        neighbour.call("pair", held);
        let seen = replica.call("pair", arguments);
        if seen != *expected {
            differ.push(format!("{pair}: alone {expected}, here {seen}"));
        }
    }
    judge::none(pairs.len(), &differ);
}

#[test]
fn every_pair_of_tcp() {
    every_pair("tcp");
}

#[test]
fn every_pair_of_udp() {
    every_pair("udp");
}

/// Three replicas, each with a second process.
fn pod() -> (Pod, Vec<Agent>, Vec<Agent>) {
    let mut pod = Pod::new();
    let first = (1..=3).map(|slot| pod.agent(slot)).collect();
    pod.settled();
    let second = (1..=3).map(|slot| pod.beside(slot, "")).collect();
    (pod, first, second)
}

fn at(kind: &str, address: &str) -> Value {
    json!({"kind": kind, "address": address, "port": PORT, "label": format!("{kind} {address}")})
}

#[test]
fn it_is_free_again_after_a_close_and_after_sigkill() {
    let (pod, mut first, mut second) = pod();
    let mut differ = vec![];
    let mut expect = |what: &str, seen: Result<Value, String>, expected: Result<(), &str>| {
        if seen.as_ref().map(drop).map_err(String::as_str) != expected {
            differ.push(format!("{what}: expected {expected:?}, got {seen:?}"));
        }
    };
    let taken = Err("EADDRINUSE");
    for (first, second) in first.iter_mut().zip(&mut second) {
        for kind in KINDS {
            for address in ["127.0.0.1", "::1"] {
                let at = at(kind, address);
                let label = json!({"label": at["label"]});
                let what = format!("{}: {kind} {address}", first.name);
                expect(&format!("{what}, free"), second.try_to("bound", at.clone()), Ok(()));
                expect(&format!("{what}, another process"), first.try_to("bound", at.clone()), taken);
                // A child has it open, too.
                second.call("fork_holder", label.clone());
                second.call("close", label.clone());
                expect(&format!("{what}, open in a child"), first.try_to("bound", at.clone()), taken);
                second.call("end_holders", json!({}));
                // Who steers may have it open at this moment, to see what it is.
                let mut closed = first.try_to("bound", at.clone());
                for _ in 0..10 {
                    if closed.is_ok() {
                        break;
                    }
                    thread::sleep(Duration::from_millis(10));
                    closed = first.try_to("bound", at.clone());
                }
                expect(&format!("{what}, closed"), closed, Ok(()));
                first.call("close", label);
                second.call("bound", at);
            }
        }
        // Listening ones, at another address.
        let listening = json!({"address": "127.0.0.2", "port": PORT, "label": "listens"});
        second.call("listen", listening.clone());
        expect(&format!("{}: it listens", first.name), first.try_to("listen", listening), taken);
    }
    second.into_iter().for_each(Agent::kill);
    for first in &mut first {
        for kind in KINDS {
            for address in ["127.0.0.1", "::1"] {
                let what = format!("{}: {kind} {address}, killed", first.name);
                expect(&what, first.try_to("bound", at(kind, address)), Ok(()));
            }
        }
        let listening = json!({"address": "127.0.0.2", "port": PORT, "label": "listens"});
        expect(&format!("{}: a listener, killed", first.name), first.try_to("listen", listening), Ok(()));
    }
    drop(pod);
    judge::none(3 * 22, &differ);
}

/// One process shuts its listener down and listens again, and another one tries to bind in between.
fn shutdown_and_again(first: &mut Agent, second: &mut Agent) -> Vec<(&'static str, Result<(), String>)> {
    let listening = json!({"address": "127.0.0.1", "port": PORT, "label": "one", "reuseaddr": 0});
    let (one, two) = (json!({"label": "one"}), json!({"label": "two"}));
    let at = json!({"kind": "tcp", "address": "127.0.0.1", "port": PORT, "label": "two"});
    let reusing =
        json!({"kind": "tcp", "address": "127.0.0.1", "port": PORT, "label": "two", "reuseaddr": 1});
    first.call("listen", listening);
    let mut told = vec![
        ("shutdown", first.try_to("shutdown", one.clone())),
        ("a bind of another process", second.try_to("bound", at.clone())),
        ("a bind with SO_REUSEADDR", second.try_to("bound", reusing.clone())),
        ("listen again", first.try_to("listen_again", one.clone())),
        ("a bind after that", second.try_to("bound", at.clone())),
        ("a bind with SO_REUSEADDR after that", second.try_to("bound", reusing)),
        ("close", first.try_to("close", one)),
        ("a bind after the close", second.try_to("bound", at)),
    ];
    second.call("close", two);
    told.drain(..).map(|(what, seen)| (what, seen.map(drop))).collect()
}

#[test]
fn after_a_shutdown_it_is_still_taken_and_listens_again() {
    let (_pod, mut first, mut second) = pod();
    let plain = Plain::new();
    let process = || Agent::start("alone", plain.pid(), None);
    let expected = shutdown_and_again(&mut process(), &mut process());
    let mut differ = vec![];
    // Siblings have the same.
    let (sibling, others) = first.split_at_mut(1);
    sibling[0].call("listen", json!({"address": "127.0.0.1", "port": PORT, "label": "one"}));
    for (first, second) in others.iter_mut().zip(&mut second[1..]) {
        let seen = shutdown_and_again(first, second);
        for (expected, seen) in expected.iter().zip(seen) {
            if *expected != seen {
                differ.push(format!("{}: alone {expected:?}, here {seen:?}", first.name));
            }
        }
    }
    judge::none(2 * expected.len(), &differ);
}

/// Workers that find out who leads by a port: one of each replica does.
#[test]
fn of_workers_that_want_the_same_port_one_of_each_replica_gets_it() {
    let (_pod, mut first, _second) = pod();
    let mut differ = vec![];
    for kind in KINDS {
        for listening in [false, true] {
            for round in 0..8 {
                for agent in &mut first {
                    let wanted = json!({"workers": 4, "kind": kind, "address": "127.0.0.1", "port": PORT,
                                        "listening": listening && kind == "tcp"});
                    agent.tell("race", wanted);
                }
                for agent in &mut first {
                    let told = agent.hear().unwrap();
                    if told != json!(["EADDRINUSE", "EADDRINUSE", "EADDRINUSE", "ok"]) {
                        differ.push(format!("{}: {kind}, {listening}, round {round}: {told}", agent.name));
                    }
                }
            }
        }
    }
    judge::none(2 * 2 * 8 * 3, &differ);
}

/// With SO_REUSEADDR the kernel lets two bind one port as long as none listens, and of UDP for good.
#[test]
fn an_exclusive_port_is_one_replicas_from_its_bind_on() {
    let (mut pod, mut first, mut second) = pod();
    pod.exclusive =
        [Protocol::Tcp, Protocol::Udp].map(|protocol| PortRange::of(PORT, protocol)).into_iter().collect();
    pod.tell();
    let (place, label) = (at("tcp", "0.0.0.0"), json!({"label": "tcp 0.0.0.0"}));
    wait::until("it is exclusive", || {
        first[0].call("bound", place.clone());
        let seen = first[1].try_to("bound", place.clone());
        first[0].call("close", label.clone());
        if seen.is_ok() {
            first[1].call("close", label.clone());
        }
        check(seen.is_err(), seen)
    });
    let mut differ = vec![];
    for kind in KINDS {
        for (reuseaddr, reuseport) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
            let mut place = at(kind, "0.0.0.0");
            place["reuseaddr"] = json!(reuseaddr);
            place["reuseport"] = json!(reuseport);
            let label = json!({"label": place["label"]});
            let mut bind = |agent: &mut Agent, expected: Result<(), &str>| {
                let seen = agent.try_to("bound", place.clone());
                if seen.as_ref().map(drop).map_err(String::as_str) != expected {
                    differ.push(format!("{} {place}: expected {expected:?}, got {seen:?}", agent.name));
                }
            };
            for _ in 0..3 {
                bind(&mut first[0], Ok(()));
                bind(&mut first[1], Err("EADDRINUSE"));
                bind(&mut first[2], Err("EADDRINUSE"));
                first[0].call("close", label.clone());
                bind(&mut first[1], Ok(()));
                bind(&mut first[0], Err("EADDRINUSE"));
                first[1].call("close", label.clone());
            }
            // Within a replica it is as the kernel has it.
            bind(&mut first[2], Ok(()));
            let shared = reuseport == 1 || reuseaddr == 1;
            bind(&mut second[2], if shared { Ok(()) } else { Err("EADDRINUSE") });
            first[2].call("close", label.clone());
            if shared {
                bind(&mut first[0], Err("EADDRINUSE"));
                second[2].call("close", label.clone());
            }
            bind(&mut first[0], Ok(()));
            first[0].call("close", label);
        }
    }
    judge::none(2 * 4 * 22, &differ);
}

#[test]
fn who_asks_for_any_port_gets_one_that_nobody_has() {
    let (_pod, mut first, _second) = pod();
    for kind in KINDS {
        let mut seen = BTreeSet::new();
        let mut twice = vec![];
        for round in 0..6 {
            for (agent, address) in first.iter_mut().zip(["127.0.0.1", "0.0.0.0", "::"]) {
                let told = agent.call("any_ports", json!({"times": 25, "kind": kind, "address": address}));
                for port in told.as_array().unwrap() {
                    if !seen.insert(port.as_u64().unwrap()) {
                        twice.push(format!("{kind} {port} in round {round} by {}", agent.name));
                    }
                }
                if kind == "tcp" {
                    let port = agent.call("listen_unbound", json!({"label": format!("{round}")}));
                    if !seen.insert(port.as_u64().unwrap()) {
                        twice.push(format!("{port} by listen without bind by {}", agent.name));
                    }
                }
            }
        }
        judge::none(6 * 75, &twice);
    }
}

#[test]
fn after_a_thousand_binds_and_closes_nothing_is_counted() {
    let (_pod, mut first, _second) = pod();
    let mut differ = vec![];
    for kind in KINDS {
        for address in ["127.0.0.1", "::"] {
            for agent in &mut first {
                let wanted = json!({"times": 1000, "kind": kind, "address": address, "port": PORT,
                                    "second": address == "::"});
                agent.tell("again_and_again", wanted);
            }
            for agent in &mut first {
                let told = agent.hear().unwrap();
                let expected = if address == "::" {
                    json!({"ok": 1000, "second EADDRINUSE": 1000})
                } else {
                    json!({"ok": 1000})
                };
                if told != expected {
                    differ.push(format!("{}: {kind} {address}: {told}", agent.name));
                }
            }
        }
    }
    judge::none(12, &differ);
}
