//! Connections to a socket: access control, and limits of their number, size and duration.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

/// Timeout for the head of a request. Requests come from this host, so they are fast.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// Timeout for the body of a request.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum size of the head of a request, in bytes.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// Maximum size of a body that does not count as large, in bytes.
const SMALL_BODY_BYTES: usize = 64 << 10;
/// The number of large bodies that are read at once.
const MAX_LARGE_BODIES: usize = 2;
/// Delay after an error of the listener, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// The limits of a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at once; further ones wait in the backlog.
    pub connections: usize,
    /// Maximum size of a body, in bytes.
    pub body: usize,
}

/// Serves clients whose user ID `may_speak` accepts. When `end` is done, closes the listener, finishes open requests,
/// and returns.
pub(super) async fn serve(
    listener: UnixListener,
    routes: Router,
    limits: Limits,
    may_speak: impl Fn(u32) -> bool,
    end: impl Future<Output = ()>,
) {
    let large = Arc::new(Semaphore::new(MAX_LARGE_BODIES));
    let routes = routes.layer(middleware::from_fn_with_state((limits.body, large), read_whole));
    let places = Arc::new(Semaphore::new(limits.connections));
    let (stop, stopped) = watch::channel(());
    let mut answering = JoinSet::new();
    let mut end = pin!(end);
    loop {
        let accepted = async {
            // `acquire_owned` fails only on a closed semaphore, and this one is never closed.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, stream) = tokio::select! {
            () = &mut end => break,
            (place, accepted) = accepted => match accepted {
                Ok((stream, _)) => (place, stream),
                Err(error) => {
                    tracing::debug!(%error, "nobody can connect to a socket");
                    sleep(PAUSE).await;
                    continue;
                }
            },
        };
        while answering.try_join_next().is_some() {}
        let peer = stream.peer_cred().map(|peer| peer.uid());
        if peer.as_ref().is_ok_and(|uid| may_speak(*uid)) {
            answering.spawn(answer(stream, routes.clone(), stopped.clone(), place));
        } else {
            tracing::debug!(?peer, "somebody else has connected to a socket");
        }
    }
    // Close the listener first: a late client then finds no supervisor, instead of one that cannot answer.
    drop((listener, stop));
    while answering.join_next().await.is_some() {}
}

async fn answer(
    stream: UnixStream,
    routes: Router,
    mut stopped: watch::Receiver<()>,
    _place: Option<OwnedSemaphorePermit>,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        // Commands open a connection for each request.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    let mut connection = pin!(connection);
    let done = tokio::select! {
        done = &mut connection => done,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = done {
        tracing::debug!(%error, "a connection to a socket broke off");
    }
}

/// Reads the complete body before the request uses any resource of the supervisor.
async fn read_whole(
    State((largest, large)): State<(usize, Arc<Semaphore>)>,
    request: Request,
    next: Next,
) -> Response {
    let (head, body) = request.into_parts();
    let length: Option<usize> =
        head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let is_small = match length {
        Some(length) if length > largest => return too_large(largest),
        length => length.is_some_and(|length| length <= SMALL_BODY_BYTES),
    };
    // Bodies of unknown length count as large.
    let place = if is_small { None } else { large.acquire().await.ok() };
    match timeout(BODY_TIMEOUT, to_bytes(body, largest)).await {
        Ok(Ok(body)) => {
            drop(place);
            next.run(Request::from_parts(head, Body::from(body))).await
        }
        Ok(Err(_)) => too_large(largest),
        Err(_) => (StatusCode::REQUEST_TIMEOUT, format!("no end within {} s", BODY_TIMEOUT.as_secs()))
            .into_response(),
    }
}

fn too_large(largest: usize) -> Response {
    (StatusCode::PAYLOAD_TOO_LARGE, format!("more than {largest} bytes")).into_response()
}
