//! Connections of our own to a new version: whether any reach it has to be known before it takes the place of the old one, also
//! where no clients come.
//!
//! They go to the pod's address, as Docker forwards those of clients, and are counted as these are. One ends as soon as
//! it has begun, which servers know from the checks of load balancers.

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

/// From one connection to the next one.
const PAUSE: Duration = Duration::from_millis(100);
/// For how long one may take to be accepted, and then to be closed by the server.
const LIMIT: Duration = Duration::from_millis(300);
/// So many are made for a rollout at most.
const MOST: u32 = 400;

/// Where connections go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct To {
    /// A process in the pod's network.
    pub pid: u32,
    /// The network: another process may have got that id.
    pub netns: u64,
    /// The port.
    pub port: u16,
}

/// The connections to all services that need some.
#[derive(Debug, Default)]
pub struct OwnConnections {
    running: BTreeMap<ServiceName, Task>,
}

/// It ends when this is dropped.
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
    /// Connects there, again and again, and nowhere else.
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
            // What follows from that is seen by what is counted.
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

/// The address of the pod that Docker forwards to: it has no other one that is not its own.
fn address() -> Result<Option<Ipv4Addr>, KernelError> {
    let addresses = netns::addresses()?.into_iter();
    Ok(addresses
        .filter_map(|address| match address {
            IpAddr::V4(address) if !address.is_loopback() && !address.is_link_local() => Some(address),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        })
        .next())
}

/// Closes its side and waits for the server's: a connection that is closed with something unread is reset.
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
