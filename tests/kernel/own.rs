//! What counts as a replica's own, however it has come to be, and whatever programs there are.

use std::{collections::BTreeMap, path::Path, process::Command};

use sameport::kernel::sockets::Transport;
use serde_json::{Value, json};

use super::{
    agent::{Agent, python},
    judge::{self, Question, port},
    localhost::{as_alone, listening},
    neighbours::{LOOPBACK, pod},
    network::{V4, V6},
    pod::Pod,
    server::{self, PORT, shared},
};

/// As with systemd, or an engine, in a container: there are groups below the replica's own.
#[test]
fn who_asks_and_who_serves_may_be_in_groups_of_their_own_below_the_replicas() {
    let mut pod = Pod::wired();
    let _first: Vec<_> = (1..=3).map(|slot| pod.agent(slot)).collect();
    pod.settled();
    let mut servers: Vec<_> = (1..=3).map(|slot| pod.beside(slot, "system.slice/web.service")).collect();
    servers.iter_mut().for_each(judge::serve);
    listening(&pod, 3);
    let mut clients: Vec<_> = (1..=3).map(|slot| pod.beside(slot, "user.slice")).collect();
    as_alone(&mut clients);
}

/// A program may listen before the supervisor has seen that its container runs.
#[test]
fn a_replica_that_listens_before_it_is_known_reaches_itself_once_it_is() {
    let mut pod = Pod::wired();
    let mut clients: Vec<_> = (1..=3).map(|slot| pod.untold(slot)).collect();
    let mut servers: Vec<_> = (1..=3).map(|slot| pod.beside(slot, "")).collect();
    servers.iter_mut().for_each(judge::serve);
    pod.tell();
    pod.settled();
    listening(&pod, 3);
    as_alone(&mut clients);
}

/// What of a replica's answers to itself was not its own.
fn not_own(agent: &mut Agent, places: &[(&str, u16)], how: &str) -> Vec<String> {
    let asked: Vec<_> = places.iter().map(|(to, port)| json!({"how": how, "to": to, "port": port})).collect();
    let told = agent.call("ask", json!({"questions": asked, "times": 6}));
    let all = asked.iter().zip(told.as_array().unwrap());
    let wrong = all.filter(|(_, told)| told[0][0] != agent.name.as_str() || told[1] != Value::Null);
    wrong.map(|(question, told)| format!("{}: {question}: {told}", agent.name)).collect()
}

#[test]
fn listeners_outlive_the_exec_of_another_program() {
    let (pod, mut servers, mut clients) = pod();
    judge::serve(&mut servers[2]);
    listening(&pod, 3);
    for server in &mut servers {
        server.call("become_another_program", json!({}));
    }
    let mut differ = vec![];
    for client in &mut clients {
        for how in ["tcp", "udp", "udp sendto"] {
            differ.extend(not_own(client, &LOOPBACK.map(|(number, to)| (to, port(number))), how));
        }
    }
    judge::none(27, &differ);
}

/// One made by a process in one of the replica's groups, as by a manager that opens ports for others.
#[test]
fn a_listener_handed_to_another_group_of_the_replica_stays_its_own() {
    let (pod, mut servers, mut clients) = pod();
    judge::serve(&mut servers[2]);
    listening(&pod, 3);
    let folder = tempfile::tempdir().unwrap();
    let mut workers: Vec<_> = (1..=3).map(|slot| pod.beside(slot, "worker")).collect();
    for (server, worker) in servers.iter_mut().zip(&mut workers) {
        hand(server, worker, "listen 3", &folder.path().join(&worker.name));
        hand(server, worker, "udp 3", &folder.path().join(format!("{} udp", worker.name)));
    }
    let mut differ = vec![];
    for client in &mut clients {
        for how in ["tcp", "udp", "udp sendto"] {
            differ.extend(not_own(client, &[("127.0.0.1", port(3))], how));
        }
    }
    judge::none(9, &differ);
}

fn hand(from: &mut Agent, to: &mut Agent, label: &str, path: &Path) {
    to.call("expect", json!({"path": path}));
    from.call("give", json!({"label": label, "path": path}));
    to.call("take", json!({"label": format!("{label} taken")}));
}

/// Whose it then is may be seen either way; it is not a third one's, and who still has one reaches that.
#[test]
fn a_listener_handed_to_another_replica_is_nobody_elses() {
    let (pod, mut servers, mut clients) = pod();
    judge::serve(&mut servers[2]);
    listening(&pod, 3);
    let folder = tempfile::tempdir().unwrap();
    servers[1].call("close", json!({"label": "listen 3"}));
    let (first, second) = servers.split_at_mut(1);
    hand(&mut first[0], &mut second[0], "listen 3", &folder.path().join("given"));
    let question = [Question { number: 3, how: "tcp", to: "127.0.0.1", from: None }];
    let seen = judge::ask(&mut clients, &question, 12);
    let mut differ = vec![];
    for (client, (seen, allowed)) in
        clients.iter().zip(seen.iter().zip([vec![Some("2"), None], vec![Some("2"), None], vec![Some("3")]]))
    {
        if !seen[0].keys().all(|(who, _)| allowed.contains(&who.as_deref())) {
            differ.push(format!("{}: expected {allowed:?}, got {}", client.name, judge::shown(&seen[0])));
        }
    }
    judge::none(3, &differ);
}

#[test]
fn servers_that_use_io_uring() {
    let mut pod = Pod::wired();
    let mut clients: Vec<_> = (1..=3).map(|slot| pod.agent(slot)).collect();
    pod.settled();
    let mut servers: Vec<_> = (1..=3).map(|slot| pod.beside(slot, "")).collect();
    let places = [("127.0.0.1", 7001), ("::1", 7002), (V4, 7003), (V6, 7004)];
    for server in &mut servers {
        for (address, port) in places {
            server.call("uring_listen", json!({"address": address, "port": port, "label": address}));
        }
    }
    places.iter().for_each(|(_, port)| pod.listening(3, (Transport::Tcp, *port)));
    let mut differ = vec![];
    for client in &mut clients {
        for how in ["tcp", "io_uring", "io_uring polled"] {
            differ.extend(not_own(client, &places, how));
        }
    }
    judge::none(36, &differ);
}

/// A server from Python's library, as anybody starts it, and one of its clients that knows only `localhost`.
#[test]
fn servers_of_the_library_are_reached_by_name() {
    const SERVERS: [&str; 3] = [
        "
import asyncio, os
async def answer(reader, writer):
    writer.write(os.environ['REPLICA'].encode()); await writer.drain(); writer.close()
async def main():
    server = await asyncio.start_server(answer, ['127.0.0.1', '::1'], 8080)
    await server.serve_forever()
asyncio.run(main())
",
        "
import os, socketserver
class Handler(socketserver.BaseRequestHandler):
    def handle(self): self.request.sendall(os.environ['REPLICA'].encode())
class Server(socketserver.ForkingTCPServer): allow_reuse_address = True
Server(('127.0.0.1', 8080), Handler).serve_forever()
",
        // Workers that inherit one listener, as those of many servers for the web.
        "
import os, socket
listener = socket.create_server(('127.0.0.1', 8080))
for _ in range(2): os.fork()
while True:
    connection, _ = listener.accept()
    connection.sendall(os.environ['REPLICA'].encode())
    connection.close()
",
    ];
    const CLIENT: &str = "
import os, socket, sys
for _ in range(12):
    with socket.create_connection(('localhost', 8080), 5) as c: text = c.recv(100).decode()
    print(text)
";
    let mut differ = vec![];
    for server in SERVERS {
        let mut pod = Pod::new();
        for slot in 1..=3 {
            pod.start(slot, &mut server::python(server));
        }
        pod.listening(3, PORT);
        for slot in 1..=3 {
            let told = pod.run(slot, Command::new(python()).args(["-c", CLIENT]));
            let mut seen = BTreeMap::<_, u32>::new();
            told.lines().for_each(|line| *seen.entry(line.to_owned()).or_default() += 1);
            if seen != BTreeMap::from([(slot.to_string(), 12)]) {
                differ.push(format!("{slot}: {seen:?} from {server}"));
            }
        }
        assert!(pod.connect(shared()).is_ok());
    }
    judge::none(9, &differ);
}
