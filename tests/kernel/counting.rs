//! Live connections of each replica: whatever happens to them, none is counted that is not there.

use std::{
    collections::BTreeMap,
    io::Write,
    net::{SocketAddr, TcpStream},
    ops::Range,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use sameport::kernel::{Counters, Netns};
use socket2::{Domain, Socket, Type};

use super::{
    network::{V4, V6, process},
    pod::Pod,
    server::{PORT, StopAtEnd, answers, ask, http, http_at, own, python, shared, stay},
    support::wait::{self, check},
};

/// After all that may be under way has come to an end, nobody has an open connection.
fn nothing_is_left(pod: &Pod) {
    wait::until("every count is 0", || {
        let traffic = pod.traffic(PORT);
        let nothing = traffic.values().all(|traffic| traffic.live == 0 && traffic.unfinished == 0);
        check(!traffic.is_empty() && nothing, traffic)
    });
}

#[test]
fn connections_are_counted_while_they_are_open_however_they_end() {
    let mut pod = Pod::new();
    pod.start(1, &mut http());
    pod.listening(1, PORT);
    let mut clients: Vec<_> = (0..9).map(|_| pod.connect(shared()).unwrap()).collect();
    clients.iter_mut().for_each(|client| drop(stay(client)));
    assert_eq!(pod.live(PORT)[&1], 9);
    // Three end in order, three by a reset, three half: the server is still there for them.
    for client in &clients[3..6] {
        rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO)).unwrap();
    }
    let half: Vec<_> = clients.drain(6..).collect();
    drop(clients);
    wait::until("six have ended", || check(pod.live(PORT)[&1] == 3, pod.traffic(PORT)));
    for client in &half {
        client.shutdown(std::net::Shutdown::Write).unwrap();
    }
    drop(half);
    nothing_is_left(&pod);
    assert_eq!(pod.traffic(PORT)[&1].total, 9);
}

/// Nobody can tell the replica that its clients are gone, and it would get no others as long as they count.
#[test]
fn connections_of_an_address_that_the_pod_has_lost_end_and_those_of_others_go_on() {
    let mut pod = Pod::wired();
    pod.start(1, &mut http_at("::", false));
    pod.listening(1, PORT);
    let ip = |script: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-ec", script]);
        assert!(process(pod.sandbox(), None, &shell).status().unwrap().success(), "{script}");
    };
    // It is not removed with the other, of which it would be a secondary address if it had its mask.
    let brief = "ip addr add 10.77.3.9/32 dev eth0";
    ip(brief);
    let outside = Netns::of(pod.outside_pid()).unwrap();
    let connect = |address: &str| {
        let address = SocketAddr::new(address.parse().unwrap(), PORT.1);
        let mut stream = outside.within(|| Ok(TcpStream::connect(address).unwrap())).unwrap();
        stay(&mut stream);
        stream
    };
    let lost = [V4, V4, V6].map(connect);
    let mut others = vec![connect("10.77.3.9"), pod.connect(shared()).unwrap()];
    stay(&mut others[1]);
    wait::until("five are counted", || check(pod.live(PORT)[&1] == 5, pod.traffic(PORT)));
    ip(&format!("ip addr del 10.77.3.9/32 dev eth0; {brief}"));
    ip(&format!(
        "ip addr del {V4}/24 dev eth0; ip addr del {V6}/64 dev eth0; ip addr add 10.77.3.3/24 dev eth0"
    ));
    wait::until("three have ended", || check(pod.live(PORT)[&1] == 2, pod.traffic(PORT)));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(pod.live(PORT)[&1], 2, "no others end");
    drop((others, lost));
    nothing_is_left(&pod);
}

/// Whoever asks a replica at its own address is a probe, or a health check of its own.
#[test]
fn connections_of_clients_that_are_broken_off_are_counted_and_others_are_not() {
    let mut pod = Pod::new();
    pod.start(1, &mut http());
    pod.listening(1, PORT);
    for (address, total, reset) in [(shared(), 3, 3), (own(1), 6, 3), (shared(), 9, 6)] {
        for _ in 0..3 {
            let mut client = pod.connect(address).unwrap();
            stay(&mut client);
            rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
        }
        nothing_is_left(&pod);
        let traffic = pod.traffic(PORT)[&1];
        assert_eq!((traffic.total, traffic.reset), (total, reset), "{address}");
    }
}

/// The first packet of a handshake, from an address to which no answer finds its way.
fn syn(from_port: u16) -> Vec<u8> {
    let (from, to) = ([192, 0, 2, 7], [127, 0, 0, 1]);
    let mut tcp = Vec::new();
    tcp.extend(from_port.to_be_bytes());
    tcp.extend(PORT.1.to_be_bytes());
    tcp.extend([0, 0, 0, 1, 0, 0, 0, 0]);
    // Five words long, SYN, a window, no checksum yet, nothing urgent.
    tcp.extend([0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    let pseudo = [&from[..], &to, &[0, 6, 0, 20], &tcp].concat();
    let mut sum: u32 = pseudo.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    tcp[16..18].copy_from_slice(&(!u16::try_from(sum).unwrap()).to_be_bytes());
    // The kernel fills in length, id and checksum of this header.
    let ip = [&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0][..], &from, &to].concat();
    [ip, tcp].concat()
}

/// Begins handshakes from these ports; the answers go nowhere.
fn begin_handshakes(ports: Range<u16>) {
    let route = std::process::Command::new("ip").args(["route", "add", "192.0.2.0/24", "dev", "lo"]).status();
    assert!(route.unwrap().success());
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(socket2::Protocol::from(255))).unwrap();
    for port in ports {
        raw.send_to(&syn(port), &shared().into()).unwrap();
    }
}

#[test]
fn half_open_connections_are_not_live() {
    let mut pod = Pod::new();
    pod.start(1, &mut http());
    pod.listening(1, PORT);
    let half_open = || {
        let table = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
        // State 03 is SYN_RECV.
        table.lines().filter(|line| line.split_whitespace().nth(3) == Some("03")).count()
    };
    let count = pod.inside(|| {
        begin_handshakes(30_000..30_020);
        half_open()
    });
    assert_eq!(count, 20, "they are half open");
    assert_eq!(pod.live(PORT)[&1], 0);
    pod.kill(1);
    pod.start(2, &mut http());
    pod.listening(1, PORT);
    nothing_is_left(&pod);
}

#[test]
fn handshakes_count_for_the_choice_until_they_are_forgotten() {
    let mut pod = Pod::new();
    pod.start(1, &mut http());
    pod.start(2, &mut http());
    pod.listening(2, PORT);
    pod.weighed(2, 0);
    pod.inside(|| begin_handshakes(30_000..30_032));
    pod.weighed(2, 100);
    // The one that has 32 handshakes under way gets nothing, and after some seconds its share.
    assert_eq!(answers(&pod, 8), BTreeMap::from([("2".to_owned(), 8)]));
    wait::until("the handshakes are forgotten", || {
        let answers = answers(&pod, 8);
        check(answers.len() == 2, answers)
    });
}

/// A server that ends each connection after one byte, and then waits for the client to do the same.
const ENDS_FIRST: &str = "
import os, socket
listener = socket.socket()
listener.bind(('', 8080))
listener.listen(128)
ended = []
while True:
    connection, _ = listener.accept()
    connection.sendall(os.environ['REPLICA'].encode())
    connection.shutdown(socket.SHUT_WR)
    ended.append(connection)
";

#[test]
fn connections_that_a_replica_has_ended_count_for_the_choice_no_more() {
    let mut pod = Pod::new();
    pod.start(1, &mut python(ENDS_FIRST));
    pod.start(2, &mut python(ENDS_FIRST));
    pod.listening(2, PORT);
    let connect = |pod: &Pod| {
        let mut client = pod.connect(shared()).unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut client, &mut text).unwrap();
        (client, text)
    };
    pod.weighed(2, 0);
    let ended: Vec<_> = (0..8).map(|_| connect(&pod)).collect();
    pod.weighed(2, 100);
    // They are open all the same: who is taken away waits for them.
    wait::until("all are open and ended", || {
        let traffic = pod.traffic(PORT)[&1];
        check((traffic.live, traffic.unfinished) == (8, 0), traffic)
    });
    let next: Vec<_> = (0..16).map(|_| connect(&pod)).collect();
    let by_first = next.iter().filter(|(_, replica)| replica == "1").count();
    assert!((4..=12).contains(&by_first), "{by_first} of {}", next.len());
    drop((ended, next));
}

/// A server that accepts one connection and no more: the others wait in its queue.
const IDLE: &str = "
import socket, time
listener = socket.socket()
listener.bind(('', 8080))
listener.listen(128)
time.sleep(600)
";

#[test]
fn a_connection_that_moves_on_is_counted_where_it_goes() {
    let mut pod = Pod::new();
    pod.start(1, &mut python(IDLE));
    pod.listening(1, PORT);
    let mut clients: Vec<_> = (0..20).map(|_| pod.connect(shared()).unwrap()).collect();
    for client in &mut clients {
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    }
    assert_eq!(pod.traffic(PORT)[&1].queue, 20);
    assert_eq!((pod.live(PORT)[&1], pod.traffic(PORT)[&1].unfinished), (20, 20));
    pod.start(2, &mut http());
    pod.listening(2, PORT);
    let before = Counters::of(pod.sandbox()).unwrap();
    pod.kill(1);
    let moved = Counters::of(pod.sandbox()).unwrap().since(&before);
    assert_eq!((moved.migrated, moved.lost_in_migration, moved.reset), (20, 0, 0));
    for client in &mut clients {
        let mut text = String::new();
        std::io::Read::read_to_string(client, &mut text).unwrap();
        assert!(text.ends_with('2'), "{text}");
    }
    drop(clients);
    nothing_is_left(&pod);
}

#[test]
fn under_load_with_deaths_the_counts_come_back_to_zero() {
    const KILLS: u32 = 6;
    /// Between two kills at least, however long that takes.
    const ANSWERS: u32 = 100;
    let mut pod = Pod::new();
    for slot in 1..=4 {
        pod.start(slot, &mut http());
    }
    pod.listening(4, PORT);
    let netns = pod.netns();
    let stop = AtomicBool::new(false);
    let (answered, lost) = (AtomicU32::new(0), AtomicU32::new(0));
    let polite = || {
        netns.within(|| {
            while !stop.load(Relaxed) {
                let mut stream = TcpStream::connect(shared()).unwrap();
                let is_answered = ask(&mut stream).is_ok_and(|answer| !answer.is_empty());
                if is_answered { &answered } else { &lost }.fetch_add(1, Relaxed);
            }
            Ok(())
        })
    };
    let rude = || {
        netns.within(|| {
            while !stop.load(Relaxed) {
                let stream = TcpStream::connect(shared()).unwrap();
                rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
            }
            Ok(())
        })
    };
    std::thread::scope(|scope| {
        // Ends the clients also when this thread fails.
        let stop = StopAtEnd(&stop);
        let mut clients = vec![scope.spawn(rude)];
        clients.extend((0..7).map(|_| scope.spawn(polite)));
        let more_are_answered = || {
            let before = answered.load(Relaxed);
            wait::until("more are answered", || {
                let now = answered.load(Relaxed);
                check(now >= before + ANSWERS, (before, now))
            });
        };
        for round in 0..KILLS {
            more_are_answered();
            let slot = 1 + round % 3;
            pod.kill(slot);
            pod.start(slot, &mut http());
        }
        more_are_answered();
        drop(stop);
        clients.into_iter().for_each(|client| client.join().unwrap().unwrap());
    });
    // What a killed replica was working on is lost with it: a request of each of seven clients at most.
    let lost = lost.into_inner();
    assert!(lost <= KILLS * 7, "{lost} lost, {answered:?} answered");
    nothing_is_left(&pod);
}

/// Where nobody else is, and nobody may wait.
#[test]
fn a_connection_that_cannot_move_on_is_reset_and_counted_as_lost() {
    let mut pod = Pod::new();
    pod.rules.hold = Duration::ZERO;
    pod.start(1, &mut python(IDLE));
    pod.listening(1, PORT);
    let clients: Vec<_> = (0..5).map(|_| pod.connect(shared()).unwrap()).collect();
    assert_eq!(pod.traffic(PORT)[&1].queue, 5);
    let before = Counters::of(pod.sandbox()).unwrap();
    pod.kill(1);
    for mut client in clients {
        let read = std::io::Read::read(&mut client, &mut [0]).unwrap_err();
        assert_eq!(read.kind(), std::io::ErrorKind::ConnectionReset);
    }
    let moved = Counters::of(pod.sandbox()).unwrap().since(&before);
    assert_eq!((moved.migrated, moved.lost_in_migration), (0, 5), "{moved:?}");
    wait::until("the report has them too", || {
        pod.traffic(PORT);
        let counters = pod.report().counters;
        check(counters.is_some_and(|now| now.since(&before).lost_in_migration == 5), counters)
    });
}
