//! A load generator: sends requests at a constant rate, and counts responses by replica and failures by kind.
//!
//! The latency of a request counts from the time at which it is due, so that a stalled server cannot hide behind
//! requests that were not sent. Failed requests are not retried, with the exception that every HTTP/1.1 client makes
//! ([RFC 9112, 9.3.1](https://www.rfc-editor.org/rfc/rfc9112#section-9.3.1)): if a kept connection was closed, the
//! request is sent again on a new one, since either side may close a connection at any time.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
    header::{CONNECTION, HOST},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Failure, RequestStats};

/// The requests to send, and their rate.
#[derive(Clone, Debug)]
pub struct Load {
    /// The address of the server.
    pub target: SocketAddr,
    /// The path of each request.
    pub path: String,
    /// How responses identify their replica.
    pub identity: Identity,
    /// How connections are used.
    pub connections: Connections,
    /// Requests per second of all workers together.
    pub rate: u32,
    /// The largest number of requests in flight.
    pub workers: u32,
    /// The total number of requests; `None` continues until [`Running::stop`].
    pub requests: Option<u64>,
    /// Limit for a request, from the connection to the last byte.
    pub timeout: Duration,
}

/// How a response identifies its replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The value of this header.
    Header(String),
    /// The body, without surrounding white space.
    Body,
}

/// How connections are used. The kernel balances connections, not requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connections {
    /// One request per connection.
    #[default]
    PerRequest,
    /// At most this number of requests per connection, one after the other, or fewer if the server closes it.
    Kept(u32),
}

impl fmt::Display for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerRequest => f.pad("each on a connection of its own"),
            Self::Kept(requests) => write!(f, "{requests} on a connection"),
        }
    }
}

impl Load {
    /// 200 requests per second for `/`, each on its own connection, without end. The header `x-replica` identifies
    /// replicas.
    #[must_use]
    pub fn new(target: SocketAddr) -> Self {
        Self {
            target,
            path: "/".to_owned(),
            identity: Identity::Header("x-replica".to_owned()),
            connections: Connections::PerRequest,
            rate: 200,
            workers: 8,
            requests: None,
            timeout: Duration::from_secs(10),
        }
    }

    /// Starts the workers as tasks of the current runtime.
    #[must_use]
    pub fn start(self) -> Running {
        let shared = Arc::new(Shared {
            started: Instant::now(),
            request_stats: Mutex::default(),
            sent: AtomicU64::new(0),
            stop: CancellationToken::new(),
            load: self,
        });
        let workers = (0..shared.load.workers.max(1)).map(|n| work(Arc::clone(&shared), n)).collect();
        Running { shared, workers }
    }
}

/// A running load. Dropping it stops it.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    workers: JoinSet<()>,
}

impl Running {
    /// The results of the requests so far.
    #[must_use]
    pub fn request_stats(&self) -> RequestStats {
        self.shared.request_stats().clone()
    }

    /// The time since the start. The times in [`RequestStats`] count from the same moment.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.shared.started.elapsed()
    }

    /// Waits until [`Load::requests`] requests have ended.
    pub async fn finish(mut self) -> RequestStats {
        while self.workers.join_next().await.is_some() {}
        self.shared.request_stats().clone()
    }

    /// Sends no more requests and waits for those in flight.
    pub async fn stop(self) -> RequestStats {
        self.shared.stop.cancel();
        self.finish().await
    }
}

#[derive(Debug)]
struct Shared {
    load: Load,
    started: Instant,
    request_stats: Mutex<RequestStats>,
    sent: AtomicU64,
    stop: CancellationToken,
}

impl Shared {
    fn request_stats(&self) -> std::sync::MutexGuard<'_, RequestStats> {
        self.request_stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more request may be sent.
    fn another(&self) -> bool {
        let sent = self.sent.fetch_add(1, Ordering::Relaxed);
        self.load.requests.is_none_or(|limit| sent < limit)
    }
}

/// Sends this worker's share of the requests. Workers are offset against each other, so that the total rate is even.
async fn work(shared: Arc<Shared>, number: u32) {
    let load = &shared.load;
    let between = Duration::from_secs(1) / load.rate.max(1);
    let mut due = interval_at(shared.started + between * number, between * load.workers.max(1));
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut kept = None;
    loop {
        let due = tokio::select! {
            () = shared.stop.cancelled() => return,
            due = due.tick() => due,
        };
        if !shared.another() {
            return;
        }
        let outcome = timeout(load.timeout, ask(&shared, &mut kept)).await;
        let now = Instant::now();
        let at = now - shared.started;
        match outcome {
            Ok(Ok(server)) => shared.request_stats().answer(server, at, now - due),
            Ok(Err(Failed { failure, words })) => shared.request_stats().failure(failure, at, words),
            Err(_) => {
                kept = None;
                shared.request_stats().failure(
                    Failure::TimedOut,
                    at,
                    format!("no answer within {:?}", load.timeout),
                );
            }
        }
    }
}

struct Failed {
    failure: Failure,
    words: String,
}

/// An open connection and the number of requests sent on it.
struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    requests: u32,
}

async fn ask(shared: &Shared, kept: &mut Option<Connection>) -> Result<String, Failed> {
    let load = &shared.load;
    if let Some(mut connection) = kept.take()
        && connection.sender.ready().await.is_ok()
    {
        match exchange(load, &mut connection).await {
            Ok(answer) => return conclude(load, connection, kept, answer),
            // The connection was closed before the request was sent.
            Err(error) if error.is_canceled() => {}
            Err(error) => match Failed::from(error) {
                Failed { failure: Failure::Closed | Failure::Reset, .. } => {
                    shared.request_stats().repeated += 1
                }
                failed => return Err(failed),
            },
        }
    }
    let mut connection = connect(load.target).await?;
    let answer = exchange(load, &mut connection).await?;
    conclude(load, connection, kept, answer)
}

async fn connect(target: SocketAddr) -> Result<Connection, Failed> {
    let stream = TcpStream::connect(target).await.map_err(|e| classify(&e, e.to_string()))?;
    // Requests are small packets. Otherwise the kernel may delay them.
    stream.set_nodelay(true).map_err(|e| classify(&e, e.to_string()))?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            // A request on this connection fails with the same error.
            tracing::trace!(%error, "connection ended");
        }
    });
    Ok(Connection { sender, requests: 0 })
}

/// Sends one request. Returns the status and the replica.
async fn exchange(load: &Load, connection: &mut Connection) -> Result<(StatusCode, String), hyper::Error> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = load.path.parse().unwrap_or_default();
    let headers = request.headers_mut();
    if let Ok(host) = load.target.to_string().parse() {
        headers.insert(HOST, host);
    }
    if load.connections == Connections::PerRequest {
        headers.insert(CONNECTION, hyper::header::HeaderValue::from_static("close"));
    }
    connection.requests += 1;
    let response = connection.sender.send_request(request).await?;
    let status = response.status();
    let header = match &load.identity {
        Identity::Header(name) => response.headers().get(name.as_str()).cloned(),
        Identity::Body => None,
    };
    let body = response.into_body().collect().await?.to_bytes();
    let server = match &load.identity {
        Identity::Header(_) => header.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
        Identity::Body => Some(String::from_utf8_lossy(&body).trim().to_owned()),
    };
    Ok((status, server.unwrap_or_else(|| "(no name)".to_owned())))
}

fn conclude(
    load: &Load,
    connection: Connection,
    kept: &mut Option<Connection>,
    (status, server): (StatusCode, String),
) -> Result<String, Failed> {
    match load.connections {
        Connections::Kept(requests) if connection.requests < requests => *kept = Some(connection),
        Connections::Kept(_) | Connections::PerRequest => {}
    }
    if status.is_success() {
        Ok(server)
    } else {
        let words = format!("{server} answered {status}");
        Err(Failed { failure: Failure::Status(status.as_u16()), words })
    }
}

impl From<hyper::Error> for Failed {
    fn from(error: hyper::Error) -> Self {
        let mut words = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            words = format!("{words}: {inner}");
            if let Some(io) = inner.downcast_ref::<io::Error>() {
                return classify(io, words);
            }
            cause = inner.source();
        }
        let failure = if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
            Failure::Closed
        } else {
            Failure::Other
        };
        Self { failure, words }
    }
}

fn classify(error: &io::Error, words: String) -> Failed {
    let failure = match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Failure::Reset,
        io::ErrorKind::UnexpectedEof => Failure::Closed,
        io::ErrorKind::TimedOut => Failure::TimedOut,
        _ => Failure::Other,
    };
    Failed { failure, words }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// How the server of a test behaves.
    #[derive(Clone, Copy)]
    enum Manner {
        Answer(&'static str),
        /// Answers one request, and closes the connection at the next one.
        AnswerOnce,
        Hang,
        Close,
        Reset,
    }

    async fn server(manner: Manner) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for connection in 1.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut buffer = [0; 1024];
                    for request in 1.. {
                        let Ok(1..) = stream.read(&mut buffer).await else { return };
                        match manner {
                            Manner::AnswerOnce if request > 1 => return,
                            Manner::Answer(_) | Manner::AnswerOnce => {
                                let status =
                                    if let Manner::Answer(status) = manner { status } else { "200 OK" };
                                let head = format!("HTTP/1.1 {status}\r\nx-replica: {connection}\r\n");
                                let answer = format!("{head}content-length: 2\r\n\r\nhi");
                                stream.write_all(answer.as_bytes()).await.unwrap();
                            }
                            Manner::Hang => std::future::pending().await,
                            Manner::Close => return,
                            Manner::Reset => {
                                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                                return;
                            }
                        }
                    }
                });
            }
        });
        address
    }

    async fn request_stats(manner: Manner, change: impl Fn(&mut Load)) -> RequestStats {
        let mut load = Load::new(server(manner).await);
        load.rate = 2000;
        load.workers = 2;
        load.requests = Some(20);
        change(&mut load);
        load.start().finish().await
    }

    #[tokio::test]
    async fn a_connection_per_request_makes_as_many_connections_as_requests() {
        let request_stats = request_stats(Manner::Answer("200 OK"), |_| {}).await;
        assert_eq!(
            (request_stats.answers(), request_stats.failures()),
            (20, 0),
            "{:?}",
            request_stats.examples
        );
        assert_eq!(request_stats.answered.len(), 20);
        assert_eq!(request_stats.latencies.count(), 20);
    }

    #[tokio::test]
    async fn kept_connections_are_one_a_worker() {
        let request_stats =
            request_stats(Manner::Answer("200 OK"), |load| load.connections = Connections::Kept(u32::MAX))
                .await;
        assert_eq!(
            (request_stats.answers(), request_stats.failures()),
            (20, 0),
            "{:?}",
            request_stats.examples
        );
        assert_eq!(request_stats.answered.len(), 2);
    }

    #[tokio::test]
    async fn a_kept_connection_is_left_after_its_requests() {
        let request_stats = request_stats(Manner::Answer("200 OK"), |load| {
            load.connections = Connections::Kept(5);
            load.workers = 1;
        })
        .await;
        assert_eq!(request_stats.answered.values().map(|a| a.count).collect::<Vec<_>>(), [5, 5, 5, 5]);
    }

    #[tokio::test]
    async fn a_request_is_repeated_when_its_kept_connection_was_closed() {
        let request_stats =
            request_stats(Manner::AnswerOnce, |load| load.connections = Connections::Kept(u32::MAX)).await;
        assert_eq!(
            (request_stats.answers(), request_stats.failures()),
            (20, 0),
            "{:?}",
            request_stats.examples
        );
        // The first request of each of the two workers uses a new connection, so it is not repeated.
        assert_eq!(request_stats.repeated, 18);
    }

    #[tokio::test]
    async fn an_answer_can_be_known_by_its_body() {
        let request_stats =
            request_stats(Manner::Answer("200 OK"), |load| load.identity = Identity::Body).await;
        assert_eq!(request_stats.answered.keys().collect::<Vec<_>>(), ["hi"]);
    }

    #[tokio::test]
    async fn failures_are_counted_by_kind() {
        for (manner, expected) in [
            (Manner::Answer("503 Busy"), Failure::Status(503)),
            (Manner::Hang, Failure::TimedOut),
            (Manner::Close, Failure::Closed),
            (Manner::Reset, Failure::Reset),
        ] {
            let request_stats = request_stats(manner, |load| {
                load.timeout = Duration::from_millis(100);
                load.requests = Some(4);
            })
            .await;
            assert_eq!(
                request_stats.failed.get(&expected),
                Some(&4),
                "{expected}: {:?}",
                request_stats.examples
            );
            assert_eq!((request_stats.answers(), request_stats.examples.len()), (0, 4), "{expected}");
        }
    }

    #[tokio::test]
    async fn a_port_without_listener_is_refused() {
        // Bound, so that no other program gets the port, but not listening.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let mut load = Load::new(socket.local_addr().unwrap().as_socket().unwrap());
        load.requests = Some(3);
        let request_stats = load.start().finish().await;
        assert_eq!(request_stats.failed.get(&Failure::Refused), Some(&3), "{:?}", request_stats.examples);
    }

    #[tokio::test]
    async fn a_stopped_load_sends_nothing_more() {
        let running = Load::new(server(Manner::Answer("200 OK")).await).start();
        while running.request_stats().answers() < 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let request_stats = running.stop().await;
        assert!(request_stats.answers() >= 5);
        assert_eq!(request_stats.failures(), 0, "{:?}", request_stats.examples);
    }
}
