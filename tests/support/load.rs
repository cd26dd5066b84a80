//! Clients that open a connection per request, as every new visitor does, or keep one, and count honestly.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Read, Write},
    mem,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

pub mod kept;

/// How long a client waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How many clients with a connection per request send at once.
pub const CLIENTS: u32 = 4;

/// Why a request got no answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// Nobody listened.
    Refused,
    /// The connection was broken off.
    Reset,
    /// Nothing came in time.
    TimedOut,
    /// The connection was closed before the whole answer.
    CutShort,
    /// An answer, and not a good one.
    Status(String),
    /// Anything else.
    Other(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, TimedOut, WouldBlock};
        match error.kind() {
            ConnectionRefused => Self::Refused,
            ConnectionReset | BrokenPipe => Self::Reset,
            TimedOut | WouldBlock => Self::TimedOut,
            _ => Self::Other(error.to_string()),
        }
    }
}

/// How it went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Good answers, by the replica that gave them.
    pub answers: BTreeMap<String, u32>,
    /// Requests that failed, and when, from the beginning on.
    pub failures: Vec<(Duration, Failure)>,
    /// How often a kept connection was found closed, and its request was sent again on a new one.
    pub closed: u32,
}

impl Report {
    /// How many requests were answered.
    pub fn answered(&self) -> u32 {
        self.answers.values().sum()
    }

    /// Adds what others saw.
    pub fn merge(&mut self, other: Self) {
        for (replica, count) in other.answers {
            *self.answers.entry(replica).or_default() += count;
        }
        self.failures.extend(other.failures);
        self.failures.sort();
        self.closed += other.closed;
    }

    fn note(&mut self, begin: Instant, result: Result<String, Failure>) {
        match result {
            Ok(replica) => *self.answers.entry(replica).or_default() += 1,
            Err(failure) => self.failures.push((begin.elapsed(), failure)),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answered {:?}, {} failed", self.answered(), self.answers, self.failures.len())?;
        writeln!(f, ", {} closed", self.closed)?;
        self.failures.iter().try_for_each(|(at, failure)| writeln!(f, "  after {at:.1?}: {failure:?}"))
    }
}

/// Sends one request on a connection of its own, and returns the name of the replica that answered.
pub fn request(address: SocketAddr) -> Result<String, Failure> {
    request_path(address, "/get")
}

/// Sends one request for that path on a connection of its own, and returns the name of the replica that answered.
pub fn request_path(address: SocketAddr, path: &str) -> Result<String, Failure> {
    ask(connect(address)?, path)
}

fn ask(mut stream: TcpStream, path: &str) -> Result<String, Failure> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let answer = Answer::read(&bytes).ok_or(Failure::CutShort)?;
    if answer.length.is_some_and(|length| answer.body < length) {
        return Err(Failure::CutShort);
    }
    answer.replica()
}

fn connect(address: SocketAddr) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The head of an answer, and how much of its body there is.
struct Answer {
    status: String,
    replica: Option<String>,
    /// How long the body is going to be, if the head says so.
    length: Option<usize>,
    /// Whether the connection ends with it.
    ends: bool,
    body: usize,
}

impl Answer {
    /// Nothing, as long as the head is not whole.
    fn read(bytes: &[u8]) -> Option<Self> {
        let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let text = String::from_utf8_lossy(&bytes[..head]);
        let header = |name: &str| {
            text.lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.to_owned())
        };
        Some(Self {
            status: text.lines().next().unwrap_or_default().to_owned(),
            replica: header("X-Replica"),
            length: header("Content-Length").and_then(|length| length.parse().ok()),
            ends: header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close")),
            body: bytes.len() - head - 4,
        })
    }

    /// Who gave it, if it is a good one.
    fn replica(self) -> Result<String, Failure> {
        match self.status.contains(" 200 ") {
            true => Ok(self.replica.unwrap_or_default()),
            false => Err(Failure::Status(self.status)),
        }
    }
}

/// Asks a Redis of `tests/images/redis` on a connection of its own, and returns the name of the replica that answered.
pub fn request_redis(address: SocketAddr) -> Result<String, Failure> {
    let mut stream = connect(address)?;
    stream.write_all(b"GET replica\r\nQUIT\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    match text.split("\r\n").collect::<Vec<_>>().as_slice() {
        [_, replica, "+OK", ""] => Ok((*replica).to_owned()),
        [""] => Err(Failure::CutShort),
        _ => Err(Failure::Status(text)),
    }
}

/// Does so many requests, one after the other, and so long apart that a server which has to wait for a processor in
/// between is not taken for a busy one by the next.
pub fn one_by_one(requests: u32, request: impl Fn() -> Result<String, Failure>) -> Report {
    const APART: Duration = Duration::from_millis(10);
    let begin = Instant::now();
    let mut report = Report::default();
    for _ in 0..requests {
        report.note(begin, request());
        thread::sleep(APART);
    }
    report
}

/// Opens so many connections, and only then sends a request on each.
pub fn at_once(address: SocketAddr, requests: u32) -> Report {
    let begin = Instant::now();
    let streams: Vec<_> = (0..requests).map(|_| connect(address)).collect();
    let mut report = Report::default();
    streams.into_iter().for_each(|stream| report.note(begin, stream.and_then(|stream| ask(stream, "/get"))));
    report
}

/// Sends so many requests, one after the other.
pub fn send(address: SocketAddr, requests: u32) -> Report {
    let begin = Instant::now();
    let mut report = Report::default();
    (0..requests).for_each(|_| report.note(begin, request(address)));
    report
}

/// Requests at a constant rate from threads of their own, until it is told to stop.
pub struct Load {
    begin: Instant,
    stop: Arc<AtomicBool>,
    clients: Vec<Client>,
}

/// A client in a thread of its own.
struct Client {
    thread: JoinHandle<()>,
    seen: Arc<Mutex<Seen>>,
}

/// What a client saw.
#[derive(Default)]
struct Seen {
    /// Since somebody took it last.
    report: Report,
    /// How many requests are over, however they ended.
    requests: u64,
    /// Who answered last.
    last: Option<String>,
}

impl Load {
    /// Begins to send `rate` requests a second.
    pub fn start(address: SocketAddr, rate: u32) -> Self {
        Self::of(rate, move || request(address))
    }

    /// Begins to send, each client after it has run `enter`.
    pub fn start_in(address: SocketAddr, rate: u32, enter: impl Fn() + Clone + Send + 'static) -> Self {
        Self::of_in(rate, move || request(address), enter)
    }

    /// Begins to do `rate` requests of any kind a second.
    pub fn of(rate: u32, request: impl Fn() -> Result<String, Failure> + Clone + Send + 'static) -> Self {
        Self::of_in(rate, request, || ())
    }

    fn of_in(
        rate: u32,
        request: impl Fn() -> Result<String, Failure> + Clone + Send + 'static,
        enter: impl Fn() + Clone + Send + 'static,
    ) -> Self {
        Self::with(CLIENTS, rate, move || {
            enter();
            let request = request.clone();
            move |_: &mut Report| request()
        })
    }

    /// Begins to send `rate` requests a second from so many clients; each is what `client` makes in its own thread.
    fn with<C>(clients: u32, rate: u32, client: impl Fn() -> C + Clone + Send + 'static) -> Self
    where
        C: FnMut(&mut Report) -> Result<String, Failure>,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let begin = Instant::now();
        let pause = Duration::from_secs(1) * clients / rate;
        let clients = (0..clients)
            .map(|number| {
                let (stop, client) = (Arc::clone(&stop), client.clone());
                let seen = Arc::new(Mutex::new(Seen::default()));
                let note = Arc::clone(&seen);
                let thread = thread::spawn(move || {
                    let mut ask = client();
                    let mut next = Instant::now() + pause * number / clients;
                    while !stop.load(Ordering::Relaxed) {
                        thread::sleep(next.saturating_duration_since(Instant::now()));
                        let mut report = Report::default();
                        let answer = ask(&mut report);
                        let mut seen = note.lock().unwrap();
                        seen.last = answer.clone().ok();
                        report.note(begin, answer);
                        seen.report.merge(report);
                        seen.requests += 1;
                        drop(seen);
                        // A client that was held up goes on at its pace and does not catch up in a burst.
                        next = (next + pause).max(Instant::now());
                    }
                });
                Client { thread, seen }
            })
            .collect();
        Self { begin, stop, clients }
    }

    /// How long it has been sending: the clock of the failures in its reports.
    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// How many of its clients were answered by that replica last; of those that keep their connection, how many have it
    /// there.
    pub fn last_answered_by(&self, replica: &str) -> usize {
        let answered = |client: &&Client| client.seen.lock().unwrap().last.as_deref() == Some(replica);
        self.clients.iter().filter(answered).count()
    }

    /// What was seen since the last time, up to a request of each client that it began after this call: whatever was under
    /// way at that moment is in it.
    pub fn take(&self) -> Report {
        let requests = |client: &Client| client.seen.lock().unwrap().requests;
        // The first to end may have begun before.
        let wanted: Vec<_> = self.clients.iter().map(|client| requests(client) + 2).collect();
        let mut report = Report::default();
        for (client, wanted) in self.clients.iter().zip(wanted) {
            while requests(client) < wanted && !client.thread.is_finished() {
                thread::sleep(Duration::from_millis(5));
            }
            report.merge(mem::take(&mut client.seen.lock().unwrap().report));
        }
        report
    }

    /// Stops, and tells how it went, or how it went since the last [`Self::take`].
    pub fn finish(mut self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut report = Report::default();
        for client in self.clients.drain(..) {
            client.thread.join().unwrap();
            report.merge(mem::take(&mut client.seen.lock().unwrap().report));
        }
        report
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
