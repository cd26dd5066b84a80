//! Connections wait while no replica is ready.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use sameport::kernel::{Netns, steering::Steering};

use super::{
    network,
    pod::Pod,
    server::{PORT, http, http_at, shared},
    support::wait::{self, check},
};

fn begin(pod: &Pod) -> TcpStream {
    let mut client = pod.connect(shared()).unwrap();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    client.set_read_timeout(Some(wait::slowly(Duration::from_secs(20)))).unwrap();
    client
}

fn served_once(hold: Duration) -> Pod {
    let mut pod = Pod::new();
    pod.declared.insert(PORT);
    pod.rules.hold = hold;
    pod.start(1, &mut http());
    pod.listening(1, PORT);
    wait::until("connections could wait", || {
        let report = pod.report();
        check(hold.is_zero() || report.waiting.contains_key(&PORT.1), report)
    });
    pod
}

#[test]
fn with_nobody_there_connections_wait_are_seen_and_are_answered_when_somebody_is_back() {
    let mut pod = served_once(Duration::from_secs(20));
    for _ in 0..2 {
        // Nothing has been told yet: the kernel itself sees that the listener is gone.
        pod.kill(1);
        let mut clients: Vec<_> = (0..25).map(|_| begin(&pod)).collect();
        wait::until("they are seen", || {
            pod.traffic(PORT);
            let report = pod.report();
            check(report.waiting.get(&PORT.1).is_some_and(|waiting| waiting.connections == 25), report)
        });
        pod.start(1, &mut http());
        for client in &mut clients {
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            assert!(text.ends_with('1'), "{text}");
        }
        wait::until("nobody waits any more", || {
            let report = pod.report();
            check(report.waiting[&PORT.1].connections == 0, report)
        });
    }
}

#[test]
fn who_has_waited_for_too_long_is_refused_and_not_left_hanging() {
    let mut pod = served_once(Duration::from_secs(1));
    pod.remove(1);
    let early = Instant::now();
    let mut first = begin(&pod);
    std::thread::sleep(Duration::from_millis(500));
    let late = Instant::now();
    let mut second = begin(&pod);
    for (client, begun) in [(&mut first, early), (&mut second, late)] {
        let error = client.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let waited = begun.elapsed();
        assert!(
            waited.as_millis() >= 900 && waited < wait::slowly(Duration::from_millis(2500)),
            "{waited:?}"
        );
    }
}

#[test]
fn without_a_hold_they_are_refused_at_once() {
    let mut pod = served_once(Duration::ZERO);
    pod.remove(1);
    wait::until("it is refused", || match pod.connect(shared()) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// What comes of a connection from another network, within that time.
fn from_outside(pod: &Pod, address: IpAddr, limit: Duration) -> Result<TcpStream, ErrorKind> {
    let connect = || Ok(TcpStream::connect_timeout(&(address, PORT.1).into(), limit));
    Netns::of(pod.outside_pid()).unwrap().within(connect).unwrap().map_err(|error| error.kind())
}

#[test]
fn before_anybody_listens_a_declared_port_is_silent_and_then_it_refuses() {
    let mut pod = Pod::wired();
    pod.declared.insert(PORT);
    let hold = wait::slowly(Duration::from_secs(3));
    pod.rules.hold = hold;
    let begun = Instant::now();
    pod.tell();
    pod.steering.as_ref().unwrap().look();
    let addresses = [network::V4, network::V6].map(|address| address.parse().unwrap());
    for address in addresses {
        assert_eq!(from_outside(&pod, address, hold / 6).unwrap_err(), ErrorKind::TimedOut, "{address}");
        // Who is in the pod himself sees that nobody listens.
        let inside = pod.inside(|| TcpStream::connect_timeout(&(address, PORT.1).into(), hold));
        assert_eq!(inside.unwrap_err().kind(), ErrorKind::ConnectionRefused, "{address}");
    }
    // A port that nobody has declared is left to the kernel.
    let other = || Ok(TcpStream::connect_timeout(&(addresses[0], PORT.1 + 1).into(), hold));
    let other = Netns::of(pod.outside_pid()).unwrap().within(other).unwrap();
    assert_eq!(other.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    for address in addresses {
        wait::until("it refuses", || match from_outside(&pod, address, hold / 6) {
            Err(ErrorKind::ConnectionRefused) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    assert!(begun.elapsed() >= hold, "{:?}", begun.elapsed());
}

/// Many clients, of whom each begins before anybody listens: none is refused.
#[test]
fn who_comes_before_the_first_replica_listens_is_answered_once_it_does() {
    let mut pod = Pod::wired();
    pod.declared.insert(PORT);
    pod.tell();
    pod.steering.as_ref().unwrap().look();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..20)
            .map(|number| {
                let pid = pod.outside_pid();
                scope.spawn(move || {
                    thread::sleep(Duration::from_millis(20 * number));
                    let address = if number % 2 == 0 { network::V4 } else { network::V6 };
                    let address: IpAddr = address.parse().unwrap();
                    let ask = || {
                        let limit = wait::slowly(Duration::from_secs(20));
                        let mut client =
                            TcpStream::connect_timeout(&(address, PORT.1).into(), limit).unwrap();
                        client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
                        let mut text = String::new();
                        client.read_to_string(&mut text).unwrap();
                        Ok(text)
                    };
                    Netns::of(pid).unwrap().within(ask).unwrap()
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(300));
        pod.start(1, &mut http_at("::", false));
        for client in clients {
            let text = client.join().unwrap();
            assert!(text.ends_with('1'), "{text}");
        }
    });
}

#[test]
fn the_queue_is_bounded_and_who_finds_it_full_is_refused() {
    let mut pod = served_once(Duration::from_secs(60));
    pod.remove(1);
    let (waiting, refused) = pod.inside(|| {
        let clients: Vec<_> =
            (0..1100).map(|_| TcpStream::connect_timeout(&shared(), Duration::from_secs(5))).collect();
        let refused = clients.iter().filter(|client| {
            client.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        });
        (clients.iter().filter(|client| client.is_ok()).count(), refused.count())
    });
    assert_eq!(waiting + refused, 1100);
    assert_eq!(waiting, 1024);
}
