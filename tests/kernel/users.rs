//! Replicas of different users share ports, whatever connections there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
    net::TcpStream,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use sameport::{
    kernel::{Counters, sockets::Transport},
    spec::Balance,
};
use serde_json::json;

use super::{
    agent::Agent,
    pod::Pod,
    server::{PORT, StopAtEnd, ask, http, python, shared, stay},
    support::wait::{self, check},
};

/// Of the replicas, by slot.
const USERS: [u32; 3] = [0, 1000, 101];
/// A program that tries again and again has its port after that.
const PATIENCE: u32 = 20;

fn replicas(pod: &mut Pod) -> Vec<Agent> {
    let agent = |(slot, user): (u32, u32)| {
        let mut agent = pod.agent(slot);
        agent.call("become", json!({"user": user}));
        agent
    };
    let agents = (1..).zip(USERS).map(agent).collect();
    pod.settled();
    agents
}

/// How often it got `EADDRINUSE` before it could listen.
fn listens(agent: &mut Agent, function: &str, arguments: serde_json::Value) -> u64 {
    let done = json!({"function": function, "arguments": arguments, "seconds": PATIENCE});
    agent.call("at_last", done).as_u64().unwrap()
}

/// Who answers so many questions.
fn who_answers(client: &mut Agent, how: &str, to: &str, port: u16) -> BTreeSet<String> {
    let question = json!({"how": how, "to": to, "port": port});
    let told = client.call("ask", json!({"questions": [question], "times": 60}));
    let rows = told[0].as_array().unwrap();
    rows.iter().map(|row| row[0].as_str().unwrap_or_else(|| row[2].as_str().unwrap()).to_owned()).collect()
}

fn all() -> BTreeSet<String> {
    ["1", "2", "3"].map(str::to_owned).into()
}

/// All three listen, one after the other, while connections of those before are open and wait; then each closes its listener
/// and opens it anew.
#[test]
fn three_users_listen_on_one_port_at_any_address_with_connections_open() {
    let mut pod = Pod::new();
    // Those who have much to do get their share, too.
    pod.rules.balance = Balance::Random;
    let mut agents = replicas(&mut pod);
    let mut client = pod.foreign();
    let mut port = 8100;
    for (address, v6only, to) in [("0.0.0.0", 0, "127.0.0.1"), ("::", 0, "127.0.0.1"), ("::", 1, "::1")] {
        for reuseaddr in [0, 1] {
            port += 1;
            let case = format!("{address}, V6ONLY {v6only}, SO_REUSEADDR {reuseaddr}");
            let arguments = json!({"address": address, "port": port, "label": port.to_string(), "v6only": v6only,
                                   "reuseaddr": reuseaddr});
            let mut kept = Vec::new();
            for round in 0..2 {
                for (slot, agent) in (1..).zip(&mut agents) {
                    if round == 1 {
                        agent.call("close", json!({"label": port.to_string()}));
                    }
                    let failures = listens(agent, "listen", arguments.clone());
                    println!("{case}: {} was refused {failures} times", agent.name);
                    pod.listening(if round == 1 { 3 } else { slot }, (Transport::Tcp, port));
                    if round == 0 {
                        let to: std::net::IpAddr = to.parse().unwrap();
                        kept.extend((0..6).map(|_| pod.connect((to, port)).unwrap()));
                    }
                }
            }
            drop(kept);
            // What was seen last may be the listener that was closed.
            wait::until(&format!("all answer: {case}"), || {
                let answers = who_answers(&mut client, "tcp", to, port);
                check(answers == all(), answers)
            });
        }
    }
    let report = pod.report();
    assert_eq!((report.error, report.refused_users), (None, BTreeMap::new()));
}

#[test]
fn three_users_have_one_udp_port() {
    let mut pod = Pod::wired();
    let mut agents = replicas(&mut pod);
    let mut client = pod.outside();
    for (address, port) in [("0.0.0.0", 5301), ("::", 5302)] {
        let arguments = json!({"address": address, "port": port, "label": port.to_string()});
        for round in 0..2 {
            for agent in &mut agents {
                if round == 1 {
                    agent.call("close", json!({"label": port.to_string()}));
                }
                let failures = listens(agent, "udp", arguments.clone());
                println!("{address}: {} was refused {failures} times", agent.name);
            }
        }
        pod.listening(3, (Transport::Udp, port));
        assert_eq!(who_answers(&mut client, "udp", super::network::V4, port), all());
    }
}

/// As a release before this one has left it: its connections have no `SO_REUSEADDR`.
#[test]
fn open_connections_without_reuseaddr_keep_no_other_user_out() {
    let mut pod = Pod::new();
    pod.start(1, &mut http());
    pod.listening(1, PORT);
    let mut agents = replicas(&mut pod);
    let arguments = json!({"address": "0.0.0.0", "port": 8200, "label": "server", "reuseaddr": 0});
    listens(&mut agents[0], "listen", arguments.clone());
    pod.listening(1, (Transport::Tcp, 8200));
    agents[0].call("without_reuseaddr", json!({"label": "server"}));
    let old = pod.connect((std::net::Ipv4Addr::LOCALHOST, 8200)).unwrap();
    wait::until("it is accepted", || {
        let traffic = pod.traffic((Transport::Tcp, 8200));
        check(traffic.get(&1).is_some_and(|traffic| traffic.accepted == 1), traffic)
    });
    for agent in &mut agents[1..] {
        let failures = listens(agent, "listen", arguments.clone());
        println!("{} was refused {failures} times", agent.name);
    }
    pod.listening(3, (Transport::Tcp, 8200));
    is_open(&old);
}

fn is_open(stream: &TcpStream) {
    stream.set_nonblocking(true).unwrap();
    let mut stream = stream;
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => panic!("it was closed"),
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                return;
            }
        }
    }
}

/// Nobody is there, and two want the port at the same moment; then a third one.
#[test]
fn newcomers_of_different_users_go_one_after_the_other() {
    let mut pod = Pod::new();
    pod.declared.insert(PORT);
    let mut agents = replicas(&mut pod);
    let arguments = json!({"address": "0.0.0.0", "port": PORT.1, "label": "server"});
    for round in 0..5 {
        let begun = Instant::now();
        for agent in &mut agents {
            let done =
                json!({"function": "listen", "arguments": arguments, "seconds": PATIENCE, "pause": 0.1});
            agent.tell("at_last", done);
        }
        let failures: Vec<_> = agents.iter_mut().map(|agent| agent.hear().unwrap()).collect();
        println!("round {round}: refused {failures:?} times, all listen after {:?}", begun.elapsed());
        pod.listening(3, PORT);
        let mut client = pod.foreign();
        assert_eq!(who_answers(&mut client, "tcp", "127.0.0.1", PORT.1), all());
        for agent in &mut agents {
            agent.call("close", json!({"label": "server"}));
        }
        pod.listening(0, PORT);
    }
}

/// The kernel remembers whom it let in last, and lets that user in again without a look at who is there.
#[test]
fn who_has_just_given_his_port_away_does_not_get_one_of_his_own() {
    let mut pod = Pod::new();
    let mut agents = replicas(&mut pod);
    let arguments = json!({"address": "0.0.0.0", "port": PORT.1, "label": "server"});
    agents[0].call("listen", arguments.clone());
    pod.listening(1, PORT);
    assert_eq!(agents[1].try_to("listen", arguments.clone()), Err("EADDRINUSE".to_owned()));
    users_are(&pod, 1000);
    // Of user 0, as the first one.
    let mut beside = pod.beside(1, "");
    let other = json!({"address": "0.0.0.0", "port": PORT.1, "label": "server", "reuseport": 1});
    assert_eq!(beside.try_to("listen", other), Err("EADDRINUSE".to_owned()));
    listens(&mut agents[1], "listen", arguments);
    pod.listening(2, PORT);
}

#[test]
fn who_is_known_to_come_is_not_refused() {
    let mut pod = Pod::new();
    let mut agents = replicas(&mut pod);
    let arguments = json!({"address": "0.0.0.0", "port": PORT.1, "label": "server"});
    agents[0].call("listen", arguments.clone());
    pod.listening(1, PORT);
    let kept = pod.connect(shared()).unwrap();
    for (slot, user) in [(1, 1000), (2, 101)] {
        pod.coming.insert("web".parse().unwrap(), user);
        pod.tell();
        users_are(&pod, user);
        agents[slot].call("listen", arguments.clone());
        pod.listening(slot + 1, PORT);
    }
    is_open(&kept);
}

/// Waits until all sockets of TCP, of IPv4, are this user's.
fn users_are(pod: &Pod, user: u32) {
    wait::until("the port is another user's", || {
        let seen = pod.inside(|| std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap());
        let listeners = seen.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        let users: BTreeSet<_> =
            listeners.filter(|row| row[3] == "0A").map(|row| row[7].to_owned()).collect();
        check(users == BTreeSet::from([user.to_string()]), &seen)
    });
}

/// An HTTP server of a user, started again as long as it does not get its port.
fn http_as(user: u32) -> Command {
    let server = http();
    let text = server.get_args().nth(1).unwrap().to_str().unwrap();
    python(&format!(
        "
import encodings.idna, http.server, os, signal, socket, sys, threading, time
while True:
    pid = os.fork()
    if not pid:
        os.setgid({user}), os.setuid({user})
        sys.stderr = open(os.devnull, 'w')
        exec(compile({text:?}, 'server', 'exec'), dict(globals()))
    os.waitpid(pid, 0)
    time.sleep(0.2)
"
    ))
}

#[test]
fn rollouts_from_user_to_user_and_back_lose_nothing_with_200_connections_open() {
    const REPLICAS: u32 = 2;
    const KEPT: usize = 200;
    let mut pod = Pod::new();
    pod.declared.insert(PORT);
    let (netns, stop) = (pod.netns(), AtomicBool::new(false));
    let (answered, failed) = (AtomicU32::new(0), AtomicU32::new(0));
    let work = || {
        netns.within(|| {
            while !stop.load(Ordering::Relaxed) {
                let answer = TcpStream::connect(shared()).and_then(|mut stream| ask(&mut stream));
                let is_answered = answer.as_ref().is_ok_and(|answer| !answer.is_empty());
                if !is_answered {
                    eprintln!("{answer:?}");
                }
                if is_answered { &answered } else { &failed }.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(2));
            }
            Ok(())
        })
    };
    let before = Counters::of(pod.sandbox()).unwrap();
    thread::scope(|scope| {
        let stop = StopAtEnd(&stop);
        let mut kept = Vec::new();
        let mut clients = Vec::new();
        for (round, user) in (0..).zip([0, 1000, 101, 1000, 0]) {
            let begun = Instant::now();
            let slots = |round: u32| round * REPLICAS + 1..=(round + 1) * REPLICAS;
            for slot in slots(round) {
                pod.start(slot, &mut http_as(user));
            }
            pod.listening(((round + 1) * REPLICAS) as usize, PORT);
            println!("user {user}: listens after {:?}", begun.elapsed());
            if round == 0 {
                clients.extend((0..4).map(|_| scope.spawn(work)));
            } else {
                // They keep their connections.
                slots(round - 1).for_each(|slot| pod.weighed(slot, 0));
            }
            for _ in 0..KEPT / 5 {
                let mut stream = pod.connect(shared()).unwrap();
                stay(&mut stream);
                kept.push(stream);
            }
            thread::sleep(Duration::from_millis(500));
        }
        assert_eq!(kept.len(), KEPT);
        kept.iter().for_each(is_open);
        drop(stop);
        clients.into_iter().for_each(|client| client.join().unwrap().unwrap());
    });
    let counted = Counters::of(pod.sandbox()).unwrap().since(&before);
    let (answered, failed) = (answered.into_inner(), failed.into_inner());
    println!("{answered} answered, {failed} failed, {KEPT} connections kept; {counted:?}");
    assert_eq!(failed, 0);
    assert!(answered > 500, "{answered}");
}

/// A replica asks for the port as ever other users, as fast as it can: it keeps nobody out for long, and takes little time.
#[test]
fn who_asks_as_ever_other_users_keeps_nobody_out() {
    for listening in [false, true] {
        let mut pod = Pod::new();
        pod.declared.insert(PORT);
        let mut agents = replicas(&mut pod);
        let arguments = json!({"address": "0.0.0.0", "port": PORT.1, "label": "server"});
        agents[1].call("listen", arguments.clone());
        pod.listening(1, PORT);
        let mut hostile = pod.beside(1, "");
        let attack = json!({"kind": "tcp", "address": "0.0.0.0", "port": PORT.1, "listening": listening});
        hostile.call("many_users", attack);
        thread::sleep(Duration::from_secs(1));
        let (before, begun) = (pod.steering.as_ref().unwrap().usage(), Instant::now());
        let mut took = Vec::new();
        for _ in 0..4 {
            let begun = Instant::now();
            let failures = listens(&mut agents[2], "listen", arguments.clone());
            took.push((failures, begun.elapsed()));
            agents[2].call("close", json!({"label": "server"}));
            agents[1].call("close", json!({"label": "server"}));
            listens(&mut agents[1], "listen", arguments.clone());
        }
        let used = (pod.steering.as_ref().unwrap().usage().cpu - before.cpu).as_secs_f64();
        let share = 100.0 * used / begun.elapsed().as_secs_f64();
        println!(
            "listening {listening}: refused so often, and for so long: {took:?}; {share:.1} % of a core"
        );
        assert!(took.iter().all(|(_, took)| *took < wait::slowly(Duration::from_secs(12))), "{took:?}");
        assert!(share < 20.0, "{share}");
        pod.listening(1, PORT);
    }
}
