//! What cannot be said without `unsafe`: the layout of the maps that the programs in `bpf/` share with us, as
//! `bpf/sameport.h` has it, the socket option for which no crate has a call, and what tokio has to be promised.

#![allow(unsafe_code)]

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use aya::Pod;
use tokio::io::unix::AsyncFd;

/// Endpoints of a pod: a replica's part in a port.
pub const ENDPOINTS: u32 = 1024;
/// Endpoints of a pod with many ports.
pub const ENDPOINTS_OF_LARGE: u32 = 8192;
/// Reuseport groups of a port at most: one for each address that it is listened on.
pub const GROUPS: usize = 8;
/// Listeners of one replica on one port at most.
pub const LISTENERS_OF_ENDPOINT: usize = 126;
/// Places of a table of weighted round robin at most.
pub const WRR_TABLE: usize = 1024;
/// Listeners of a pod at most.
pub const LISTENERS: u32 = 8192;
/// Listeners of one replica at one address that its own connections are spread over.
pub const SLOTS: u8 = 64;
/// Services of a pod that are told apart.
pub const SERVICES: u32 = 64;

/// In place of an address, for `::` without IPv4: see `bpf/sameport.h`.
pub const ONLY_V6: u32 = 0xffff_ff16;
/// An IPv6 address, or an IPv4 one as IPv6 has it, in network order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Addr {
    /// Its words.
    pub words: [u32; 4],
}

impl Addr {
    /// Of a socket that is bound there.
    #[must_use]
    pub fn bound(address: IpAddr, only_v6: bool) -> Self {
        if only_v6 && address.is_ipv6() && address.is_unspecified() {
            return Self { words: [ONLY_V6; 4] };
        }
        address.into()
    }
}

impl From<IpAddr> for Addr {
    fn from(address: IpAddr) -> Self {
        let address = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let bytes = address.octets();
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self { words: [word(0), word(4), word(8), word(12)] }
    }
}

/// Whose a control group is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Cookie of the pod's network namespace.
    pub netns: u64,
    /// The service's number in the pod.
    pub service: u32,
    /// The replica's slot.
    pub slot: u32,
}

/// A replica.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplicaKey {
    /// Cookie of the pod's network namespace.
    pub netns: u64,
    /// The service's number in the pod.
    pub service: u32,
    /// Its slot.
    pub slot: u32,
}

/// An address and port of one replica.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BindKey {
    /// Id of its control group.
    pub cgroup: u64,
    /// The address.
    pub addr: Addr,
    /// The port.
    pub port: u16,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u8,
    /// Of several listeners there, which one.
    pub slot: u8,
    /// Of the cookie of its network namespace, the lower half.
    pub netns: u32,
}

/// An address and port of a pod.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServedKey {
    /// Cookie of the pod's network namespace.
    pub netns: u64,
    /// The address.
    pub addr: Addr,
    /// The port; 0 where only the address matters.
    pub port: u16,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`; 0 where only the address matters.
    pub protocol: u8,
    /// Nothing.
    pub unused: [u8; 5],
}

/// A port of a pod, in the pod's own maps.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodPortKey {
    /// Its number.
    pub port: u16,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u8,
    /// Nothing.
    pub unused: u8,
}

/// A port: its number among the pod's, and the addresses that it is listened on. Groups are bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortEntry {
    /// By which its tables are found.
    pub number: u32,
    /// [`CLOSED_V4`], [`CLOSED_V6`], [`DECLARED`], [`SILENT`].
    pub flags: u32,
    /// The endpoint behind which connections wait while no replica is ready.
    pub hold: u32,
    /// Groups of all addresses that take packets of IPv4.
    pub any_v4: u32,
    /// As above, of IPv6.
    pub any_v6: u32,
    /// Groups of one IPv4 address.
    pub exact_v4: u32,
    /// Groups of one IPv6 address.
    pub exact_v6: u32,
    /// Of groups of one address, which.
    pub addrs: [Addr; GROUPS],
}

/// Nobody is let in by IPv4 at an address that no replica listens on.
pub const CLOSED_V4: u32 = 1;
/// As above, by IPv6.
pub const CLOSED_V6: u32 = 2;
/// It is published or exposed.
pub const DECLARED: u32 = 4;
/// Whoever is not let in by TCP gets no answer: it goes to the socket whose place is in the upper half.
pub const SILENT: u32 = 8;

/// Which replicas get new connections of a port.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// How one is chosen: a number of `enum policy`.
    pub policy: u32,
    /// How many places are in use.
    pub size: u32,
    /// How many connections may wait while nobody is ready.
    pub hold: u32,
    /// Nothing.
    pub unused: u32,
    /// Endpoints, each as often as its weight says: in the lower half its number, in the upper its weight.
    pub places: [u32; WRR_TABLE],
}

/// How to reach a replica on a port.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Groups in which it listens, as bits.
    pub present: u32,
    /// Its listeners in each group.
    pub groups: [GroupOfEndpoint; GROUPS],
    /// Their places in the map of sockets.
    pub listeners: [u16; LISTENERS_OF_ENDPOINT],
}

/// Listeners of a replica in one group.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupOfEndpoint {
    /// The first of them.
    pub first: u16,
    /// How many there are.
    pub count: u16,
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
    /// Connections that were reset; of those who wait, ones that were refused. Of UDP: when it was begun to
    /// count here, in ms.
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
    /// In which group of it; from the second byte on, 1 more than its slot.
    pub group: u32,
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
pub struct ReplicaAddrKey {
    /// The port's number among the pod's.
    pub port: u32,
    /// IPv4, as a number.
    pub addr: u32,
}

/// A port that a release of layout 0 or 1 has closed, for one family of packets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PreviousShutKey {
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

/// A UDP socket has got its port.
pub const NOTICE_BOUND: u32 = 1;
/// A TCP socket listens.
pub const NOTICE_LISTENS: u32 = 2;
/// A TCP socket listens no more.
pub const NOTICE_CLOSED: u32 = 3;
/// A port is wanted by another user than the one who shares it.
pub const NOTICE_OTHER_USER: u32 = 4;
/// A port that one replica holds alone is wanted by another one.
pub const NOTICE_EXCLUSIVE: u32 = 5;
/// A program wants to choose who gets the connections of a port, which it may not.
pub const NOTICE_CHOOSES: u32 = 6;

impl Listener {
    /// A listener; `slot` is its place among those that its replica's own connections find, if we have given it one.
    #[must_use]
    pub fn new(index: u32, endpoint: u32, port: u32, group: usize, slot: Option<u8>) -> Self {
        let group = u32::try_from(group).unwrap_or(0);
        Self { index, endpoint, port, group: group | slot.map_or(0, |slot| (u32::from(slot) + 1) << 8) }
    }

    /// The number of its group.
    #[must_use]
    pub fn group(&self) -> u32 {
        self.group & 0xff
    }

    /// Its place among those that its replica's own connections find.
    #[must_use]
    pub fn slot(&self) -> Option<u8> {
        u8::try_from((self.group >> 8).checked_sub(1)?).ok()
    }
}

impl Table {
    /// Nobody is ready, and nobody waits.
    pub const EMPTY: Self = Self { policy: 0, size: 0, hold: 0, unused: 0, places: [0; WRR_TABLE] };
}

impl Endpoint {
    /// There are no listeners.
    pub const EMPTY: Self = Self {
        present: 0,
        groups: [GroupOfEndpoint { first: 0, count: 0 }; GROUPS],
        listeners: [0; LISTENERS_OF_ENDPOINT],
    };
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
unsafe impl Pod for Addr {}
// SAFETY: as above.
unsafe impl Pod for Member {}
// SAFETY: as above.
unsafe impl Pod for ReplicaKey {}
// SAFETY: as above.
unsafe impl Pod for BindKey {}
// SAFETY: as above.
unsafe impl Pod for ServedKey {}
// SAFETY: as above.
unsafe impl Pod for PodPortKey {}
// SAFETY: as above.
unsafe impl Pod for PreviousShutKey {}
// SAFETY: as above.
unsafe impl Pod for PortEntry {}
// SAFETY: as above.
unsafe impl Pod for ReplicaAddrKey {}

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

/// Gives the kernel back what is free of the heap, wherever it is
/// ([`malloc_trim(3)`](https://man7.org/linux/man-pages/man3/malloc_trim.3.html)); by itself the C library does so at the
/// heap's end only. It takes less than a millisecond, and what is in use stays where it is.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and changes nothing that is in use. Whether there was anything to give back does not matter.
    let _ = unsafe { libc::malloc_trim(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `bpf/sameport.h` has these sizes by the same rules; a field between two others would leave a gap.
    #[test]
    fn no_layout_has_padding() {
        assert_eq!(size_of::<Addr>(), 16);
        assert_eq!(size_of::<Member>(), 16);
        assert_eq!(size_of::<ReplicaKey>(), 16);
        assert_eq!(size_of::<PreviousShutKey>(), 8);
        assert_eq!(size_of::<BindKey>(), 32);
        assert_eq!(size_of::<ServedKey>(), 32);
        assert_eq!(size_of::<PodPortKey>(), 4);
        assert_eq!(size_of::<PortEntry>(), 7 * 4 + 16 * GROUPS);
        assert_eq!(size_of::<Table>(), 16 + 4 * WRR_TABLE);
        assert_eq!(size_of::<Endpoint>(), 4 + 4 * GROUPS + 2 * LISTENERS_OF_ENDPOINT);
        assert_eq!(size_of::<Counts>(), 64);
        assert_eq!(size_of::<Tag>(), 16);
        assert_eq!(size_of::<Listener>(), 16);
        assert_eq!(size_of::<PortKey>(), 16);
        assert_eq!(size_of::<ReplicaAddrKey>(), 8);
        assert_eq!(size_of::<Notice>(), 32);
    }

    #[test]
    fn an_address_has_one_form_for_sockets_and_packets() {
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(addr("127.0.0.1"), addr("::ffff:127.0.0.1"));
        assert_eq!(addr("1.2.3.4").words.map(u32::to_be), [0, 0, 0xffff, 0x0102_0304]);
        assert_eq!(addr("::").words, [0; 4]);
        let any = "::".parse().unwrap();
        assert_eq!(Addr::bound(any, false), addr("::"));
        assert_ne!(Addr::bound(any, true), addr("::"));
        assert_eq!(Addr::bound("::1".parse().unwrap(), true), addr("::1"));
    }

    #[test]
    fn every_socket_knows_its_network() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(netns_cookie(&socket).unwrap(), netns_cookie(&other).unwrap());
    }
}
