//! The clients of these tests count honestly: a failure of each kind is seen as what it is.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    thread,
};

use socket2::SockRef;

use super::support::load::{self, Failure, Load};

/// A server that treats each connection in the same way.
fn server(treat: impl Fn(std::net::TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().flatten().for_each(treat));
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
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
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
