//! Programs in a pod that want connections which are not theirs.

use std::{collections::BTreeMap, time::Duration};

use sameport::kernel::sockets::Transport;
use serde_json::{Value, json};

use super::{
    agent::Agent,
    judge::{self, Told},
    network::{V4, V6},
    pod::Pod,
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
        let told: Vec<Vec<Told>> =
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
    let (mut asked, mut differ) = (0, vec![]);
    for servers in SERVERS {
        let (pod, mut agents) = pod(servers);
        let mut clients = [pod.stranger(), pod.outside()];
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
    }
    judge::none(asked, &differ);
}
