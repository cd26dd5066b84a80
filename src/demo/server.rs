//! The demo's server, which runs in each replica. It shares its port, and its responses identify the replica.

use std::{
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::State, http::HeaderName, routing::get};
use jiff::Timestamp;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

/// The header with the number of the replica.
pub const REPLICA: &str = "x-replica";
/// The header with the number of the replica, a dot, and a number that is unique to the process.
pub const PROCESS: &str = "x-process";

/// The length of the accept queue. Connections that arrive when it is full are dropped.
const BACKLOG: i32 = 1024;
/// Limit for open requests after the server was asked to stop.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// The settings of a server.
#[derive(Clone, Debug)]
pub struct Server {
    /// The number of the replica, from its environment.
    pub replica: String,
    /// The port to listen on, shared with the other replicas.
    pub port: u16,
}

/// Serves requests until SIGTERM or SIGINT. Then closes the listener, finishes open requests for up to 5 s, and
/// returns.
///
/// # Errors
/// If the port cannot be bound, for example because another program does not share it.
pub async fn run(server: Server) -> io::Result<()> {
    let listener = listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, server.port)))?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    serve(server, listener, async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
    .await
}

/// A listener on a shared port.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // `SO_REUSEPORT` lets N replicas of an image listen on one port. It must be set before the bind.
    socket.set_reuse_port(true)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

struct Identity {
    replica: String,
    process: String,
    answered: AtomicU64,
}

async fn serve(
    server: Server,
    listener: TcpListener,
    end: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let process = format!("{}.{}", server.replica, Timestamp::now().as_millisecond());
    let identity = Arc::new(Identity { replica: server.replica, process, answered: AtomicU64::new(0) });
    let router = Router::new().route("/", get(answer)).with_state(identity);
    let (ended, told) = tokio::sync::oneshot::channel();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move {
        end.await;
        // The receiver is gone only if serving has failed.
        let _ = ended.send(());
    });
    let too_late = async {
        if told.await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
    };
    tokio::select! {
        result = serving => result,
        () = too_late => Ok(()),
    }
}

async fn answer(State(identity): State<Arc<Identity>>) -> ([(HeaderName, String); 2], String) {
    let number = identity.answered.fetch_add(1, Ordering::Relaxed) + 1;
    let headers = [
        (HeaderName::from_static(REPLICA), identity.replica.clone()),
        (HeaderName::from_static(PROCESS), identity.process.clone()),
    ];
    (headers, format!("replica {}, answer {number} of this process\n", identity.replica))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::oneshot,
    };

    use super::*;
    use crate::demo::{
        RequestStats,
        client::{Identity, Load},
    };

    struct Replica {
        end: oneshot::Sender<()>,
        task: tokio::task::JoinHandle<io::Result<()>>,
    }

    fn replica(name: &str, address: SocketAddr) -> (Replica, SocketAddr) {
        let listener = listen(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (end, told) = oneshot::channel::<()>();
        let server = Server { replica: name.to_owned(), port: address.port() };
        let task = tokio::spawn(serve(server, listener, async move {
            let _ = told.await;
        }));
        (Replica { end, task }, address)
    }

    fn load(address: SocketAddr) -> Load {
        Load { identity: Identity::Header(REPLICA.to_owned()), rate: 1000, ..Load::new(address) }
    }

    fn names(request_stats: &RequestStats) -> Vec<&str> {
        request_stats.answered.keys().map(String::as_str).collect()
    }

    #[tokio::test]
    async fn servers_on_one_port_all_get_connections() {
        let (_one, address) = replica("1", "127.0.0.1:0".parse().unwrap());
        let (_two, _) = replica("2", address);
        let request_stats = Load { requests: Some(100), ..load(address) }.start().finish().await;
        assert_eq!(
            (names(&request_stats), request_stats.failures()),
            (vec!["1", "2"], 0),
            "{:?}",
            request_stats.examples
        );
    }

    #[tokio::test]
    async fn a_stopped_server_finishes_open_requests() {
        let (one, address) = replica("1", "127.0.0.1:0".parse().unwrap());
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        // Connections are accepted in order: once a later one is answered, the server has accepted the slow one.
        let request_stats = Load { requests: Some(1), ..load(address) }.start().finish().await;
        assert_eq!(request_stats.answers(), 1, "{:?}", request_stats.examples);

        one.end.send(()).unwrap();
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        slow.write_all(b"host: x\r\n\r\n").await.unwrap();
        let mut text = String::new();
        slow.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK") && text.contains("x-replica: 1"), "{text}");
        tokio::time::timeout(SHUTDOWN_TIMEOUT / 2, one.task).await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_server_does_not_wait_for_ever_for_a_silent_client() {
        let (one, address) = replica("1", "127.0.0.1:0".parse().unwrap());
        let mut silent = TcpStream::connect(address).await.unwrap();
        silent.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let request_stats = Load { requests: Some(1), ..load(address) }.start().finish().await;
        assert_eq!(request_stats.answers(), 1, "{:?}", request_stats.examples);
        tokio::time::pause();
        one.end.send(()).unwrap();
        tokio::time::timeout(SHUTDOWN_TIMEOUT * 2, one.task).await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn two_processes_of_a_replica_are_distinguished() {
        let (one, address) = replica("7", "127.0.0.1:0".parse().unwrap());
        let by_process =
            Load { identity: Identity::Header(PROCESS.to_owned()), requests: Some(5), ..load(address) };
        let before = by_process.clone().start().finish().await;
        one.end.send(()).unwrap();
        one.task.await.unwrap().unwrap();
        let (_again, _) = replica("7", address);
        let after = by_process.start().finish().await;
        assert_ne!(names(&before), names(&after));
        assert!(names(&after)[0].starts_with("7."), "{:?}", names(&after));
    }
}
