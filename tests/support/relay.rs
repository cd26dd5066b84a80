//! A relay between sameport and an engine, which does to answers what an engine, or a proxy before it, does that is at fault.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

/// What becomes of answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They come as they are.
    None,
    /// Each comes that much later.
    Late(Duration),
    /// The connection ends in the middle of each.
    BrokenOff,
    /// Each is an error of the server that says nothing else.
    Error,
    /// Lists of containers are empty.
    EmptyList,
    /// Lists of containers lack the one with that id.
    ListWithout(String),
}

/// A socket behind which there is an engine.
pub struct Relay {
    folder: TempDir,
    inner: Arc<Inner>,
    listening: Option<JoinHandle<()>>,
}

struct Inner {
    engine: PathBuf,
    fault: Mutex<Fault>,
    /// Connections that may still be open.
    open: Mutex<Vec<UnixStream>>,
    ends: AtomicBool,
}

impl Relay {
    /// One to the engine behind that socket. No answer is at fault yet.
    pub fn to(engine: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("spr").tempdir_in("/tmp").unwrap();
        let listener = UnixListener::bind(folder.path().join("relay.sock")).unwrap();
        let inner = Arc::new(Inner {
            engine: engine.to_owned(),
            fault: Mutex::new(Fault::None),
            open: Mutex::default(),
            ends: AtomicBool::new(false),
        });
        let own = Arc::clone(&inner);
        let listening = thread::spawn(move || own.listen(&listener));
        Self { folder, inner, listening: Some(listening) }
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("relay.sock")
    }

    /// What becomes of answers from now on.
    pub fn set(&self, fault: Fault) {
        *self.inner.fault.lock().unwrap() = fault;
    }

    /// Breaks off all connections that there are, such as streams of events.
    pub fn break_off(&self) {
        for stream in self.inner.open.lock().unwrap().drain(..) {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.inner.ends.store(true, Ordering::Relaxed);
        // So that it does not wait for somebody to come.
        let _ = UnixStream::connect(self.socket());
        self.listening.take().map(JoinHandle::join);
        self.break_off();
    }
}

impl Inner {
    fn listen(self: Arc<Self>, listener: &UnixListener) {
        for client in listener.incoming() {
            if self.ends.load(Ordering::Relaxed) {
                return;
            }
            let (own, client) = (Arc::clone(&self), client.unwrap());
            // Whoever breaks off a connection, sameport or the engine, has a reason.
            thread::spawn(move || own.relay(client).unwrap_or_default());
        }
    }

    fn relay(&self, mut client: UnixStream) -> io::Result<()> {
        let request = read_head(&mut client)?;
        let fault = self.fault.lock().unwrap().clone();
        if fault == Fault::Error {
            return answer(&mut client, "500 Internal Server Error", b"Internal Server Error");
        }
        let mut engine = UnixStream::connect(&self.engine)?;
        self.open.lock().unwrap().extend([client.try_clone()?, engine.try_clone()?]);
        let is_list = request.contains("/containers/json");
        match fault {
            Fault::EmptyList | Fault::ListWithout(_) if is_list => {
                engine.write_all(once(&request).as_bytes())?;
                let mut whole = Vec::new();
                engine.read_to_end(&mut whole)?;
                let list = shortened(&body(&whole), &fault);
                return answer(&mut client, "200 OK", list.to_string().as_bytes());
            }
            Fault::BrokenOff => {
                engine.write_all(once(&request).as_bytes())?;
                forward(&client, &engine)?;
                let mut piece = vec![0; 1 << 16];
                let length = engine.read(&mut piece)?;
                client.write_all(&piece[..length / 2])?;
                engine.shutdown(Shutdown::Both)?;
                return client.shutdown(Shutdown::Both);
            }
            Fault::None | Fault::Late(_) | Fault::Error | Fault::EmptyList | Fault::ListWithout(_) => {}
        }
        engine.write_all(request.as_bytes())?;
        forward(&client, &engine)?;
        if let Fault::Late(time) = fault {
            thread::sleep(time);
        }
        io::copy(&mut engine, &mut client)?;
        client.shutdown(Shutdown::Write)
    }
}

/// Has what one side sends come to the other one, in a thread of its own.
fn forward(from: &UnixStream, to: &UnixStream) -> io::Result<()> {
    let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
    thread::spawn(move || {
        // One of them has ended.
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    Ok(())
}

/// A request up to its body.
fn read_head(client: &mut UnixStream) -> io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    String::from_utf8(head).map_err(io::Error::other)
}

/// The same request on a connection that ends with the answer.
fn once(request: &str) -> String {
    request.replacen("\r\n", "\r\nConnection: close\r\n", 1)
}

/// What an engine's whole answer holds, which may come in pieces.
fn body(answer: &[u8]) -> Value {
    let answer = String::from_utf8_lossy(answer);
    let (head, mut rest) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if !head.to_lowercase().contains("transfer-encoding: chunked") {
        return serde_json::from_str(rest).unwrap();
    }
    let mut text = String::new();
    while let Some((length, pieces)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        text.push_str(&pieces[..length]);
        rest = pieces[length..].trim_start_matches("\r\n");
    }
    serde_json::from_str(&text).unwrap()
}

fn shortened(list: &Value, fault: &Fault) -> Value {
    let rows = list.as_array().unwrap();
    let is_listed = |row: &&Value| match fault {
        Fault::ListWithout(id) => row["Id"] != id.as_str(),
        _ => false,
    };
    rows.iter().filter(is_listed).cloned().collect()
}

fn answer(client: &mut UnixStream, status: &str, body: &[u8]) -> io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    client.write_all(head.as_bytes())?;
    client.write_all(body)
}
