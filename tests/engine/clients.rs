//! The clients of these tests count honestly: a failure of each kind is seen as what it is.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener},
    thread,
};

use socket2::{Domain, SockRef, Socket, Type};

use super::support::load::{self, Failure, Load, Report, kept::Kept};

/// A server that treats each connection in the same way.
fn server(replace_unhealthy: impl Fn(std::net::TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().flatten().for_each(replace_unhealthy));
    address
}

fn answering(answer: &'static str) -> SocketAddr {
    server(move |mut stream| {
        let _ = stream.read(&mut [0; 1024]).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
    })
}

#[test]
fn an_answer_names_its_replica() {
    let address = answering("HTTP/1.1 200 OK\r\nX-Replica: 3\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(load::request(address), Ok("3".to_owned()));
}

#[test]
fn a_failure_is_told_by_its_kind() {
    // Who has a port and does not listen keeps others from listening on it.
    let owner = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    owner.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let nobody = owner.local_addr().unwrap().as_socket().unwrap();
    let reset = server(|stream| SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap());
    for (address, expected) in [
        (nobody, Failure::Refused),
        (reset, Failure::Reset),
        (answering(""), Failure::CutShort),
        (answering("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"), Failure::CutShort),
        (
            answering("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"),
            Failure::Status("HTTP/1.1 502 Bad Gateway".to_owned()),
        ),
    ] {
        assert_eq!(load::request(address), Err(expected));
    }
}

#[test]
fn a_load_reports_every_request() {
    let address = answering("HTTP/1.1 200 OK\r\nX-Replica: 1\r\n\r\n");
    let load = Load::start(address, 200);
    thread::sleep(std::time::Duration::from_millis(500));
    let report = load.finish();
    assert!(report.failures.is_empty(), "{report}");
    assert!((20..=110).contains(&report.answered()), "{report}");
}

/// A server that answers each request on a connection with the next of these, and then ends the connection.
fn keeping(answers: &'static [&'static str], reset: bool) -> SocketAddr {
    server(move |mut stream| {
        for answer in answers {
            let _ = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
        // One that is closed with something unread in it is broken off, and so is one that is sent something after it.
        if reset {
            stream.peek(&mut [0]).unwrap();
        } else {
            stream.shutdown(Shutdown::Write).unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
        }
    })
}

/// What two requests of a client that keeps its connection come to, and how often it found that closed.
fn twice(address: SocketAddr) -> ([Result<String, Failure>; 2], u32) {
    let (mut client, mut report) = (Kept::new(address, "/"), Report::default());
    ([(); 2].map(|()| client.request(&mut report)), report.closed)
}

#[test]
fn a_kept_connection_that_is_closed_is_no_failure_and_one_that_is_broken_off_is() {
    const ONE: &str = "HTTP/1.1 200 OK\r\nX-Replica: 1\r\nContent-Length: 2\r\n\r\nok";
    const TWO: &str = "HTTP/1.1 200 OK\r\nX-Replica: 2\r\nContent-Length: 2\r\n\r\nok";
    const LAST: &str = "HTTP/1.1 200 OK\r\nX-Replica: 1\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    const PART: &str = "HTTP/1.1 200 OK\r\nX-Replica: 2\r\nContent-Length: 9\r\n\r\nok";
    let ok = |replica: &str| Ok(replica.to_owned());
    for (address, second, closed) in [
        (keeping(&[ONE, TWO], false), ok("2"), 0),
        (keeping(&[ONE], false), ok("1"), 1),
        (keeping(&[LAST], false), ok("1"), 0),
        (keeping(&[ONE], true), Err(Failure::Reset), 0),
        (keeping(&[ONE, PART], false), Err(Failure::CutShort), 0),
    ] {
        assert_eq!(twice(address), ([ok("1"), second], closed));
    }
    assert_eq!(twice(answering("")), ([Err(Failure::CutShort), Err(Failure::CutShort)], 0));
}
