//! Before a replica is stopped: drops incoming data on its connections until it has closed the idle ones. See
//! [`crate::kernel::socket_filter`] for the reason.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};

use crate::kernel::{KernelError, socket_filter::SocketFilter, steering::Steering};

/// How long a server may take to read what it has received.
const READS: Duration = Duration::from_millis(100);
/// The interval of checks for unread data.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a server may take to close its idle connections after the stop signal.
const CLOSES: Duration = Duration::from_secs(2);

/// How long to wait for the privileged thread.
const BUSY: Duration = Duration::from_secs(1);

/// A replica that is about to be stopped, and the ports of its connections.
pub struct GracefulClose {
    /// Provides the privileged thread.
    pub steering: Arc<dyn Steering>,
    /// The process ID of the replica's main process.
    pub pid: u32,
    /// The local ports of its connections.
    pub ports: BTreeSet<u16>,
}

impl GracefulClose {
    /// Returns once the replica can be stopped. Connections that are still open 2 s later receive data again. On
    /// failure, some connections may be reset, as without this filter.
    pub async fn filter(self) {
        let begin = Instant::now();
        let Self { steering, pid, ports } = self;
        let filter = match SocketFilter::of(pid, ports) {
            Ok(filter) => Arc::new(filter),
            Err(error) => {
                return tracing::debug!(%error, "cannot wait until a replica has closed its connections");
            }
        };
        loop {
            match delegate(&*steering, &filter, SocketFilter::begin).await {
                Some(Ok(false)) if begin.elapsed() < READS => sleep(PAUSE).await,
                Some(Ok(_)) => break,
                Some(Err(error)) => {
                    tracing::warn!(%error, pid, "connections of a replica that ends may be broken off");
                    break;
                }
                None => return,
            }
        }
        // If this supervisor ends first, the next one removes the filter.
        let steering = Arc::downgrade(&steering);
        tokio::spawn(async move {
            sleep(CLOSES).await;
            if let Some(steering) = steering.upgrade()
                && let Some(Err(error)) = delegate(&*steering, &filter, SocketFilter::end).await
            {
                tracing::warn!(%error, pid, "cannot filter the connections of a stopping replica");
            }
        });
    }
}

/// Runs a job in the privileged thread; `None` if there is no such thread or it does not respond in time.
async fn delegate<T: Send + 'static>(
    steering: &dyn Steering,
    filter: &Arc<SocketFilter>,
    job: fn(&SocketFilter) -> Result<T, KernelError>,
) -> Option<Result<T, KernelError>> {
    let (sender, done) = oneshot::channel();
    let filter = Arc::clone(filter);
    steering.delegate(Box::new(move || {
        // The caller may have timed out.
        let _ = sender.send(job(&filter));
    }));
    timeout(BUSY, done).await.ok()?.ok()
}
