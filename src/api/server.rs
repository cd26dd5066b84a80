//! The supervisor's end of the control socket.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
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
use futures_util::{Stream, StreamExt, stream};
use tokio::{
    net::UnixListener,
    sync::broadcast::{Receiver, error::RecvError},
    task::{JoinHandle, JoinSet},
};

use crate::{
    engine::EngineIdentity,
    spec::ProjectName,
    supervisor::{self, Ended, Event, Handle, Journal, Request},
    tick::{Ticker, Watch},
};

use super::{
    convert::{self, ProjectContext},
    protocol::{EVENTS, HISTORY, Line, REQUEST, Reply},
    schema,
    version::{DETACH, VERSION, Version},
};

/// Answers on a project's control socket as long as it lives; the socket's file goes with it.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    task: JoinHandle<()>,
}

/// Answers for a supervisor of a project on that engine on the socket at `path`, with mode 0600. Whoever calls holds the project's lock: a
/// file that is there already was left behind by a supervisor that is no more.
///
/// # Errors
/// When there can be no socket.
pub fn bind(
    path: &Path,
    project: &ProjectName,
    handle: Handle,
    engine: Option<EngineIdentity>,
    ticker: &Ticker,
) -> io::Result<Server> {
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
        // Who may use the socket may ask for a project of any size.
        .layer(DefaultBodyLimit::disable())
        .with_state(Supervisor { project: project.clone(), handle });
    let looked_at = path.to_owned();
    let removed = ticker.watch(move || is_removed(&looked_at));
    let task = tokio::spawn(serve(path.to_owned(), listener, removed, routes, journal, live));
    Ok(Server { path: path.to_owned(), task })
}

fn is_removed(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until the supervisor ends. A socket that is removed, as by whoever cleans up /run, is put back: else nobody could
/// ask for anything, and nobody could begin another supervisor.
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
            // Who comes after the supervisor's end finds nobody, instead of one who can answer nothing.
            if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(end(live)).await {
                tracing::error!(%error, "the control socket is closed");
            }
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
        let folder = path
            .parent()
            .map_or(Ok(()), |folder| fs::DirBuilder::new().recursive(true).mode(0o700).create(folder));
        match folder.and_then(|()| listen(&path)) {
            Ok(listener) => {
                tracing::warn!(path = %path.display(), "the control socket was removed, and is put back");
                told = false;
                // Those who are connected through the old one still get their answers.
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

/// Whose socket it is.
#[derive(Clone)]
struct Supervisor {
    project: ProjectName,
    handle: Handle,
}

/// Asks a supervisor of this process, and answers as its socket does.
///
/// # Errors
/// When it has ended.
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

/// What happened so far in a supervisor of this process.
#[must_use]
pub fn past(handle: &Handle) -> Vec<schema::Event> {
    handle.journal().follow().0.iter().map(convert::event).collect()
}

/// What happened so far in a supervisor of this process, and what happens until it ends, as its socket tells it.
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

/// A command of another release is told so.
async fn unknown() -> (StatusCode, String) {
    (StatusCode::NOT_FOUND, format!("the supervisor speaks {}", Version::own()))
}

async fn history(State(supervisor): State<Supervisor>) -> Json<Vec<schema::Event>> {
    Json(past(&supervisor.handle))
}

async fn events(State(supervisor): State<Supervisor>) -> Response {
    let lines = follow(&supervisor.handle).map(|line| {
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        Ok::<_, serde_json::Error>(Bytes::from(text))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}
