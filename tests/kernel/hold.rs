//! Connections wait while no replica is ready.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::{
    pod::Pod,
    server::{PORT, http, shared},
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
