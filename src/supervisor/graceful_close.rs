//! Before a replica is told to end: nothing more is let in on its connections, until it has closed those that it only
//! keeps. See [`crate::kernel::socket_filter`] for why.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};

use crate::kernel::{KernelError, socket_filter::SocketFilter, steering::Steering};

/// How long a server may take to read what has come.
const READS: Duration = Duration::from_millis(100);
/// Between two looks at what it has not read.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a server that was told to end may take to close the connections that it only keeps.
const CLOSES: Duration = Duration::from_secs(2);

/// How long the thread that has the rights may be busy with something else.
const BUSY: Duration = Duration::from_secs(1);

/// A replica that is about to be told to end, and the ports that its connections came to.
pub struct GracefulClose {
    /// Whose thread does what takes rights.
    pub steering: Arc<dyn Steering>,
    /// The replica's first process.
    pub pid: u32,
    /// Where its connections came to.
    pub ports: BTreeSet<u16>,
}

impl GracefulClose {
    /// Returns once it may be told to end. What is still connected after a moment has everything let in again. Where all
    /// that cannot be done, some connections are broken off, as they would be without us.
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
        // If we end before, our successor lets everything in.
        let steering = Arc::downgrade(&steering);
        tokio::spawn(async move {
            sleep(CLOSES).await;
            if let Some(steering) = steering.upgrade()
                && let Some(Err(error)) = delegate(&*steering, &filter, SocketFilter::end).await
            {
                tracing::warn!(%error, pid, "nothing is let in on connections of a replica that ends");
            }
        });
    }
}

/// Has it done by the thread that has the rights; none if there is no such thread, or it does not come to it.
async fn delegate<T: Send + 'static>(
    steering: &dyn Steering,
    filter: &Arc<SocketFilter>,
    job: fn(&SocketFilter) -> Result<T, KernelError>,
) -> Option<Result<T, KernelError>> {
    let (sender, done) = oneshot::channel();
    let filter = Arc::clone(filter);
    steering.delegate(Box::new(move || {
        // Whoever has asked may have gone.
        let _ = sender.send(job(&filter));
    }));
    timeout(BUSY, done).await.ok()?.ok()
}
