//! A replica that asks itself, at whatever address: it is answered as in a container of its own.

use serde_json::json;

use super::{
    agent::Agent,
    judge::{self, BINDS, Question, alone, differences, port, questions},
    pod::{Pod, SIDECAR},
};

/// How often each question is asked.
const TIMES: u32 = 3;

/// Starts replicas in these slots. Their first processes ask, and others in the same control groups serve.
fn replicas(pod: &mut Pod, slots: impl IntoIterator<Item = u32> + Clone) -> (Vec<Agent>, Vec<Agent>) {
    let clients = slots.clone().into_iter().map(|slot| pod.agent(slot)).collect();
    pod.settled();
    let servers = slots.into_iter().map(|slot| pod.beside(slot, "")).collect();
    (servers, clients)
}

/// Asks everything from within each replica, and fails where it is not as alone.
pub fn as_alone(clients: &mut [Agent]) {
    let (questions, alone) = (questions(), alone());
    let mut differ = Vec::new();
    let seen = judge::ask(clients, &questions, TIMES);
    for (client, seen) in clients.iter().zip(seen) {
        differ.extend(differences(&client.name, &questions, alone, &seen));
    }
    judge::none(clients.len() * questions.len(), &differ);
}

/// Waits until so many replicas have all servers.
pub fn listening(pod: &Pod, replicas: usize) {
    judge::ports().for_each(|port| pod.listening(replicas, port));
}

#[test]
fn one_replica() {
    let mut pod = Pod::wired();
    let (mut servers, mut clients) = replicas(&mut pod, [1]);
    servers.iter_mut().for_each(judge::serve);
    listening(&pod, 1);
    as_alone(&mut clients);
}

#[test]
fn three_replicas_that_all_serve() {
    let mut pod = Pod::wired();
    let (mut servers, mut clients) = replicas(&mut pod, 1..=3);
    servers.iter_mut().for_each(judge::serve);
    listening(&pod, 3);
    as_alone(&mut clients);
    // A process that serves may as well ask itself.
    as_alone(&mut servers);
}

#[test]
fn three_replicas_beside_another_service() {
    let mut pod = Pod::wired();
    let (mut servers, mut clients) = replicas(&mut pod, 1..=3);
    let (mut others, _first) = replicas(&mut pod, SIDECAR + 1..=SIDECAR + 3);
    for other in &mut others {
        other.call("listen", json!({"address": "0.0.0.0", "port": 7100, "label": "tcp"}));
        other.call("udp", json!({"address": "0.0.0.0", "port": 7100, "label": "udp"}));
    }
    servers.iter_mut().for_each(judge::serve);
    listening(&pod, 3);
    as_alone(&mut clients);
}

/// Who is not ready for others is always there for itself.
#[test]
fn three_replicas_that_get_nothing_from_others() {
    let mut pod = Pod::wired();
    pod.usual_weight = 0;
    let (mut servers, mut clients) = replicas(&mut pod, 1..=3);
    servers.iter_mut().for_each(judge::serve);
    listening(&pod, 3);
    as_alone(&mut clients);
}

/// On each port each replica is bound to something else.
#[test]
fn three_replicas_that_are_bound_differently() {
    let mut pod = Pod::wired();
    let (mut servers, mut clients) = replicas(&mut pod, 1..=3);
    for (by, server) in servers.iter_mut().enumerate() {
        judge::serve_turned(server, by);
    }
    listening(&pod, 3);
    let (questions, all) = (questions(), alone());
    let mut differ = Vec::new();
    let seen = judge::ask(&mut clients, &questions, TIMES);
    for (by, (client, seen)) in clients.iter().zip(seen).enumerate() {
        let of = |question: &Question| {
            let number = (question.number + by) % BINDS.len();
            let there = questions.iter().position(|other| *other == Question { number, ..*question });
            all[there.unwrap()].clone()
        };
        let expected: Vec<_> = questions.iter().map(of).collect();
        // What it does not take itself at an address that others reach, too, may be taken by others.
        let keep: Vec<bool> = questions
            .iter()
            .zip(&expected)
            .map(|(question, (answered, _))| *answered || question.is_to_loopback())
            .collect();
        differ.extend(differences(
            &client.name,
            &kept(&questions, &keep),
            &kept(&expected, &keep),
            &kept(&seen, &keep),
        ));
    }
    judge::none(clients.len() * questions.len(), &differ);
}

fn kept<T: Clone>(all: &[T], keep: &[bool]) -> Vec<T> {
    all.iter().zip(keep).filter(|(_, keep)| **keep).map(|(one, _)| one.clone()).collect()
}

/// Once `listen` has returned there is no moment at which another one answers, or nobody.
#[test]
fn from_the_first_moment_on() {
    let mut pod = Pod::wired();
    let mut agents: Vec<_> = (1..=3).map(|slot| pod.agent(slot)).collect();
    pod.settled();
    let (mut differ, mut asked) = (Vec::new(), 0);
    for round in 0..10 {
        for (number, bind) in BINDS.iter().enumerate() {
            for agent in &mut agents {
                let label = format!("{round} {number}");
                let at = port(number) + 10 * (round + 1);
                let to = match bind.address {
                    "0.0.0.0" => "127.0.0.1",
                    "::" => "::1",
                    address => address,
                };
                let v6only = u8::from(bind.only_v6);
                agent.call(
                    "listen",
                    json!({"address": bind.address, "port": at, "v6only": v6only, "label": label}),
                );
                let question = json!({"how": "tcp", "to": to, "port": at});
                let told = agent.call("ask", json!({"questions": [question], "times": 3}));
                asked += 1;
                let own = told[0].as_array().unwrap();
                if own.len() != 1 || own[0][0] != agent.name.as_str() {
                    differ.push(format!("{}: {bind:?} in round {round}: {told}", agent.name));
                }
            }
        }
    }
    judge::none(asked, &differ);
}
