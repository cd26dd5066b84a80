//! What cannot be said without `unsafe`: the layout of the maps that the programs in `bpf/` share with us, as
//! `bpf/sameport.h` has it, the one socket option for which no crate has a call, and what tokio has to be promised.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use aya::Pod;
use tokio::io::unix::AsyncFd;

/// Pods of a project at most.
pub const PODS: u32 = 256;
/// Ports of a project at most: a protocol and a number in a pod.
pub const PORTS: u32 = 64;
/// Endpoints of a project at most: a replica's part in a port.
pub const ENDPOINTS: u32 = 1024;
/// Reuseport groups of a port at most: one for each address that it is listened on.
pub const DOORS: usize = 4;
/// Listeners of one replica in one group at most.
pub const LISTENERS_OF_DOOR: usize = 63;
/// Places of a wheel at most.
pub const WHEEL: usize = 1024;
/// Listeners of a project at most.
pub const LISTENERS: u32 = 8192;

/// Which replicas get new connections of a port.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// How one is chosen: a number of `enum policy`.
    pub policy: u32,
    /// How many places of the wheel are in use.
    pub size: u32,
    /// How many connections may wait while nobody is ready.
    pub hold: u32,
    /// Nothing.
    pub unused: u32,
    /// Endpoints, each as often as its weight says: in the lower half its number, in the upper its weight.
    pub wheel: [u32; WHEEL],
}

/// How to reach a replica on a port.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Its listeners in each group.
    pub doors: [DoorOfEndpoint; DOORS],
}

/// Listeners of a replica in one group.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DoorOfEndpoint {
    /// How many there are.
    pub count: u16,
    /// Their places in the array of sockets.
    pub listeners: [u16; LISTENERS_OF_DOOR],
}

/// What was counted at an endpoint.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that are open now.
    pub live: i64,
    /// Connections so far; of UDP, flows.
    pub total: u64,
    /// Of UDP: when the last datagram came, in nanoseconds since boot.
    pub last: u64,
    /// Connections that ended without a goodbye; of those who wait, ones that were refused.
    pub reset: u64,
    /// Of TCP: open connections that the replica has not ended, whether or not the client has.
    pub unfinished: i64,
    /// Of TCP: connections that were chosen and are not open yet, about.
    pub expected: i64,
    /// When half of `expected` was forgotten last, in jiffies.
    pub halved: u64,
    /// Of TCP: when it began what it works on, in ticks of 1024 ns that begin anew each 73 minutes.
    pub began: u32,
    /// Of TCP: for how many of them the connection was open that it ended last.
    pub took: u32,
}

/// What a listener is; each connection that it accepts inherits it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// Where its connections are counted.
    pub endpoint: u32,
    /// Of a connection: in what it is counted, 0 for nothing.
    pub counted: u32,
    /// Of a connection: when it was opened, in ticks of 1024 ns.
    pub opened: u32,
    /// Nothing.
    pub unused: u32,
}

/// What a listener is, by its socket's cookie.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its place in the array of sockets.
    pub index: u32,
    /// Whose it is.
    pub endpoint: u32,
    /// On which port.
    pub port: u32,
    /// In which group of it.
    pub door: u32,
}

/// A port of a pod.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortKey {
    /// Cookie of the pod's network namespace.
    pub netns: u64,
    /// Its number.
    pub port: u16,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u8,
    /// Nothing.
    pub unused: [u8; 5],
}

/// The address of a single replica on a port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnKey {
    /// The port's number among the project's.
    pub port: u32,
    /// IPv4, as a number.
    pub address: u32,
}

/// A port that is shut, for one family of packets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GateKey {
    /// The pod's number among the project's.
    pub pod: u32,
    /// The port.
    pub port: u16,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u8,
    /// `AF_INET` or `AF_INET6`.
    pub family: u8,
}

/// What the programs tell of their own accord.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notice {
    /// Cookie of the network namespace.
    pub netns: u64,
    /// Id of the process's control group.
    pub cgroup: u64,
    /// A number of `enum event_kind`.
    pub kind: u32,
    /// The port.
    pub port: u32,
    /// Its protocol.
    pub protocol: u32,
    /// Of which user.
    pub user: u32,
}

/// A port is wanted by another user than the one who shares it.
pub const NOTICE_OTHER_USER: u32 = 4;

impl Table {
    /// Nobody is ready, and nobody waits.
    pub const EMPTY: Self = Self { policy: 0, size: 0, hold: 0, unused: 0, wheel: [0; WHEEL] };
}

impl Endpoint {
    /// There are no listeners.
    pub const EMPTY: Self =
        Self { doors: [DoorOfEndpoint { count: 0, listeners: [0; LISTENERS_OF_DOOR] }; DOORS] };
}

impl Notice {
    /// Reads what came through the ring buffer.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let long = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        Some(Self {
            netns: long(0)?,
            cgroup: long(8)?,
            kind: word(16)?,
            port: word(20)?,
            protocol: word(24)?,
            user: word(28)?,
        })
    }
}

// SAFETY: each is `repr(C)`, made of whole numbers only, and without padding (the test below), so that any bytes of
// its size are a value of it and none is left unset.
unsafe impl Pod for Table {}
// SAFETY: as above.
unsafe impl Pod for Endpoint {}
// SAFETY: as above.
unsafe impl Pod for Counts {}
// SAFETY: as above.
unsafe impl Pod for Tag {}
// SAFETY: as above.
unsafe impl Pod for Listener {}
// SAFETY: as above.
unsafe impl Pod for PortKey {}
// SAFETY: as above.
unsafe impl Pod for OwnKey {}
// SAFETY: as above.
unsafe impl Pod for GateKey {}

/// `SO_NETNS_COOKIE` of `asm-generic/socket.h`, since Linux 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The number by which the kernel's programs know the network namespace of a socket; never used twice.
///
/// # Errors
/// When the kernel is older than 5.14.
pub fn netns_cookie(socket: &impl AsFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut size = libc::socklen_t::try_from(size_of::<u64>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open during the call, and the kernel writes `size` bytes at most, which is what
    // `cookie` has.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// Raises the loopback interface of this thread's network namespace, as `ip link set lo up` does.
///
/// # Errors
/// When we may not (`CAP_NET_ADMIN`).
pub fn raise_loopback() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: all bytes zero are a valid value of this C structure of numbers and arrays of them.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(*b"lo") {
        *place = libc::c_char::try_from(byte).map_err(io::Error::other)?;
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open during the call, and the kernel reads one `ifreq` of it.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets tokio tell when there is something to read from a descriptor that does not block.
///
/// # Errors
/// When the kernel cannot tell it.
pub fn asynchronous(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: what is owned is open, stays open and stays the same until it is dropped.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// Has the C library hold no more memory than is needed
/// ([`mallopt(3)`](https://man7.org/linux/man-pages/man3/mallopt.3.html)).
///
/// It gives back what is free as soon as that is a megabyte, also where it once was much more (`M_TRIM_THRESHOLD`): after a
/// large piece it would keep twice as much from then on, and to load one BPF program takes 30 MB for a moment. All threads
/// share one heap (`M_ARENA_MAX`): with one for each, each keeps what it needed most.
pub fn save_memory() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(libc::M_TRIM_THRESHOLD, 1 << 20), (libc::M_ARENA_MAX, 1)] {
        // SAFETY: it takes no pointer, and changes nothing that is in use. It fails only for values out of range.
        let _ = unsafe { libc::mallopt(parameter, value) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `bpf/sameport.h` has these sizes by the same rules; a field between two others would leave a gap.
    #[test]
    fn no_layout_has_padding() {
        assert_eq!(size_of::<Table>(), 16 + 4 * WHEEL);
        assert_eq!(size_of::<Endpoint>(), DOORS * (2 + 2 * LISTENERS_OF_DOOR));
        assert_eq!(size_of::<Counts>(), 64);
        assert_eq!(size_of::<Tag>(), 16);
        assert_eq!(size_of::<Listener>(), 16);
        assert_eq!(size_of::<PortKey>(), 16);
        assert_eq!(size_of::<OwnKey>(), 8);
        assert_eq!(size_of::<GateKey>(), 8);
        assert_eq!(size_of::<Notice>(), 32);
    }

    #[test]
    fn every_socket_knows_its_network() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(netns_cookie(&socket).unwrap(), netns_cookie(&other).unwrap());
    }
}
