//! The supervisor's end of the control socket.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{StreamExt, stream};
use tokio::{
    net::UnixListener,
    sync::broadcast::{Receiver, error::RecvError},
    task::JoinHandle,
};

use crate::supervisor::{Event, Handle, Request};

use super::{
    protocol::{EVENTS, Line, REQUEST},
    version::{DETACH, VERSION, Version},
};

/// Answers on a project's control socket as long as it lives; the socket's file goes with it.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    task: JoinHandle<()>,
}

/// Answers for a supervisor on the socket at `path`, with mode 0600. Whoever calls holds the project's lock: a
/// file that is there already was left behind by a supervisor that is no more.
///
/// # Errors
/// When there can be no socket.
pub fn bind(path: &Path, handle: Handle) -> io::Result<Server> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let (_, live) = handle.journal().follow();
    let routes = Router::new()
        .route(REQUEST, post(request))
        .route(EVENTS, get(events))
        .route(VERSION, get(async || Json(Version::own())))
        .route(DETACH, post(detach))
        .fallback(unknown)
        // Who may use the socket may ask for a project of any size.
        .layer(DefaultBodyLimit::disable())
        .with_state(handle);
    let task = tokio::spawn(async move {
        // Who comes after the supervisor's end finds nobody, instead of one who can answer nothing.
        if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(end(live)).await {
            tracing::error!(%error, "the control socket is closed");
        }
    });
    Ok(Server { path: path.to_owned(), task })
}

impl Server {
    /// Once the supervisor has ended: waits until all who were listening have heard the last of it, and no longer
    /// than `limit`.
    pub async fn finish(mut self, limit: Duration) {
        if tokio::time::timeout(limit, &mut self.task).await.is_err() {
            tracing::debug!("somebody who listens does not read");
        }
    }
}

/// Waits until nothing happens any more, as when the supervisor has ended.
async fn end(mut live: Receiver<Event>) {
    while !matches!(live.recv().await, Err(RecvError::Closed)) {}
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        // The next supervisor takes a leftover away.
        let _ = fs::remove_file(&self.path);
    }
}

async fn request(State(handle): State<Handle>, Json(request): Json<Request>) -> Response {
    match handle.request(request).await {
        Ok(reply) => Json(reply).into_response(),
        Err(ended) => (StatusCode::SERVICE_UNAVAILABLE, ended.to_string()).into_response(),
    }
}

async fn detach(State(handle): State<Handle>) -> Response {
    request(State(handle), Json(Request::Detach)).await
}

/// A command of another release is told so.
async fn unknown() -> (StatusCode, String) {
    (StatusCode::NOT_FOUND, format!("the supervisor speaks {}", Version::own()))
}

async fn events(State(handle): State<Handle>) -> Response {
    let (past, live) = handle.journal().follow();
    let past = stream::iter(past.into_iter().map(Line::Past));
    let live = stream::unfold(live, async |mut live| match live.recv().await {
        Ok(event) => Some((Line::Now(event), live)),
        Err(RecvError::Lagged(events)) => Some((Line::Missed { events }, live)),
        Err(RecvError::Closed) => None,
    });
    let lines = past.chain(live).map(|line| {
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        Ok::<_, serde_json::Error>(Bytes::from(text))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}
