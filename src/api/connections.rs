//! The connections to a socket: who may speak, how many do at once, and how much and for how long each may.

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

/// For how long a request may take to name what it is about. It comes from this host.
const HEAD: Duration = Duration::from_secs(2);
/// For how long the rest of a request may take.
const BODY: Duration = Duration::from_secs(20);
/// How long the head of a request may be, in bytes.
const LONGEST_HEAD: usize = 16 << 10;
/// A request that is no longer than this does not count as large.
const SMALL: usize = 64 << 10;
/// So many large requests are read at once.
const LARGE_AT_ONCE: usize = 2;
/// After an error of the socket, such as that there are too few descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// What a socket allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// So many connections at once; more wait for one to end.
    pub connections: usize,
    /// The largest request, in bytes.
    pub body: usize,
}

/// Answers those who `may_speak`, by their user id, until the `end`; then those who are connected are answered, and no more.
pub(super) async fn serve(
    listener: UnixListener,
    routes: Router,
    limits: Limits,
    may_speak: impl Fn(u32) -> bool,
    end: impl Future<Output = ()>,
) {
    let large = Arc::new(Semaphore::new(LARGE_AT_ONCE));
    let routes = routes.layer(middleware::from_fn_with_state((limits.body, large), read_whole));
    let places = Arc::new(Semaphore::new(limits.connections));
    let (stop, stopped) = watch::channel(());
    let mut answering = JoinSet::new();
    let mut end = pin!(end);
    loop {
        let accepted = async {
            // It is never closed.
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
    // Who comes after the end finds nobody, instead of one who can answer nothing.
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
        .header_read_timeout(HEAD)
        .max_buf_size(LONGEST_HEAD)
        // A command connects for each request.
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

/// Takes in a request as a whole, before it takes anything of the supervisor.
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
        length => length.is_some_and(|length| length <= SMALL),
    };
    // Those of which it is not said how long they are have to be taken for large.
    let place = if is_small { None } else { large.acquire().await.ok() };
    match timeout(BODY, to_bytes(body, largest)).await {
        Ok(Ok(body)) => {
            drop(place);
            next.run(Request::from_parts(head, Body::from(body))).await
        }
        Ok(Err(_)) => too_large(largest),
        Err(_) => {
            (StatusCode::REQUEST_TIMEOUT, format!("no end within {} s", BODY.as_secs())).into_response()
        }
    }
}

fn too_large(largest: usize) -> Response {
    (StatusCode::PAYLOAD_TOO_LARGE, format!("more than {largest} bytes")).into_response()
}
