//! A command's end of the control socket.

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

/// Speaks to the supervisor of a project.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
    access: Access,
}

/// As whom a client asks.
#[derive(Clone, Debug)]
enum Access {
    /// As the user whose supervisor it is.
    Own,
    /// As another user: only questions are answered.
    Read {
        /// What has to come with each.
        access: ReadAccess,
        /// Who has to answer.
        owner: u32,
    },
}

/// Why a supervisor does not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no supervisor listens on {}: {source}", path.display())]
    NotRunning {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else listens there.
    #[error("user {user} listens on {}, in place of a supervisor of yours", path.display())]
    Foreign {
        /// Where.
        path: PathBuf,
        /// Who.
        user: u32,
    },
    /// It is about to leave.
    #[error("the supervisor has just ended")]
    Ended,
    /// It broke off.
    #[error("the supervisor broke off: {0}")]
    BrokenOff(#[from] hyper::Error),
    /// It does not understand us, or we not it: another version.
    #[error("the supervisor speaks another version ({0}); restart it: its containers go on meanwhile")]
    Misunderstood(String),
}

impl Client {
    /// A client of the supervisor at `path`; none when nobody listens there.
    ///
    /// # Errors
    /// When the socket cannot be used.
    pub async fn connect(path: &Path) -> Result<Option<Self>, ClientError> {
        Self { path: path.to_owned(), access: Access::Own }.if_there().await
    }

    /// A client that only reads, of the supervisor of another user of this host; none when nobody listens there any more.
    ///
    /// # Errors
    /// When the socket cannot be used.
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

    /// A connection to the supervisor, and to nobody else.
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

    /// Where that supervisor listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks for something.
    ///
    /// # Errors
    /// When the supervisor does not answer.
    pub async fn request(&self, request: &Request) -> Result<Reply, ClientError> {
        let body = serde_json::to_vec(request).map_err(|e| ClientError::Misunderstood(e.to_string()))?;
        let answer = self.call(Method::POST, REQUEST, body).await?.collect().await?.to_bytes();
        serde_json::from_slice(&answer).map_err(|e| ClientError::Misunderstood(e.to_string()))
    }

    /// What happened and happens, until the supervisor ends.
    ///
    /// # Errors
    /// When the supervisor does not answer.
    pub async fn events(&self) -> Result<BoxStream<'static, Result<Line, ClientError>>, ClientError> {
        let body = self.call(Method::GET, EVENTS, Vec::new()).await?;
        let chunks = BodyDataStream::new(body).map_err(ClientError::from);
        let lines =
            futures_util::stream::try_unfold((chunks, Vec::new()), async |(mut chunks, mut buffer)| {
                loop {
                    if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                        let rest = buffer.split_off(end + 1);
                        let line = serde_json::from_slice(&buffer)
                            .map_err(|e| ClientError::Misunderstood(e.to_string()))?;
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

    /// What happened so far. None: the supervisor is of a release that only tells it as the beginning of [`Self::events`].
    ///
    /// # Errors
    /// When the supervisor does not answer.
    pub async fn history(&self) -> Result<Option<Vec<Event>>, ClientError> {
        let response = self.send(Method::GET, HISTORY, Vec::new()).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let text = answered(response).await?;
        serde_json::from_slice(&text).map(Some).map_err(|e| ClientError::Misunderstood(e.to_string()))
    }

    async fn call(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Incoming, ClientError> {
        accepted(self.send(method, path, body).await?).await
    }

    /// Sends something, and returns what comes back, whether or not that is good.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = self.stream().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the answer's body.
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
            .map_err(|e| ClientError::Misunderstood(e.to_string()))?;
        Ok(sender.send_request(request).await?)
    }
}

/// The body of a good answer.
async fn accepted(response: Response<Incoming>) -> Result<Incoming, ClientError> {
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(response.into_body());
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return Err(ClientError::Ended);
    }
    let words = response.into_body().collect().await?.to_bytes();
    Err(ClientError::Misunderstood(format!("{status}: {}", String::from_utf8_lossy(&words))))
}

/// All of a good answer.
pub(super) async fn answered(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    Ok(accepted(response).await?.collect().await?.to_bytes())
}

/// No socket, or one that a dead supervisor left behind.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}
