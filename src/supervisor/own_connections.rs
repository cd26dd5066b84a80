//! Opens test connections to a new version, so that it is known whether connections reach it before it replaces the old
//! version, also without clients.
//!
//! They go to the pod's address, to which Docker forwards those of clients, and are counted like them. Each is closed
//! as soon as it is established, which servers know from the checks of load balancers.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use crate::{
    kernel::{KernelError, Netns, netns},
    spec::ServiceName,
};

/// The delay between two connections.
const PAUSE: Duration = Duration::from_millis(100);
/// Timeout to establish a connection, and then for the server to close it.
const LIMIT: Duration = Duration::from_millis(300);
/// The maximum number of connections for a rollout.
const MOST: u32 = 400;

/// The destination of test connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct To {
    /// A process in the pod's network namespace.
    pub pid: u32,
    /// The inode of that network namespace, in case the process ID has been reused.
    pub netns: u64,
    /// The port in the pod.
    pub port: u16,
}

/// The test connections to all services that need some.
#[derive(Debug, Default)]
pub struct OwnConnections {
    running: BTreeMap<ServiceName, Task>,
}

/// Aborts the task when dropped.
#[derive(Debug)]
struct Task {
    to: To,
    handle: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl OwnConnections {
    /// Connects repeatedly to these destinations, and stops connecting to others.
    pub fn follow(&mut self, wanted: &BTreeMap<ServiceName, To>) {
        self.running.retain(|name, task| wanted.get(name) == Some(&task.to));
        for (name, to) in wanted {
            let begin = || Task { to: *to, handle: tokio::spawn(connect_often(*to)) };
            self.running.entry(name.clone()).or_insert_with(begin);
        }
    }
}

async fn connect_often(to: To) {
    for _ in 0..MOST {
        match tokio::task::spawn_blocking(move || connect(to)).await {
            Ok(Ok(())) | Err(_) => {}
            // The effect is visible in the connection counters.
            Ok(Err(error)) => tracing::debug!(%error, port = to.port, "a connection of our own"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn connect(To { pid, netns, port }: To) -> Result<(), KernelError> {
    let network = Netns::of(pid)?;
    if network.inode != netns {
        return Ok(());
    }
    let stream = network.within(|| {
        let Some(address) = address()? else { return Ok(None) };
        Ok(Some(TcpStream::connect_timeout(&SocketAddr::from((address, port)), LIMIT)))
    })?;
    if let Some(stream) = stream {
        stream.and_then(end).map_err(KernelError::io("connect to the pod's address"))?;
    }
    Ok(())
}

/// The address of the pod to which Docker forwards.
fn address() -> Result<Option<Ipv4Addr>, KernelError> {
    let addresses = netns::addresses()?.into_iter();
    Ok(addresses
        .filter_map(|address| match address {
            IpAddr::V4(address) if !address.is_loopback() && !address.is_link_local() => Some(address),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        })
        .next())
}

/// Closes this side and waits for the server to close its side: closing a connection with unread data would reset it.
fn end(mut stream: TcpStream) -> io::Result<()> {
    let deadline = Instant::now() + LIMIT;
    stream.shutdown(Shutdown::Write)?;
    let mut greeting = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        stream.set_read_timeout(Some(left))?;
        if stream.read(&mut greeting)? == 0 {
            return Ok(());
        }
    }
}
