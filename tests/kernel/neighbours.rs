//! What a replica's siblings, another service and foreign processes reach in its network, and what is whose.

use sameport::kernel::sockets::Transport;
use serde_json::json;

use super::{
    agent::Agent,
    judge::{self, Question, Seen, alone, differences, nobody, questions},
    localhost::listening,
    network::V4,
    pod::{Pod, SIDECAR},
    support::wait::{self, check},
};

/// The servers that are bound to loopback addresses, how they are asked there.
pub const LOOPBACK: [(usize, &str); 3] = [(3, "127.0.0.1"), (4, "127.0.0.53"), (5, "::1")];

/// Three replicas, of which the first two serve. Their servers are second processes in their control groups.
pub fn pod() -> (Pod, Vec<Agent>, Vec<Agent>) {
    let mut pod = Pod::wired();
    let clients = (1..=3).map(|slot| pod.agent(slot)).collect();
    pod.settled();
    let mut servers: Vec<_> = (1..=3).map(|slot| pod.beside(slot, "")).collect();
    servers[..2].iter_mut().for_each(judge::serve);
    (pod, servers, clients)
}

/// Asks as replica 3, which serves nobody: at loopback addresses as if it were alone, at others as from outside.
fn as_nobody(pod: &Pod, client: &mut Agent) {
    let (questions, nobody) = (questions(), nobody());
    let seen = judge::ask(std::slice::from_mut(client), &questions, 2).remove(0);
    let (mut loopback, mut other) = ((vec![], vec![], vec![]), vec![]);
    for ((question, alone), seen) in questions.into_iter().zip(nobody).zip(seen) {
        if question.is_to_loopback() {
            loopback.0.push(question);
            loopback.1.push(alone.clone());
            loopback.2.push(seen);
        } else if question.from.is_none() {
            other.push((question, seen));
        }
    }
    let mut differ = differences("3", &loopback.0, &loopback.1, &loopback.2);
    let asked: Vec<Question> = other.iter().map(|(question, _)| *question).collect();
    let outside = judge::ask(&mut [pod.outside()], &asked, 2).remove(0);
    for ((question, inside), outside) in other.iter().zip(outside) {
        if who(inside) != who(&outside) {
            let (inside, outside) = (judge::shown(inside), judge::shown(&outside));
            differ.push(format!("3: {question:?}: from outside {outside}; here {inside}"));
        }
    }
    judge::none(loopback.0.len() + other.len(), &differ);
}

/// One of those who serve, or what came instead.
fn who(seen: &Seen) -> Vec<String> {
    let one = |(who, text): &(Option<String>, String)| match who.as_deref() {
        Some("1" | "2") => "one of those who serve".to_owned(),
        Some(other) => other.to_owned(),
        None => text.clone(),
    };
    let mut all: Vec<_> = seen.keys().map(one).collect();
    all.sort();
    all.dedup();
    all
}

#[test]
fn a_replica_without_a_server_is_refused_at_loopback_addresses() {
    let (pod, _servers, mut clients) = pod();
    listening(&pod, 2);
    as_nobody(&pod, &mut clients[2]);
}

#[test]
fn a_replica_whose_server_has_closed_its_listeners_is_refused() {
    let (pod, mut servers, mut clients) = pod();
    judge::serve(&mut servers[2]);
    listening(&pod, 3);
    judge::close(&mut servers[2]);
    as_nobody(&pod, &mut clients[2]);
}

#[test]
fn a_replica_whose_server_was_killed_is_refused_and_served_again_later() {
    let (pod, mut servers, mut clients) = pod();
    judge::serve(&mut servers[2]);
    listening(&pod, 3);
    servers.remove(2).kill();
    as_nobody(&pod, &mut clients[2]);
    let mut again = pod.beside(3, "");
    judge::serve(&mut again);
    listening(&pod, 3);
    let seen = judge::ask(&mut clients[2..], &questions(), 2);
    judge::none(questions().len(), &differences("3", &questions(), alone(), &seen[0]));
}

/// Asks for all loopback servers by TCP and UDP, 8 times each; who answered, by question.
fn loopback(agent: &mut Agent) -> Vec<(Question, Seen)> {
    let how = ["tcp", "udp", "udp sendto"];
    let all =
        LOOPBACK.into_iter().flat_map(|(number, to)| how.map(|how| Question { number, how, to, from: None }));
    let questions: Vec<_> = all.collect();
    let seen = judge::ask(std::slice::from_mut(agent), &questions, 8).remove(0);
    questions.into_iter().zip(seen).collect()
}

/// Where somebody else answered than one of those.
fn unless(agent: &mut Agent, expected: &[&str]) -> Vec<String> {
    let seen = loopback(agent);
    let wrong = seen.iter().filter(|(_, seen)| {
        !seen.keys().all(|(who, _)| who.as_deref().is_some_and(|who| expected.contains(&who)))
    });
    let show = |(question, seen): &(Question, Seen)| {
        format!("{}: {question:?}: expected {expected:?}, got {}", agent.name, judge::shown(seen))
    };
    wrong.map(show).collect()
}

#[test]
fn another_service_reaches_itself_then_the_replica_of_its_slot_then_any() {
    let (mut pod, mut servers, _clients) = pod();
    judge::serve(&mut servers[2]);
    let mut others: Vec<_> = (1..=3).map(|slot| pod.agent(SIDECAR + slot)).collect();
    pod.settled();
    listening(&pod, 3);
    let mut differ = vec![];
    for (slot, other) in ["1", "2", "3"].into_iter().zip(&mut others) {
        differ.extend(unless(other, &[slot]));
    }
    // Nobody is in its slot any more.
    servers.remove(2).kill();
    listening(&pod, 2);
    differ.extend(unless(&mut others[2], &["1", "2"]));
    // It has a listener of its own.
    judge::serve(&mut others[1]);
    wait::until("it is seen", || {
        let report = pod.report();
        let seen = report.replicas.get(&super::pod::id(SIDECAR + 2));
        check(seen.is_some_and(|seen| judge::ports().all(|port| seen.listens_on(&port))), report)
    });
    differ.extend(unless(&mut others[1], &["102"]));
    differ.extend(unless(&mut others[0], &["1"]));
    judge::none(6 * 9, &differ);
}

#[test]
fn another_container_reaches_itself_first_and_then_any_replica() {
    let (pod, _servers, mut clients) = pod();
    listening(&pod, 2);
    let mut foreign = pod.foreign();
    let mut differ = unless(&mut foreign, &["1", "2"]);
    judge::serve(&mut foreign);
    // Its UDP sockets are found a moment after they are bound.
    wait::until("it reaches itself", || {
        let differ = unless(&mut foreign, &["foreign"]);
        check(differ.is_empty(), differ)
    });
    differ.extend(unless(&mut foreign, &["foreign"]));
    // What it opens changes nothing for the replicas.
    differ.extend(unless(&mut clients[0], &["1"]));
    differ.extend(unless(&mut clients[1], &["2"]));
    judge::none(4 * 9, &differ);
}

/// A port of a foreign process's or of another service's that no replica of one's own service has is nobody's to refuse.
#[test]
fn a_port_of_a_neighbour_is_reached_by_replicas() {
    let (mut pod, _servers, mut clients) = pod();
    let mut other = pod.agent(SIDECAR + 1);
    pod.settled();
    let mut foreign = pod.foreign();
    for (agent, at) in [(&mut other, 7300), (&mut foreign, 7400)] {
        for (add, address) in ["127.0.0.1", "::1", V4].into_iter().enumerate() {
            for function in ["listen", "udp"] {
                let at = at + u16::try_from(add).unwrap();
                let label = format!("{function} {at}");
                agent.call(function, json!({"address": address, "port": at, "label": label}));
            }
        }
    }
    let served = |transport| [7300, 7301, 7302].map(|port| (transport, port));
    served(Transport::Tcp).into_iter().chain(served(Transport::Udp)).for_each(|port| pod.listening(1, port));
    let (mut differ, mut asked) = (vec![], 0);
    for client in &mut clients {
        for (expected, at) in [("101", 7300), ("foreign", 7400)] {
            for (add, to) in ["127.0.0.1", "::1", V4].into_iter().enumerate() {
                for how in ["tcp", "udp", "udp sendto"] {
                    let question = json!({"how": how, "to": to, "port": at + add});
                    let told = client.call("ask", json!({"questions": [question], "times": 3}));
                    asked += 1;
                    if told[0][0][0] != expected || told[0].as_array().unwrap().len() != 1 {
                        differ.push(format!("{}: {question}: expected {expected}, got {told}", client.name));
                    }
                }
            }
        }
    }
    judge::none(asked, &differ);
}
