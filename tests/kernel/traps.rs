//! What is easily got wrong when the kernel notes who asks.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use sameport::kernel::sockets::Transport;
use serde_json::{Value, json};

use super::{
    agent::Agent,
    judge::{self, Outcome},
    network::{V4, V6, process},
    pod::Pod,
    support::wait::{self, check},
};

const PORT: u16 = 8080;
const UDP: (Transport, u16) = (Transport::Udp, PORT);
const TCP: (Transport, u16) = (Transport::Tcp, PORT);

/// Three replicas that all serve at `::`, with a second process each that asks.
fn pod() -> (Pod, Vec<Agent>, Vec<Agent>) {
    let mut pod = Pod::wired();
    let mut servers: Vec<_> = (1..=3).map(|slot| pod.agent(slot)).collect();
    pod.settled();
    for server in &mut servers {
        for function in ["listen", "udp"] {
            server.call(function, json!({"address": "::", "port": PORT, "label": function}));
        }
    }
    [TCP, UDP].into_iter().for_each(|port| pod.listening(3, port));
    let clients = (1..=3).map(|slot| pod.beside(slot, "")).collect();
    (pod, servers, clients)
}

/// Asks so often; who answered, or what came instead.
fn ask(agent: &mut Agent, question: &Value, times: u32) -> BTreeMap<String, u64> {
    let told = agent.call("ask", json!({"questions": [question], "times": times}));
    let told: Vec<Vec<Outcome>> = serde_json::from_value(told).unwrap();
    let mut seen = BTreeMap::new();
    for (who, _, text, count) in told.into_iter().flatten() {
        *seen.entry(who.unwrap_or(text)).or_default() += count;
    }
    seen
}

/// What was noted of one who asked must not be taken for the next one with the same addresses and ports. Nothing new goes
/// to replica 2, so whoever is not in it never gets there.
#[test]
fn who_has_the_addresses_and_ports_of_an_earlier_asker_is_not_taken_for_it() {
    let (mut pod, _servers, mut clients) = pod();
    pod.weighed(2, 0);
    let mut foreign = pod.foreign();
    let (mut differ, mut asked) = (vec![], 0);
    for (how, to) in
        ["tcp", "udp", "udp sendto"].into_iter().flat_map(|how| ["127.0.0.1", "::1", V4].map(|to| (how, to)))
    {
        for round in 0..4 {
            // Another port each time: of UDP, what was noted by a flow stays for a while.
            let source = json!([to, 20_000 + round]);
            let question = json!({"how": how, "to": to, "port": PORT, "source": source});
            let mut expect = |agent: &mut Agent, times, expected: &[&str]| {
                let seen = ask(agent, &question, times);
                asked += 1;
                if !seen.keys().all(|who| expected.contains(&who.as_str())) {
                    differ.push(format!("{}: {question}: expected {expected:?}, got {seen:?}", agent.name));
                }
            };
            expect(&mut clients[1], 1, &["2"]);
            expect(&mut foreign, 4, &["1", "3"]);
            expect(&mut clients[1], 1, &["2"]);
            expect(&mut clients[2], 1, &["3"]);
            expect(&mut foreign, 1, &["1", "3"]);
            expect(&mut clients[0], 1, &["1"]);
        }
    }
    judge::none(asked, &differ);
}

/// The same of a client without a control group that anything is noted of: a thread of this process.
#[test]
fn nor_is_a_client_from_without() {
    let (mut pod, _servers, mut clients) = pod();
    pod.weighed(2, 0);
    let mut thread = Agent::start("thread", pod.sandbox(), None);
    let question = json!({"how": "tcp", "to": "127.0.0.1", "port": PORT, "source": ["127.0.0.1", 20_100]});
    let mut differ = vec![];
    for _ in 0..10 {
        for (agent, expected) in [(&mut clients[1], vec!["2"]), (&mut thread, vec!["1", "3"])] {
            let seen = ask(agent, &question, 1);
            if !seen.keys().all(|who| expected.contains(&who.as_str())) {
                differ.push(format!("{}: expected {expected:?}, got {seen:?}", agent.name));
            }
        }
    }
    judge::none(20, &differ);
}

#[test]
fn one_that_was_shut_down_and_listens_again_is_its_own_replicas() {
    let (_pod, mut servers, mut clients) = pod();
    let question = json!({"how": "tcp", "to": "127.0.0.1", "port": PORT});
    let mut differ = vec![];
    for round in 0..5 {
        servers[1].call("shutdown", json!({"label": "listen"}));
        for (client, expected) in clients.iter_mut().zip(["1", "ECONNREFUSED", "3"]) {
            let seen = ask(client, &question, 4);
            if !seen.keys().eq([expected]) {
                differ.push(format!("{}: shut in round {round}: {seen:?}", client.name));
            }
        }
        servers[1].call("listen_again", json!({"label": "listen"}));
        for client in &mut clients {
            let seen = ask(client, &question, 4);
            if !seen.keys().eq([&client.name]) {
                differ.push(format!("{}: opened again in round {round}: {seen:?}", client.name));
            }
        }
    }
    judge::none(30, &differ);
}

/// A server that shares its port among its own workers, as nginx does with `reuseport`: all of them get something.
#[test]
fn a_replica_with_many_listeners_of_its_own_uses_all_of_them() {
    const OWN: usize = 8;
    let mut pod = Pod::wired();
    let mut servers: Vec<_> = (1..=3).map(|slot| pod.agent(slot)).collect();
    pod.settled();
    for server in &mut servers {
        for number in 0..OWN {
            for (function, address) in [("listen", "127.0.0.1"), ("udp", "127.0.0.1"), ("listen", "::1")] {
                let label = format!("{function} {address} {number}");
                server.call(
                    function,
                    json!({"address": address, "port": PORT, "label": label, "reuseport": 1}),
                );
            }
        }
    }
    [TCP, UDP].into_iter().for_each(|port| pod.listening(3, port));
    let mut clients: Vec<_> = (1..=3).map(|slot| pod.beside(slot, "")).collect();
    let mut differ = vec![];
    for client in &mut clients {
        for (how, to) in
            [("tcp", "127.0.0.1"), ("udp", "127.0.0.1"), ("udp sendto", "127.0.0.1"), ("tcp", "::1")]
        {
            let question = json!({"how": how, "to": to, "port": PORT});
            let told = client.call("ask", json!({"questions": [question], "times": 300}));
            let told: Vec<Outcome> = serde_json::from_value(told[0].clone()).unwrap();
            let own = told.iter().filter(|(who, ..)| who.as_ref() == Some(&client.name)).count();
            if own != OWN || told.len() != OWN {
                differ
                    .push(format!("{}: {question}: {own} of its own {OWN} answered: {told:?}", client.name));
            }
        }
    }
    judge::none(12, &differ);
}

#[test]
fn with_syn_cookies_a_replica_reaches_itself() {
    let (pod, _servers, mut clients) = pod();
    let set = ["-c", "echo 2 >/proc/sys/net/ipv4/tcp_syncookies"];
    let status = process(pod.sandbox(), None, std::process::Command::new("sh").args(set)).status().unwrap();
    assert!(status.success());
    let mut differ = vec![];
    for client in &mut clients {
        for to in ["127.0.0.1", "::1", V4, V6] {
            let seen = ask(client, &json!({"how": "tcp", "to": to, "port": PORT}), 40);
            if !seen.keys().eq([&client.name]) {
                differ.push(format!("{}: {to}: {seen:?}", client.name));
            }
        }
    }
    judge::none(12, &differ);
}

/// Under load, while servers of one replica and a whole other one are killed and started again and again.
#[test]
fn under_load_and_kills_nobody_gets_the_answer_of_another() {
    const CONNECTIONS: u32 = 4000;
    const SECONDS: u64 = 20;
    let mut pod = Pod::wired();
    let mut first: Vec<_> = (1..=3).map(|slot| pod.agent(slot)).collect();
    pod.settled();
    let up = |agent: &mut Agent| {
        for (address, port) in [("127.0.0.1", 9000), ("0.0.0.0", 9001), ("::1", 9002), ("::", 9003)] {
            agent.call("listen", json!({"address": address, "port": port, "label": address}));
        }
    };
    let mut servers: Vec<_> = (1..=3).map(|slot| Some(pod.beside(slot, ""))).collect();
    servers.iter_mut().flatten().for_each(up);
    [9000, 9001, 9002, 9003].into_iter().for_each(|port| pod.listening(3, (Transport::Tcp, port)));
    let places = json!([
        ["127.0.0.1", 9000],
        ["127.0.0.1", 9001],
        ["::1", 9002],
        ["::1", 9003],
        [V4, 9001],
        [V6, 9003]
    ]);
    let wanted = json!({"connections": CONNECTIONS, "seconds": SECONDS, "places": places});
    let outside = json!({"connections": CONNECTIONS, "seconds": SECONDS, "places": [[V4, 9001], [V6, 9003]]});
    let (ended, begun) = (AtomicBool::new(false), Instant::now());
    let (mut differ, mut total, mut kills) = (vec![], 0, 0);
    thread::scope(|scope| {
        let mut client = pod.outside();
        client.tell("load", outside);
        for agent in &mut first {
            agent.tell("load", wanted.clone());
        }
        let (ended, first) = (&ended, &mut first);
        let heard = scope.spawn(move || {
            let _guard = super::server::StopAtEnd(ended);
            let mut heard = vec![];
            for agent in first.iter_mut().chain([&mut client]) {
                let told: Vec<(String, String, u64)> = serde_json::from_value(agent.hear().unwrap()).unwrap();
                heard.push((agent.name.clone(), told));
            }
            heard
        });
        let deadline = begun + Duration::from_secs(SECONDS + 5);
        while !ended.load(Ordering::Relaxed) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(150));
            servers[1].take().unwrap().kill();
            // A replica with nobody who asks comes and goes as a whole.
            let mut whole = pod.agent(4);
            up(&mut whole);
            thread::sleep(Duration::from_millis(50));
            let mut again = pod.beside(2, "");
            up(&mut again);
            servers[1] = Some(again);
            pod.remove(4);
            kills += 2;
        }
        for (asker, told) in heard.join().unwrap() {
            for (to, what, count) in told {
                total += count;
                let own_only = asker != "outside" && (asker != "2" || to != V4 && to != V6);
                let gone = ["ECONNREFUSED", "ECONNRESET", "EPIPE", "closed without an answer"];
                let may = what == asker || asker == "2" && gone.contains(&what.as_str());
                if own_only && !may {
                    differ.push(format!("{asker} at {to}: {count} times {what}"));
                }
            }
        }
    });
    eprintln!("{total} connections, {kills} kills, {:.1} s", begun.elapsed().as_secs_f64());
    judge::none(usize::try_from(total).unwrap(), &differ);
}

/// A listener that is not in the map, or is in it too long, would be seen here: one goes and comes without a pause.
#[test]
fn one_that_closes_and_opens_again_is_found_at_once() {
    let (pod, mut servers, mut clients) = pod();
    let (mut differ, question) = (vec![], json!({"how": "tcp", "to": "::1", "port": PORT}));
    for round in 0..100 {
        servers[1].call("close", json!({"label": "listen"}));
        let closed = ask(&mut clients[1], &question, 1);
        servers[1].call("listen", json!({"address": "::", "port": PORT, "label": "listen"}));
        let open = ask(&mut clients[1], &question, 1);
        if !closed.keys().eq(["ECONNREFUSED"]) || !open.keys().eq(["2"]) {
            differ.push(format!("round {round}: closed {closed:?}, open {open:?}"));
        }
    }
    judge::none(100, &differ);
    wait::until("others reach it, too", || {
        let mut outside = pod.outside();
        let seen = ask(&mut outside, &json!({"how": "tcp", "to": V6, "port": PORT}), 60);
        check(seen.keys().eq(["1", "2", "3"]), seen)
    });
}
