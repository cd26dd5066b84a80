//! Who gets a connection.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use sameport::spec::Balance;

use super::{
    pod::Pod,
    server::{PORT, answers, ask, http, own, shared, stay},
    support::wait,
};

/// A pod with so many replicas that listen.
fn pod(replicas: u32, balance: Balance) -> Pod {
    let mut pod = Pod::new();
    pod.rules.balance = balance;
    for slot in 1..=replicas {
        pod.start(slot, &mut http());
    }
    pod.listening(replicas as usize, PORT);
    pod
}

#[test]
fn servers_that_do_not_share_take_turns() {
    let pod = pod(3, Balance::LeastConnections);
    let answers = answers(&pod, 90);
    assert_eq!(answers.len(), 3, "{answers:?}");
    // Each processor goes round by itself.
    assert!(answers.values().all(|count| (20..=40).contains(count)), "{answers:?}");
}

#[test]
fn long_connections_are_spread_exactly() {
    let pod = pod(4, Balance::LeastConnections);
    let mut clients = Vec::new();
    for round in 1..=3 {
        for _ in 0..4 {
            let mut client = pod.connect(shared()).unwrap();
            stay(&mut client);
            clients.push(client);
        }
        assert_eq!(pod.live(PORT).into_values().collect::<Vec<_>>(), [round; 4]);
    }
}

#[test]
fn the_least_loaded_gets_what_comes_by_its_weight() {
    let mut pod = pod(2, Balance::LeastConnections);
    pod.weighed(1, 300);
    let clients: Vec<_> = (0..40)
        .map(|_| {
            let mut client = pod.connect(shared()).unwrap();
            stay(&mut client);
            client
        })
        .collect();
    let live = pod.live(PORT);
    assert!((28..=32).contains(&live[&1]), "three to one of {}: {live:?}", clients.len());
    assert_eq!(live[&1] + live[&2], 40);
}

#[test]
fn hash_and_lot_go_by_weight_too() {
    for balance in [Balance::Hash, Balance::Random] {
        let mut pod = pod(2, balance);
        pod.weighed(2, 300);
        let answers = answers(&pod, 400);
        // 300 are expected; five standard deviations are 43.
        assert!((257..=343).contains(&answers["2"]), "{balance:?}: {answers:?}");
    }
}

#[test]
fn by_hash_the_same_addresses_and_ports_come_to_the_same_replica() {
    let pod = pod(3, Balance::Hash);
    let mut seen = BTreeMap::<u16, String>::new();
    for port in (20_000..20_012).chain(20_000..20_012) {
        let answer = pod.inside(|| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).unwrap();
            // The end comes from us, as a reset: the port is free again at once.
            socket.connect(&shared().into()).unwrap();
            let mut stream = TcpStream::from(socket);
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            let mut text = [0; 512];
            let mut length = 0;
            while !String::from_utf8_lossy(&text[..length]).contains("\r\n\r\n") || length == 0 {
                length += stream.read(&mut text[length..]).unwrap();
            }
            let rest = stream.read(&mut text[length..]).unwrap_or(0);
            let answer = String::from_utf8_lossy(&text[..length + rest]).into_owned();
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
            answer.rsplit("\r\n").next().unwrap().to_owned()
        });
        let before = seen.insert(port, answer.clone());
        assert!(before.is_none_or(|before| before == answer), "port {port}");
    }
    assert!(seen.values().collect::<std::collections::BTreeSet<_>>().len() > 1, "{seen:?}");
}

#[test]
fn who_is_not_ready_gets_nothing_and_connections_wait_for_who_is() {
    let mut pod = Pod::new();
    pod.declared.insert(PORT);
    pod.usual_weight = 0;
    pod.start(1, &mut http());
    pod.start(2, &mut http());
    pod.listening(2, PORT);
    let mut early = pod.connect(shared()).unwrap();
    early.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    early.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let answer = early.read(&mut [0; 100]);
    assert!(answer.is_err(), "{answer:?}: answered by one that is not ready");
    pod.weigh(2, 100);
    early.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut text = String::new();
    early.read_to_string(&mut text).unwrap();
    assert!(text.ends_with('2'), "{text}");
}

/// Programs may have to be reached there to get ready.
#[test]
fn what_nobody_has_declared_is_open_until_somebody_has_been_ready_and_then_as_what_is_declared() {
    let mut pod = Pod::new();
    pod.rules.gates_undeclared = false;
    pod.usual_weight = 0;
    pod.start(1, &mut http());
    pod.start(2, &mut http());
    pod.listening(2, PORT);
    let answer = |pod: &Pod| {
        let mut stream = pod.connect(shared()).unwrap();
        stream.set_read_timeout(Some(wait::slowly(Duration::from_millis(500)))).unwrap();
        ask(&mut stream).ok()
    };
    let answers = |pod: &Pod| (0..20).filter_map(|_| answer(pod)).collect::<BTreeSet<_>>();
    assert_eq!(answers(&pod).len(), 2);
    pod.rules.gates_undeclared = true;
    pod.weighed(1, 100);
    assert_eq!(answers(&pod), BTreeSet::from(["1".to_owned()]));
    pod.weighed(1, 0);
    assert_eq!(answer(&pod), None, "it waits for somebody who is ready");
}

/// From the first moment on: somebody tries all the time while the first replica comes up.
#[test]
fn not_even_the_first_listener_of_a_port_gets_a_connection_before_it_is_ready() {
    let mut pod = Pod::new();
    pod.declared.insert(PORT);
    pod.rules.hold = Duration::ZERO;
    pod.usual_weight = 0;
    pod.tell();
    std::thread::sleep(Duration::from_millis(100));
    let netns = pod.netns();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut connected = 0;
            netns
                .within(|| {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        connected += u32::from(TcpStream::connect(shared()).is_ok());
                    }
                    Ok(())
                })
                .unwrap();
            connected
        });
        for slot in 1..=3 {
            pod.start(slot, &mut http());
        }
        pod.listening(3, PORT);
        std::thread::sleep(Duration::from_millis(200));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(client.join().unwrap(), 0);
    });
}

#[test]
fn each_replica_is_reached_alone_and_ready_or_not() {
    let mut pod = pod(3, Balance::LeastConnections);
    pod.weighed(2, 0);
    for slot in 1..=3 {
        for _ in 0..10 {
            assert_eq!(ask(&mut pod.connect(own(slot)).unwrap()).unwrap(), slot.to_string());
        }
    }
    let nobody = pod.connect(own(4)).unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_weight_of_zero_acts_on_new_connections_within_ten_milliseconds_and_harms_no_old_one() {
    let mut pod = pod(2, Balance::LeastConnections);
    let mut old: Vec<_> = (0..6).map(|_| pod.connect(shared()).unwrap()).collect();
    let of_second: Vec<_> = old.iter_mut().map(|client| stay(client) == "2").collect();
    assert_eq!(of_second.iter().filter(|second| **second).count(), 3);
    for _ in 0..5 {
        pod.weigh(2, 0);
        std::thread::sleep(wait::slowly(Duration::from_millis(10)));
        let after = answers(&pod, 20);
        assert_eq!(after.keys().collect::<Vec<_>>(), ["1"], "{after:?}");
        pod.weigh(2, 100);
        std::thread::sleep(wait::slowly(Duration::from_millis(10)));
        let back = answers(&pod, 20);
        assert_eq!(back.len(), 2, "{back:?}");
    }
    for client in &mut old {
        client.set_nonblocking(true).unwrap();
        let error = client.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "the connection is as it was");
    }
}

/// The server closes its listener and opens another one, as a reload does.
#[test]
fn a_listener_that_is_opened_again_is_found_at_once() {
    let mut pod = pod(2, Balance::LeastConnections);
    pod.weighed(1, 0);
    for _ in 0..3 {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pod.pid(2)).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
        // Whoever comes in between waits, and is answered by it.
        let begin = std::time::Instant::now();
        while begin.elapsed() < Duration::from_millis(1500) {
            assert_eq!(answers(&pod, 1).keys().collect::<Vec<_>>(), ["2"]);
        }
    }
}
