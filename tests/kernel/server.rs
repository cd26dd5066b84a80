//! Python's own servers, which know nothing of sharing, and clients.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use sameport::kernel::sockets::Transport;

use super::{pod::Pod, support::wait};

/// Where the servers listen.
pub const PORT: (Transport, u16) = (Transport::Tcp, 8080);

/// An HTTP server that answers with the name of its replica. A path `/stay` holds the connection open until the client
/// goes. SIGHUP makes it close its listener and open another one.
pub fn http() -> Command {
    python(
        "
import http.server, os, signal, socket, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = os.environ['REPLICA'].encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if self.path == '/stay':
            self.wfile.flush()
            self.rfile.read()
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True
    address_family = socket.AF_INET6 if ':' in os.environ.get('ADDRESS', '') else socket.AF_INET
    def handle_error(self, *_): pass
    def server_bind(self):
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(os.environ['ONLY6']))
        super().server_bind()
def serve():
    server = Server((os.environ.get('ADDRESS', ''), 8080), Handler)
    def reload(*_):
        threading.Thread(target=lambda: (server.shutdown(), server.server_close(), serve_again.set())).start()
    signal.signal(signal.SIGHUP, reload)
    server.serve_forever()
serve_again = threading.Event()
while True:
    serve_again.clear()
    serve()
    serve_again.wait()
",
    )
}

/// The same at an address, of IPv6 for that alone if so wanted.
pub fn http_at(address: &str, only_v6: bool) -> Command {
    let mut command = http();
    command.env("ADDRESS", address).env("ONLY6", u8::from(only_v6).to_string());
    command
}

/// A program in Python.
pub fn python(text: &str) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", text]);
    command
}

/// The port that all replicas share.
pub fn shared() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, PORT.1).into()
}

/// The port of one replica.
pub fn own(slot: u8) -> SocketAddr {
    (Ipv4Addr::new(127, 77, 0, slot), PORT.1).into()
}

/// Who answers on a connection.
pub fn ask(stream: &mut TcpStream) -> io::Result<String> {
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.rsplit("\r\n").next().unwrap_or_default().to_owned())
}

/// Opens a connection that stays open, and tells who has it.
pub fn stay(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(wait::slowly(Duration::from_secs(5)))).unwrap();
    stream.write_all(b"GET /stay HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    let mut buffer = [0; 512];
    while text.split_once("\r\n\r\n").is_none_or(|(_, body)| body.is_empty()) {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    text.rsplit("\r\n").next().unwrap().to_owned()
}

/// Sends so many requests, each on a connection of its own; who answered how many.
pub fn answers(pod: &Pod, requests: u32) -> BTreeMap<String, u32> {
    pod.inside(|| {
        let mut answers = BTreeMap::new();
        for _ in 0..requests {
            let mut stream = TcpStream::connect(shared()).unwrap();
            *answers.entry(ask(&mut stream).unwrap()).or_default() += 1;
        }
        answers
    })
}

/// Tells clients in other threads to stop, also when the thread that has it fails.
pub struct StopAtEnd<'a>(pub &'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
