//! A way to the engine's socket that takes no more of an answer than an engine has to say: a broken one, or a relay in front of
//! it, may send without end, and what it sends is kept in memory until it ends.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bollard::{BollardRequest, errors::Error};
use futures_util::future::BoxFuture;
use hyper::{Response, Uri, body::Incoming, client::conn::http1, header, http::uri::PathAndQuery};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};

/// The longest answer, in bytes. What an engine tells of one container in a list is about 2 kB.
const LONGEST: u64 = 64 << 20;

/// Sends requests to a socket, each on a connection of its own.
pub(super) fn transport(
    socket: &Path,
) -> impl Fn(BollardRequest) -> BoxFuture<'static, Result<Response<Incoming>, Error>> + use<> {
    let socket: Arc<PathBuf> = Arc::new(socket.to_owned());
    move |request| Box::pin(send(Arc::clone(&socket), request))
}

async fn send(socket: Arc<PathBuf>, request: BollardRequest) -> Result<Response<Incoming>, Error> {
    let (mut parts, body) = request.into_parts();
    // A server is told the path alone, and who it is.
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let left = (!is_endless(path.path())).then_some(LONGEST);
    parts.uri = Uri::from(path);
    parts.headers.insert(header::HOST, header::HeaderValue::from_static("docker"));
    let stream = Limited { stream: UnixStream::connect(&*socket).await?, left };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // What goes wrong with it is told by the answer, too.
    tokio::spawn(connection.with_upgrades());
    Ok(sender.send_request(BollardRequest::from_parts(parts, body)).await?)
}

/// Whether an answer goes on as long as there is something to tell.
fn is_endless(path: &str) -> bool {
    let mut parts = path.trim_matches('/').split('/').peekable();
    parts.next_if(|part| part.starts_with('v') && part.contains('.'));
    let parts: Vec<_> = parts.collect();
    matches!(
        parts[..],
        ["events"]
            | ["images", "create" | "load" | "get"]
            | ["images", .., "push" | "get"]
            | ["build"]
            | ["exec", _, "start"]
            | ["containers", _, "attach" | "logs" | "export" | "stats" | "archive"]
    )
}

/// A connection of which no more can be read than is left.
struct Limited<S> {
    stream: S,
    left: Option<u64>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = u64::try_from(buffer.filled().len() - before).unwrap_or(u64::MAX);
        if let Some(left) = self.left {
            let Some(left) = left.checked_sub(read) else {
                return Poll::Ready(Err(io::Error::other(format!(
                    "its answer is longer than {} MB",
                    LONGEST >> 20
                ))));
            };
            self.left = Some(left);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Limited<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixListener,
    };

    use super::*;
    use crate::engine::{
        Engine as _, EngineError,
        docker::{Docker, Endpoint},
    };

    /// Tells its version, and anything else without end.
    async fn serve(mut stream: UnixStream) -> io::Result<()> {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await?);
        }
        let version = br#"{"ApiVersion":"1.41"}"#;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
        if String::from_utf8_lossy(&request).contains("/version") {
            stream.write_all(format!("{head}Content-Length: {}\r\n\r\n", version.len()).as_bytes()).await?;
            return stream.write_all(version).await;
        }
        stream.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n1\r\n[\r\n").as_bytes()).await?;
        loop {
            stream.write_all(format!("10000\r\n{}\r\n", " ".repeat(0x10000)).as_bytes()).await?;
        }
    }

    #[tokio::test]
    async fn an_answer_without_end_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // It fails once the other end has enough.
                tokio::spawn(serve(stream));
            }
        });
        let endpoint = Endpoint { host: format!("unix://{}", socket.display()), certificates: None };
        let docker = Docker::connect_to(&endpoint).await.unwrap();
        let error = docker.list_all().await.unwrap_err();
        assert!(matches!(error, EngineError::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains("longer than 64 MB"), "{error}");
        server.abort();
    }

    #[test]
    fn what_goes_on_as_long_as_something_happens_has_no_end() {
        for (path, wanted) in [
            ("/v1.41/events", true),
            ("/v1.41/containers/abc/logs", true),
            ("/v1.41/images/create", true),
            ("/v1.41/images/a/b/c/push", true),
            ("/v1.41/exec/abc/start", true),
            ("/v1.41/containers/json", false),
            ("/v1.41/containers/logs/json", false),
            ("/version", false),
            ("/v1.41/exec/abc/json", false),
            ("", false),
        ] {
            assert_eq!(is_endless(path), wanted, "{path}");
        }
    }
}
