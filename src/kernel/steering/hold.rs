//! A listener of our own behind which connections wait while no replica is ready.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

use rustix::{
    fs::{Gid, Uid, fchown},
    process::{Resource, getrlimit},
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::kernel::{
    KernelError, Netns,
    sockets::{Bound, Transport},
};

/// How many connections may wait at a port.
pub const MOST: u32 = 1024;

/// Descriptors with the highest numbers are left to what a supervisor cannot do without, such as calls of the engine: a
/// quarter of those that it may have, and no more than so many.
const LEFT: u64 = 256;

/// How many files this process may have open, if that is limited.
pub fn most_files() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// The number from which on descriptors are for nothing that can be done without. The limit may change while we run.
pub fn ceiling() -> u64 {
    most_files().map_or(u64::MAX, |most| most - LEFT.min(most / 4))
}

/// Whether one more listener can be opened. `any` is any open file.
pub fn has_file(any: impl AsFd) -> bool {
    // The kernel gives out the lowest number that is free.
    rustix::io::fcntl_dupfd_cloexec(any, 0).is_ok_and(|next| number(&next) < ceiling())
}

/// The number of a descriptor, as [`ceiling`] has it.
pub fn number(file: impl AsFd) -> u64 {
    u64::try_from(file.as_fd().as_raw_fd()).unwrap_or(u64::MAX)
}

/// The listener, and since when each connection waits.
#[derive(Debug)]
pub struct Hold {
    socket: Socket,
    /// Never used twice.
    pub cookie: u64,
    /// Its place in the array of sockets.
    pub index: u32,
    /// The kernel's queue is first in, first out, and so is this.
    since: VecDeque<Instant>,
}

impl Hold {
    /// Opens one in the group of those that listen there, for the user who shares the port: the kernel lets nobody
    /// else in (`inet_reuseport_add_sock` compares the owners of the sockets).
    ///
    /// # Errors
    /// When the address is taken by another user, or was let go.
    pub fn open(netns: &Netns, bound: &Bound, user: u32, index: u32) -> Result<Self, KernelError> {
        let fail = || KernelError::io(format!("hold connections to port {}", bound.address.port()));
        let socket = netns.within(|| {
            let socket = bind(bound, user).map_err(fail())?;
            let backlog = i32::try_from(MOST).unwrap_or(i32::MAX);
            socket.listen(backlog).map_err(fail())?;
            Ok(socket)
        })?;
        socket.set_nonblocking(true).map_err(fail())?;
        let cookie = rustix::net::sockopt::socket_cookie(&socket).map_err(|errno| fail()(errno.into()))?;
        Ok(Self { socket, cookie, index, since: VecDeque::new() })
    }

    /// Whether its descriptor is one of those that are left to others. It was not when it was opened: the limit was lowered
    /// since.
    pub fn is_in_the_way(&self) -> bool {
        u64::try_from(self.socket.as_raw_fd()).is_ok_and(|number| number >= ceiling())
    }

    /// The listener.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Lets another user share the port.
    ///
    /// # Errors
    /// When we may not (`CAP_CHOWN`).
    pub fn belong_to(&self, user: u32) -> Result<(), KernelError> {
        belong_to(&self.socket, user).map_err(KernelError::io(format!("give a socket to user {user}")))
    }

    /// Takes note of how many connections wait, and refuses those that have waited for longer than `limit`.
    pub fn expire(&mut self, waiting: usize, limit: Duration, now: Instant) {
        self.since.truncate(waiting);
        self.since.resize(waiting, now);
        while let Some(since) = self.since.front()
            && now.duration_since(*since) >= limit
        {
            self.since.pop_front();
            match self.socket.accept() {
                Ok((connection, _)) => {
                    // It ends with a reset, as a refused one does. Without this the client is told by an ordinary end.
                    let _ = connection.set_linger(Some(Duration::ZERO));
                }
                // The client has gone, and the kernel has forgotten it.
                Err(_) => break,
            }
        }
    }
}

/// The owner of a socket's inode is the user whom the kernel compares (`sockfs_setattr`).
fn belong_to(socket: &Socket, user: u32) -> io::Result<()> {
    Ok(fchown(socket, Some(Uid::from_raw(user)), None::<Gid>)?)
}

/// Binds a socket as a user's that shares its port. It is to be done in the network that it is for.
///
/// # Errors
/// Of a kind `AddrInUse` when the kernel does not let that user in.
pub fn bind(bound: &Bound, user: u32) -> io::Result<Socket> {
    let domain = if bound.address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if bound.address.is_ipv6() {
        socket.set_only_v6(bound.only_v6)?;
    }
    // Connections of the past (TIME_WAIT), and those of other users, would keep us out.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    belong_to(&socket, user)?;
    socket.bind(&bound.address.into())?;
    Ok(socket)
}

impl Bound {
    /// Whether connections can wait there. Who asks for a loopback address means his own replica, or a neighbour's: if it does
    /// not listen he is refused, as in a container of its own.
    #[must_use]
    pub fn can_hold(&self) -> bool {
        self.transport == Transport::Tcp && !self.address.ip().to_canonical().is_loopback()
    }
}
