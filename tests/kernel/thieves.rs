//! Programs in a pod that want connections which are not theirs.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, TcpStream},
    thread,
    time::Duration,
};

use sameport::kernel::{capability, sockets::Transport, steering::KernelSteering};
use serde_json::{Value, json};

use super::{
    agent::Agent,
    judge::{self, Outcome},
    network::{V4, V6},
    pod::{Pod, id},
    support::wait::{self, check},
};

const PORT: u16 = 8080;
const TCP: (Transport, u16) = (Transport::Tcp, PORT);
/// What everybody listens on.
const SERVERS: [(&str, u8); 3] = [("0.0.0.0", 0), ("::", 0), ("::", 1)];
const INSIDE: [&str; 4] = ["127.0.0.1", V4, "::1", V6];

/// Two replicas that serve, and a third one, to which nothing new goes.
fn pod((address, v6only): (&str, u8)) -> (Pod, Vec<Agent>) {
    let mut pod = Pod::wired();
    pod.declared = [TCP].into();
    // What nobody may take is refused at once.
    pod.rules.hold = Duration::ZERO;
    let mut servers: Vec<_> = (1..=3).map(|slot| pod.agent(slot)).collect();
    pod.settled();
    for server in &mut servers {
        let place = json!({"address": address, "port": PORT, "label": "usual", "v6only": v6only});
        server.call("listen", place);
    }
    pod.listening(3, TCP);
    pod.weighed(3, 0);
    (pod, servers)
}

/// Who answers whoever asks from without the replicas, at all addresses where somebody listens.
fn answers(clients: &mut [Agent; 2], times: u32) -> BTreeMap<String, u64> {
    let mut seen = BTreeMap::new();
    for (agent, addresses) in clients.iter_mut().zip([&INSIDE[..], &[V4, V6]]) {
        let questions: Vec<_> =
            addresses.iter().map(|to| json!({"how": "tcp", "to": to, "port": PORT})).collect();
        let told: Vec<Vec<Outcome>> =
            serde_json::from_value(agent.call("ask", json!({"questions": questions, "times": times})))
                .unwrap();
        for (who, _, text, count) in told.into_iter().flatten() {
            *seen.entry(who.unwrap_or(text)).or_default() += count;
        }
    }
    // Where nobody takes an address's family.
    seen.remove("ECONNREFUSED");
    seen
}

/// What a thief does, by a name.
fn ways() -> Vec<(String, &'static str, Value)> {
    let mut ways = Vec::new();
    for index in 0..4 {
        for function in ["attach_cbpf", "attach_ebpf"] {
            ways.push((format!("{function} {index}"), function, json!({"label": "usual", "index": index})));
        }
    }
    ways.push(("detach".to_owned(), "detach", json!({"label": "usual"})));
    let places = ["0.0.0.0", "127.0.0.1", V4, "::", "::1", V6];
    for (address, v6only) in places.iter().flat_map(|place| [(place, 0), (place, 1)]) {
        for device in ["", "lo", "eth0"] {
            for reuseport in [0, 1] {
                let label = format!("{address} {v6only} {device} {reuseport}");
                let place = json!({"address": address, "port": PORT, "label": label, "v6only": v6only,
                    "device": device, "reuseport": reuseport});
                ways.push((label, "listen", place));
            }
        }
    }
    ways
}

#[test]
fn a_replica_that_drains_gets_nothing_whatever_it_does() {
    drained_gets_nothing(|_| {});
}

/// What nobody is told of any more has no effect either.
#[test]
fn nor_does_it_once_the_supervisor_is_gone() {
    drained_gets_nothing(|pod| pod.steering = None);
}

fn drained_gets_nothing(prepare: impl Fn(&mut Pod)) {
    let (mut asked, mut differ) = (0, vec![]);
    for servers in SERVERS {
        let (mut pod, mut agents) = pod(servers);
        prepare(&mut pod);
        let mut clients = [pod.foreign(), pod.outside()];
        for (way, function, arguments) in ways() {
            // Much is refused.
            let done = agents[2].try_to(function, arguments);
            assert!(function == "listen" || done.is_ok(), "{way} is not tried: {done:?}");
            let seen = answers(&mut clients, 4);
            asked += 1;
            if seen.len() != 2 || !seen.contains_key("1") || !seen.contains_key("2") {
                differ.push(format!("{servers:?}: {way} ({done:?}): {seen:?}"));
            }
        }
        // Whoever takes over lets go of all.
        if pod.steering.is_none() {
            pod.steering = Some(KernelSteering::start(&pod.project).unwrap());
        }
    }
    judge::none(asked, &differ);
}

/// What gives the choice among all listeners of a group to another program, or to nobody, and what comes of it.
fn programs() -> Vec<(&'static str, Value, &'static [&'static str])> {
    const OK: &[&str] = &["ok"];
    // Before Linux 6.7 io_uring has no such operation.
    const BY_RING: &[&str] = &["ok", "EPERM", "ENOTSUP"];
    let ring = |how| json!({"label": "usual", "how": how});
    let mut programs = vec![
        ("detach", json!({"label": "usual"}), OK),
        ("detach_by_io_uring", ring("io_uring"), BY_RING),
        ("detach_by_io_uring", ring("io_uring polled"), BY_RING),
    ];
    // What makes the others succeed without effect does not see these.
    if sees_other_architectures() {
        programs.push(("detach_as_32_bit", json!({"label": "usual"}), &["EPERM"]));
    }
    for index in 0..4 {
        for function in ["attach_cbpf", "attach_ebpf"] {
            programs.push((function, json!({"label": "usual", "index": index}), OK));
        }
    }
    programs
}

/// Whether what stands in front of all calls of setsockopt(2) is attached. Some hosts forbid programs that trace their kernel; in
/// a machine of our own (`tests/vm/kernel/main`) nothing is forbidden.
fn sees_other_architectures() -> bool {
    let link = capability::mounted("bpf").unwrap().join("sameport/_host_2/link_sameport_compat");
    let is_there = link.exists();
    assert!(
        is_there || env::var_os("SAMEPORT_NOTHING_IS_FORBIDDEN").is_none(),
        "{} is missing",
        link.display()
    );
    is_there
}

/// Of connections that wait at a replica that ends, a thief gets none: they move on to who is ready.
#[test]
fn what_moves_on_goes_to_who_is_ready_whatever_program_is_attached() {
    let mut pod = Pod::new();
    let thefts: Vec<_> = [true, false]
        .into_iter()
        .flat_map(|is_replica| programs().into_iter().map(move |way| (is_replica, way)))
        .collect();
    // On a port each, so that what one has done is nothing to the next.
    let ports: Vec<u16> = (PORT..).take(thefts.len()).collect();
    pod.declared = ports.iter().map(|port| (Transport::Tcp, *port)).collect();
    let mut servers: Vec<_> = (1..=3).map(|slot| pod.agent(slot)).collect();
    pod.settled();
    let mut foreign = pod.foreign();
    let mut differ = vec![];
    for ((is_replica, (function, arguments, expected)), port) in thefts.iter().zip(&ports) {
        let (done, who) =
            steal(&mut pod, &mut servers, &mut foreign, *is_replica, function, arguments, *port);
        if who != BTreeMap::from([("2".to_owned(), 2 * WAIT)]) || !expected.contains(&done.as_str()) {
            differ.push(format!("{function} {arguments} by a replica: {is_replica}: {done}: {who:?}"));
        }
    }
    judge::none(thefts.len(), &differ);
    wait::until("it is told who tried", || {
        pod.tell();
        let told = pod.report().ignored_programs;
        check(told.keys().eq([&None, &Some(id(3))]), told)
    });
}

const WAIT: usize = 12;

/// What a theft gives while connections wait at the first of two replicas, which then ends, and who answers them.
fn steal(
    pod: &mut Pod,
    servers: &mut [Agent],
    foreign: &mut Agent,
    is_replica: bool,
    function: &str,
    arguments: &Value,
    port: u16,
) -> (String, BTreeMap<String, usize>) {
    let place = json!({"address": "0.0.0.0", "port": port, "label": "usual", "serve": false, "backlog": 100});
    let label = json!({"label": "usual"});
    for server in &mut *servers {
        server.call("listen", place.clone());
    }
    pod.listening(3, (Transport::Tcp, port));
    pod.weighed(3, 0);
    let mut shared = place;
    shared["reuseport"] = json!(1);
    foreign.call("listen", shared);
    let clients: Vec<_> = (0..2 * WAIT).map(|_| pod.connect((Ipv4Addr::LOCALHOST, port)).unwrap()).collect();
    let thief = if is_replica { &mut servers[2] } else { &mut *foreign };
    let done = thief.try_to(function, arguments.clone()).map_or_else(|error| error, |_| "ok".to_owned());
    servers[0].call("close", label.clone());
    for agent in servers[1..].iter_mut().chain([&mut *foreign]) {
        agent.call("serve", label.clone());
    }
    // Each server answers the next one when the one before has gone.
    let readers: Vec<_> = clients.into_iter().map(|client| thread::spawn(move || answer(&client))).collect();
    let mut who = BTreeMap::new();
    for reader in readers {
        *who.entry(reader.join().unwrap()).or_default() += 1;
    }
    for agent in servers[1..].iter_mut().chain([foreign]) {
        agent.call("close", label.clone());
    }
    (done, who)
}

fn answer(client: &TcpStream) -> String {
    client.set_read_timeout(Some(wait::slowly(Duration::from_secs(5)))).unwrap();
    let mut line = String::new();
    match BufReader::new(client).read_line(&mut line) {
        Ok(_) if !line.is_empty() => {
            serde_json::from_str::<Value>(&line).unwrap()["who"].as_str().unwrap().to_owned()
        }
        Ok(_) => "closed".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// Outside of pods nothing changes: what is attached chooses, and values beyond a page arrive as they were.
#[test]
fn elsewhere_options_have_their_effect() {
    let pod = Pod::wired();
    let mut agent = pod.outside();
    let place = |label: &str| json!({"address": "0.0.0.0", "port": PORT, "label": label, "reuseport": 1});
    for label in ["usual", "other"] {
        agent.call("listen", place(label));
    }
    for (index, label) in ["usual", "other"].iter().enumerate() {
        for function in ["attach_cbpf", "attach_ebpf"] {
            agent.call(function, json!({"label": "usual", "index": index}));
            let questions = json!([{"how": "tcp", "to": "127.0.0.1", "port": PORT}]);
            let told: Vec<Vec<Outcome>> =
                serde_json::from_value(agent.call("ask", json!({"questions": questions, "times": 8})))
                    .unwrap();
            assert_eq!(told[0].len(), 1, "{function} {index}: {told:?}");
            assert_eq!(&told[0][0].1, label, "{function} {index}: {told:?}");
        }
    }
    assert_eq!(agent.call("long_option", json!({})), json!("lo"));
}
