//! Who gets a connection.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Command,
};

use super::pod::Pod;
use sameport::kernel::sockets::Transport;

const PORT: (Transport, u16) = (Transport::Tcp, 8080);

/// Python's own server, which knows nothing of sharing: it answers with the name of its replica.
fn server() -> Command {
    let mut command = Command::new("python3");
    command.args([
        "-c",
        "
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = os.environ['REPLICA'].encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(('', 8080), Handler).serve_forever()
",
    ]);
    command
}

fn ask(mut stream: TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.rsplit("\r\n").next().unwrap().to_owned()
}

fn shared() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 8080).into()
}

#[test]
fn three_servers_that_do_not_share_take_turns() {
    let mut pod = Pod::new();
    for slot in 1..=3 {
        pod.start(slot, &mut server());
    }
    pod.listening(3, PORT);
    let mut answers = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..90 {
        *answers.entry(ask(pod.connect(shared()).unwrap())).or_default() += 1;
    }
    eprintln!("{answers:?}");
    eprintln!("{:#?}", pod.report());
    assert_eq!(answers.len(), 3, "{answers:?}");
    for slot in 1..=3 {
        let own = (Ipv4Addr::new(127, 77, 0, slot), 8080);
        for _ in 0..10 {
            assert_eq!(ask(pod.connect(own).unwrap()), slot.to_string());
        }
    }
}

#[test]
fn who_is_not_ready_gets_nothing_and_connections_wait_for_who_is() {
    let mut pod = Pod::new();
    pod.declared.insert(PORT);
    pod.usual_weight = 0;
    pod.start(1, &mut server());
    pod.start(2, &mut server());
    pod.listening(2, PORT);
    let mut early = pod.connect(shared()).unwrap();
    early.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    early.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
    let answer = early.read(&mut [0; 100]);
    assert!(answer.is_err(), "{answer:?}: answered by one that is not ready");
    pod.weigh(2, 100);
    early.set_read_timeout(None).unwrap();
    let mut text = String::new();
    early.read_to_string(&mut text).unwrap();
    assert!(text.ends_with('2'), "{text}");
}
