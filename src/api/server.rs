//! The server side of the control socket.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::{DefaultBodyLimit, Request as HttpRequest, State},
    http::{Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{Stream, StreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::{
    net::UnixListener,
    sync::{
        Semaphore,
        broadcast::{Receiver, error::RecvError},
    },
    task::{JoinHandle, JoinSet},
};

use crate::{
    engine::EngineIdentity,
    spec::ProjectName,
    supervisor::{self, Ended, Event, Handle, Journal, Request, private_folder, read_access::ReadAccess},
    tick::{Ticker, Watch},
};

use super::{
    connections::{self, Limits},
    convert::{self, ProjectContext},
    protocol::{EVENTS, HISTORY, Line, REQUEST, Reply},
    schema,
    version::{DETACH, VERSION, Version},
};

/// Limits for requests of the supervisor's own user and root.
const LIMITS: Limits = Limits { connections: 512, body: 64 << 20 };
/// The number of concurrent event streams.
const MAX_EVENT_STREAMS: usize = 128;
/// The number of concurrent connections of other users.
const MAX_READERS: usize = 64;
/// Maximum size of a request of another user, in bytes.
const MAX_READER_BODY: usize = 4 << 10;
const READ_ONLY: &str = "other users may only ask; give the command as the user whose supervisor it is";

/// Serves the control socket of a project until it is dropped; dropping it removes the socket file.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    task: JoinHandle<()>,
    readers: Option<JoinHandle<()>>,
}

/// What a control socket gives access to.
#[derive(Debug)]
pub struct Served {
    /// The project.
    pub project: ProjectName,
    /// The project's supervisor.
    pub handle: Handle,
    /// The project's engine, if known.
    pub engine: Option<EngineIdentity>,
    /// The socket and key for read-only requests of other users; `None`: other users have no access.
    pub read_access: Option<ReadAccess>,
}

/// Serves the control socket at `path`, with mode 0600. The caller must hold the project's lock: an existing file is
/// then left over from a dead supervisor and is replaced.
///
/// # Errors
/// If the socket cannot be created.
pub fn bind(path: &Path, served: Served, ticker: &Ticker) -> io::Result<Server> {
    let Served { project, handle, engine, read_access } = served;
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = listen(path)?;
    let journal = handle.journal().clone();
    let (_, live) = journal.follow();
    let version = Version { engine: engine.map(Box::new), ..Version::own() };
    let routes = Router::new()
        .route(REQUEST, post(request))
        .route(EVENTS, get(events))
        .route(HISTORY, get(history))
        .route(VERSION, get(async || Json(version)))
        .route(DETACH, post(detach))
        .fallback(unknown)
        // Each socket has its own limit.
        .layer(DefaultBodyLimit::disable())
        .with_state(Supervisor { project, handle, followers: Arc::new(Semaphore::new(MAX_EVENT_STREAMS)) });
    let readers = read_access.and_then(|access| admit_readers(&access, &routes, live.resubscribe()));
    let looked_at = path.to_owned();
    let removed = ticker.watch(move || is_removed(&looked_at));
    let task = tokio::spawn(serve(path.to_owned(), listener, removed, routes, journal, live));
    Ok(Server { path: path.to_owned(), task, readers })
}

/// Serves read-only requests of other users that have the key, on an abstract socket. If that socket cannot be created,
/// other users see only what the engine reports.
fn admit_readers(access: &ReadAccess, routes: &Router, live: Receiver<Event>) -> Option<JoinHandle<()>> {
    let listener = match UnixListener::bind(format!("\0{}", access.socket)) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, "other users cannot ask this supervisor");
            return None;
        }
    };
    let routes = routes.clone().layer(middleware::from_fn_with_state(access.clone(), only_read));
    let limits = Limits { connections: MAX_READERS, body: MAX_READER_BODY };
    Some(tokio::spawn(connections::serve(listener, routes, limits, |_| true, end(live))))
}

/// Rejects requests without the key, and requests that change something.
async fn only_read(State(access): State<ReadAccess>, request: HttpRequest, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
    // Comparing digests leaks nothing about the key through timing.
    if Sha256::digest(given) != Sha256::digest(access.authorization()) {
        return (StatusCode::UNAUTHORIZED, "who may use the engine has the key").into_response();
    }
    let is_question = match (request.method(), request.uri().path()) {
        (&Method::GET, EVENTS | HISTORY | VERSION) => true,
        (&Method::POST, REQUEST) => return ask(request, next).await,
        _ => false,
    };
    match is_question {
        true => next.run(request).await,
        false => (StatusCode::FORBIDDEN, READ_ONLY).into_response(),
    }
}

/// Passes on a status request; rejects any other.
async fn ask(request: HttpRequest, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_READER_BODY).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    match serde_json::from_slice(&body) {
        Ok(Request::Status) => next.run(HttpRequest::from_parts(head, Body::from(body))).await,
        _ => (StatusCode::FORBIDDEN, READ_ONLY).into_response(),
    }
}

fn is_removed(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until the supervisor ends. Recreates the socket if its file is removed, for example by a cleanup of /run:
/// otherwise no command could reach this supervisor, and none could start another one.
async fn serve(
    path: PathBuf,
    listener: UnixListener,
    mut removed: Watch,
    routes: Router,
    journal: Journal,
    live: Receiver<Event>,
) {
    let mut answering = JoinSet::new();
    let mut answer = |listener: UnixListener, live: Receiver<Event>| {
        let routes = routes.clone();
        answering.spawn(async move {
            let me = rustix::process::geteuid().as_raw();
            let may_speak = |uid| uid == me || uid == 0;
            connections::serve(listener, routes, LIMITS, may_speak, end(live)).await;
        });
    };
    let ended = end(live.resubscribe());
    answer(listener, live);
    tokio::pin!(ended);
    let mut told = false;
    loop {
        tokio::select! {
            () = &mut ended => break,
            () = removed.found() => {}
        }
        if !is_removed(&path) {
            continue;
        }
        let folder = path.parent().map_or(Ok(()), private_folder::make);
        match folder.map_err(io::Error::from).and_then(|()| listen(&path)) {
            Ok(listener) => {
                tracing::warn!(path = %path.display(), "the control socket was removed, and is put back");
                told = false;
                // Requests on the old socket are still answered.
                answer(listener, journal.follow().1);
            }
            Err(error) if !std::mem::replace(&mut told, true) => {
                tracing::error!(%error, path = %path.display(), "the control socket was removed, and cannot be put back");
            }
            Err(_) => {}
        }
    }
    while answering.join_next().await.is_some() {}
}

impl Server {
    /// Call this after the supervisor has ended: waits until all event streams have been read to the end, at most for
    /// `limit`.
    pub async fn finish(mut self, limit: Duration) {
        if tokio::time::timeout(limit, &mut self.task).await.is_err() {
            tracing::debug!("somebody who listens does not read");
        }
    }
}

/// Completes when the event channel closes, which is when the supervisor has ended.
async fn end(mut live: Receiver<Event>) {
    while !matches!(live.recv().await, Err(RecvError::Closed)) {}
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        self.readers.iter().for_each(JoinHandle::abort);
        // A file left behind does no harm: the next supervisor replaces it.
        let _ = fs::remove_file(&self.path);
    }
}

/// The state that the handlers share.
#[derive(Clone)]
struct Supervisor {
    project: ProjectName,
    handle: Handle,
    followers: Arc<Semaphore>,
}

/// Sends a request to a supervisor in this process, and converts the reply as the control socket does.
///
/// # Errors
/// If the supervisor has ended.
pub async fn answer(project: &ProjectName, handle: &Handle, request: Request) -> Result<Reply, Ended> {
    Ok(match handle.request(request).await? {
        supervisor::Reply::Accepted => Reply::Accepted,
        supervisor::Reply::Status(status) => {
            let context = ProjectContext { name: project, supervised: true, now: jiff::Timestamp::now() };
            Reply::Status(Box::new(convert::status(&context, &status)))
        }
        supervisor::Reply::Preview(preview) => Reply::Preview(Box::new(convert::preview(&preview))),
        supervisor::Reply::Rejected(refusal) => Reply::Rejected(convert::rejection(&refusal)),
    })
}

/// The events so far of a supervisor in this process.
#[must_use]
pub fn past(handle: &Handle) -> Vec<schema::Event> {
    handle.journal().follow().0.iter().map(convert::event).collect()
}

/// The events of a supervisor in this process, the history first, in the form of the control socket. Ends with the
/// supervisor.
pub fn follow(handle: &Handle) -> impl Stream<Item = Line> + Send + use<> {
    let (past, live) = handle.journal().follow();
    let past = stream::iter(past).map(|event| Line::History(convert::event(&event)));
    let live = stream::unfold(live, async |mut live| match live.recv().await {
        Ok(event) => Some((Line::Live(convert::event(&event)), live)),
        Err(RecvError::Lagged(events)) => Some((Line::Missed { events }, live)),
        Err(RecvError::Closed) => None,
    });
    past.chain(live)
}

async fn request(State(supervisor): State<Supervisor>, Json(request): Json<Request>) -> Response {
    match answer(&supervisor.project, &supervisor.handle, request).await {
        Ok(reply) => Json(reply).into_response(),
        Err(ended) => (StatusCode::SERVICE_UNAVAILABLE, ended.to_string()).into_response(),
    }
}

async fn detach(State(supervisor): State<Supervisor>) -> Response {
    request(State(supervisor), Json(Request::Detach)).await
}

/// Answers commands of another release, which use other paths, with the version of this one.
async fn unknown() -> (StatusCode, String) {
    (StatusCode::NOT_FOUND, format!("the supervisor speaks {}", Version::own()))
}

async fn history(State(supervisor): State<Supervisor>) -> Json<Vec<schema::Event>> {
    Json(past(&supervisor.handle))
}

async fn events(State(supervisor): State<Supervisor>) -> Response {
    let Ok(place) = supervisor.followers.try_acquire_owned() else {
        let words = format!("{MAX_EVENT_STREAMS} clients already follow its events");
        return (StatusCode::TOO_MANY_REQUESTS, words).into_response();
    };
    let lines = follow(&supervisor.handle).map(move |line| {
        // Hold the permit as long as the stream lives.
        let _ = &place;
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        Ok::<_, serde_json::Error>(Bytes::from(text))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}
