//! The client side of the control socket.

use std::{
    io,
    path::{Path, PathBuf},
};

use axum::body::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use http_body_util::{BodyDataStream, BodyExt, Full};
use hyper::{Method, Response, StatusCode, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::supervisor::{Request, read_access::ReadAccess};

use super::{
    protocol::{EVENTS, HISTORY, Line, REQUEST, Reply},
    schema::Event,
};

/// A client of a project's supervisor.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
    access: Access,
}

/// How a client is authorized.
#[derive(Clone, Debug)]
enum Access {
    /// By its user ID: it runs as the supervisor's user or as root.
    Own,
    /// By the read key, as another user: read-only requests.
    Read {
        /// The socket and its key.
        access: ReadAccess,
        /// The user ID that the peer must have.
        owner: u32,
    },
}

/// Why a request to a supervisor failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No process listens on the socket.
    #[error("no supervisor listens on {}: {source}", path.display())]
    NotRunning {
        /// The path of the socket.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Another user listens on the socket. Nothing is sent to it.
    #[error("user {user} listens on {}, in place of a supervisor of yours", path.display())]
    Foreign {
        /// The path of the socket.
        path: PathBuf,
        /// The user ID of the listening process.
        user: u32,
    },
    /// The supervisor is shutting down and answers no more requests.
    #[error("the supervisor has just ended")]
    Ended,
    /// The connection failed.
    #[error("lost the connection to the supervisor: {0}")]
    ConnectionFailed(#[from] hyper::Error),
    /// Unexpected reply: the supervisor speaks another version of the protocol.
    #[error(
        "the supervisor speaks another protocol version ({0}); restart it, which leaves its containers running"
    )]
    UnexpectedReply(String),
}

impl Client {
    /// Connects to the supervisor on the socket at `path`; `None` if no process listens there.
    ///
    /// # Errors
    /// If the socket cannot be used, or another user listens on it.
    pub async fn connect(path: &Path) -> Result<Option<Self>, ClientError> {
        Self { path: path.to_owned(), access: Access::Own }.if_there().await
    }

    /// Connects to the supervisor of another user of this host, read-only; `None` if no process listens there any more.
    ///
    /// # Errors
    /// If the socket cannot be used, or a user other than `owner` listens on it.
    pub async fn connect_to_read(access: &ReadAccess, owner: u32) -> Result<Option<Self>, ClientError> {
        let path = PathBuf::from(format!("\0{}", access.socket));
        Self { path, access: Access::Read { access: access.clone(), owner } }.if_there().await
    }

    async fn if_there(self) -> Result<Option<Self>, ClientError> {
        match self.stream().await {
            Ok(_) => Ok(Some(self)),
            Err(ClientError::NotRunning { source, .. }) if is_absent(&source) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Connects, and checks that the peer runs as the expected user.
    async fn stream(&self) -> Result<UnixStream, ClientError> {
        let fail = |source| ClientError::NotRunning { path: self.path.clone(), source };
        let stream = UnixStream::connect(&self.path).await.map_err(fail)?;
        let user = stream.peer_cred().map_err(fail)?.uid();
        let is_meant = match self.access {
            Access::Own => user == 0 || user == rustix::process::geteuid().as_raw(),
            Access::Read { owner, .. } => user == owner,
        };
        if is_meant { Ok(stream) } else { Err(ClientError::Foreign { path: self.path.clone(), user }) }
    }

    /// The path of the supervisor's socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sends a request and waits for the reply.
    ///
    /// # Errors
    /// If the supervisor cannot be reached, or its reply cannot be parsed.
    pub async fn request(&self, request: &Request) -> Result<Reply, ClientError> {
        let body = serde_json::to_vec(request).map_err(|e| ClientError::UnexpectedReply(e.to_string()))?;
        let answer = self.call(Method::POST, REQUEST, body).await?.collect().await?.to_bytes();
        serde_json::from_slice(&answer).map_err(|e| ClientError::UnexpectedReply(e.to_string()))
    }

    /// Streams events, the history first, until the supervisor ends.
    ///
    /// # Errors
    /// If the supervisor cannot be reached.
    pub async fn events(&self) -> Result<BoxStream<'static, Result<Line, ClientError>>, ClientError> {
        let body = self.call(Method::GET, EVENTS, Vec::new()).await?;
        let chunks = BodyDataStream::new(body).map_err(ClientError::from);
        let lines =
            futures_util::stream::try_unfold((chunks, Vec::new()), async |(mut chunks, mut buffer)| {
                loop {
                    if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                        let rest = buffer.split_off(end + 1);
                        let line = serde_json::from_slice(&buffer)
                            .map_err(|e| ClientError::UnexpectedReply(e.to_string()))?;
                        return Ok(Some((line, (chunks, rest))));
                    }
                    match chunks.try_next().await? {
                        Some(chunk) => buffer.extend_from_slice(&chunk),
                        None => return Ok(None),
                    }
                }
            });
        Ok(lines.boxed())
    }

    /// The events so far; `None` if the release of the supervisor reports them only at the start of [`Self::events`].
    ///
    /// # Errors
    /// If the supervisor cannot be reached, or its reply cannot be parsed.
    pub async fn history(&self) -> Result<Option<Vec<Event>>, ClientError> {
        let response = self.send(Method::GET, HISTORY, Vec::new()).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let text = answered(response).await?;
        serde_json::from_slice(&text).map(Some).map_err(|e| ClientError::UnexpectedReply(e.to_string()))
    }

    async fn call(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Incoming, ClientError> {
        accepted(self.send(method, path, body).await?).await
    }

    /// Sends a request and returns the response with any status code.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = self.stream().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // This task ends with the body of the response.
        tokio::spawn(connection);
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "sameport")
            .header(header::CONTENT_TYPE, "application/json");
        if let Access::Read { access, .. } = &self.access {
            request = request.header(header::AUTHORIZATION, access.authorization());
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| ClientError::UnexpectedReply(e.to_string()))?;
        Ok(sender.send_request(request).await?)
    }
}

/// The body of a response with status 200.
async fn accepted(response: Response<Incoming>) -> Result<Incoming, ClientError> {
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(response.into_body());
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return Err(ClientError::Ended);
    }
    let words = response.into_body().collect().await?.to_bytes();
    Err(ClientError::UnexpectedReply(format!("{status}: {}", String::from_utf8_lossy(&words))))
}

/// The complete body of a response with status 200.
pub(super) async fn answered(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    Ok(accepted(response).await?.collect().await?.to_bytes())
}

/// There is no socket, or only one that a dead supervisor left behind.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}
