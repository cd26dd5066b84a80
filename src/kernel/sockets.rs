//! The listening sockets of a network, as `sock_diag` (7) shows them.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla},
};
use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_SOCK_DIAG};

use super::{KernelError, Netns, raw};

/// Transport protocol of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl Transport {
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// From its number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }
}

/// Where a group of listeners listens: all sockets that share it are one reuseport group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bound {
    /// Its protocol.
    pub transport: Transport,
    /// Address and port.
    pub address: SocketAddr,
    /// Whether an IPv6 one takes no IPv4.
    pub only_v6: bool,
}

impl Bound {
    /// Whether packets of IPv4 reach it.
    #[must_use]
    pub fn takes_v4(&self) -> bool {
        self.address.is_ipv4() || (!self.only_v6 && self.address.ip().is_unspecified())
    }

    /// Whether packets of IPv6 reach it.
    #[must_use]
    pub fn takes_v6(&self) -> bool {
        self.address.is_ipv6()
    }

    /// Whether packets of IPv4 from outside of its network reach it.
    #[must_use]
    pub fn is_open_v4(&self) -> bool {
        let address = self.address.ip().to_canonical();
        !address.is_loopback() && (address.is_ipv4() || self.takes_v4())
    }

    /// Whether packets of IPv6 from outside of its network reach it.
    #[must_use]
    pub fn is_open_v6(&self) -> bool {
        let address = self.address.ip().to_canonical();
        !address.is_loopback() && address.is_ipv6()
    }
}

/// A TCP socket that listens, or a UDP socket that takes datagrams from anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where it listens.
    pub bound: Bound,
    /// Never used twice.
    pub cookie: u64,
    /// Its inode, as `/proc/PID/fd` shows it.
    pub inode: u64,
    /// Who made it.
    pub user: u32,
    /// Id of the control group of the process that made it; none on kernels before 5.7.
    pub cgroup: Option<u64>,
    /// Of TCP: how many connections wait to be accepted. Of UDP: bytes that wait.
    pub waiting: u32,
    /// Handshakes, or datagrams, that it had no room for so far (`sk_drops`). A client tries its handshake again, so it may
    /// count several times.
    pub dropped: u32,
}

/// Asks a network for its sockets.
pub struct Diagnosis {
    socket: Socket,
    buffer: Vec<u8>,
    /// By which the kernel's programs know the network.
    pub cookie: u64,
}

const LISTEN: StateFlags = StateFlags::LISTEN;
/// A UDP socket that is bound and not connected.
const UNCONNECTED: StateFlags = StateFlags::CLOSE;
/// A connection that is open, or not yet ended by both sides.
const OPEN: StateFlags = StateFlags::ESTABLISHED
    .union(StateFlags::FIN_WAIT1)
    .union(StateFlags::FIN_WAIT2)
    .union(StateFlags::CLOSE_WAIT)
    .union(StateFlags::LAST_ACK)
    .union(StateFlags::CLOSING);
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// An attribute that the crate has no name for (`linux/inet_diag.h`).
const INET_DIAG_CGROUP_ID: u16 = 21;
/// A request that the crate has no name for (`linux/sock_diag.h`).
const SOCK_DESTROY: u16 = 21;

impl Diagnosis {
    /// For a network; the answers stay those of that network wherever we are.
    ///
    /// # Errors
    /// When we may not enter it, or the kernel has no `sock_diag`.
    pub fn of(netns: &Netns) -> Result<Self, KernelError> {
        netns.within(|| {
            let fail = || KernelError::io("ask a pod's network for its sockets");
            let mut socket = Socket::new(NETLINK_SOCK_DIAG).map_err(fail())?;
            socket.bind_auto().map_err(fail())?;
            socket.connect(&NetlinkAddress::new(0, 0)).map_err(fail())?;
            let probe = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(fail())?;
            let cookie = raw::netns_cookie(&probe).map_err(fail())?;
            Ok(Self { socket, buffer: vec![0; 32 * 1024], cookie })
        })
    }

    /// Every TCP socket that listens and every UDP socket that takes datagrams from anybody.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn rows(&mut self) -> Result<Vec<Row>, KernelError> {
        let mut rows = Vec::new();
        for family in [AF_INET, AF_INET6] {
            for (transport, state) in [(Transport::Tcp, LISTEN), (Transport::Udp, UNCONNECTED)] {
                self.dump(family, transport, state, &mut rows)?;
            }
        }
        // It lists a socket twice if others come between two parts of its answer.
        let mut seen = BTreeSet::new();
        rows.retain(|row| seen.insert(row.cookie));
        Ok(rows)
    }

    /// Every UDP socket that is connected: a client's, or one that a server has for a single client.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn connected_udp(&mut self) -> Result<Vec<Row>, KernelError> {
        let mut rows = Vec::new();
        for family in [AF_INET, AF_INET6] {
            self.dump(family, Transport::Udp, StateFlags::ESTABLISHED, &mut rows)?;
        }
        Ok(rows)
    }

    /// Every TCP connection that came to a port, as far as a process has it: what waits to be accepted has no inode.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn connections(&mut self, port: u16) -> Result<Vec<Row>, KernelError> {
        let mut rows = Vec::new();
        for family in [AF_INET, AF_INET6] {
            self.dump_port(family, Transport::Tcp, OPEN, port, &mut rows)?;
        }
        Ok(rows)
    }

    fn dump(
        &mut self,
        family: u8,
        transport: Transport,
        states: StateFlags,
        rows: &mut Vec<Row>,
    ) -> Result<(), KernelError> {
        self.dump_port(family, transport, states, 0, rows)
    }

    /// Ends every TCP connection from or to one of these addresses of the network, as `ss --kill` does: its process learns
    /// of it by an error. Returns how many.
    ///
    /// # Errors
    /// When the kernel cannot end connections (`CONFIG_INET_DIAG_DESTROY`), or does not answer.
    pub fn end_connections(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<usize, KernelError> {
        let mut found = Vec::new();
        for family in [AF_INET, AF_INET6] {
            self.dump_each(family, Transport::Tcp, OPEN, 0, &mut |response| {
                let id = &response.header.socket_id;
                if addresses.contains(&id.source_address.to_canonical()) {
                    found.push((response.header.family, id.clone()));
                }
            })?;
        }
        let mut ended = 0;
        for (family, socket_id) in found {
            ended += usize::from(self.end_connection(family, socket_id)?);
        }
        Ok(ended)
    }

    /// Whether it was there.
    fn end_connection(&mut self, family: u8, socket_id: SocketId) -> Result<bool, KernelError> {
        let fail = || KernelError::io("end a connection of an address that the pod has lost");
        let request = InetRequest {
            family,
            protocol: Transport::Tcp.number(),
            extensions: ExtensionFlags::empty(),
            states: OPEN,
            socket_id,
        };
        let mut bytes = serialized(NLM_F_REQUEST | NLM_F_ACK, request);
        // The crate knows only the type of requests that list; this one has the same form.
        bytes[4..6].copy_from_slice(&SOCK_DESTROY.to_ne_bytes());
        self.socket.send(&bytes, 0).map_err(fail())?;
        let mut space = &mut self.buffer[..];
        let size = self.socket.recv(&mut space, 0).map_err(fail())?;
        let answer = self.buffer.get(..size).unwrap_or_default();
        match NetlinkMessage::<SockDiagMessage>::deserialize(answer).map(|message| message.payload) {
            Ok(NetlinkPayload::Error(error)) => match error.to_io() {
                _ if error.code.is_none() => Ok(true),
                error if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
                error => Err(fail()(error)),
            },
            other => Err(fail()(io::Error::other(format!("unexpected answer {other:?}")))),
        }
    }

    /// Lists the sockets that are bound to a port, or to any if it is 0.
    fn dump_port(
        &mut self,
        family: u8,
        transport: Transport,
        states: StateFlags,
        port: u16,
        rows: &mut Vec<Row>,
    ) -> Result<(), KernelError> {
        self.dump_each(family, transport, states, port, &mut |response| rows.push(row(transport, response)))
    }

    fn dump_each(
        &mut self,
        family: u8,
        transport: Transport,
        states: StateFlags,
        port: u16,
        each: &mut dyn FnMut(&InetResponse),
    ) -> Result<(), KernelError> {
        let fail = || KernelError::io("list the sockets of a pod");
        let broken = |why: String| KernelError::Unsupported {
            what: "list the sockets of a pod".to_owned(),
            reason: why,
        };
        let mut socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
        socket_id.source_port = port;
        let request = InetRequest {
            family,
            protocol: transport.number(),
            extensions: ExtensionFlags::SKMEMINFO,
            states,
            socket_id,
        };
        self.socket.send(&serialized(NLM_F_REQUEST | NLM_F_DUMP, request), 0).map_err(fail())?;
        loop {
            let mut space = &mut self.buffer[..];
            let size = self.socket.recv(&mut space, 0).map_err(fail())?;
            let mut rest = self.buffer.get(..size).unwrap_or_default();
            while !rest.is_empty() {
                let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                    .map_err(|error| broken(error.to_string()))?;
                let length = usize::try_from(message.header.length).unwrap_or(usize::MAX).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                match message.payload {
                    NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                        each(&response);
                    }
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) => return Err(fail()(error.to_io())),
                    _ => {}
                }
                if length == 0 {
                    return Err(broken("an answer without length".to_owned()));
                }
            }
        }
    }
}

fn serialized(flags: u16, request: InetRequest) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn row(transport: Transport, response: &InetResponse) -> Row {
    let header = &response.header;
    let mut address = header.socket_id.source_address;
    // The crate reads the family of the socket; an IPv4 one must not look like one of IPv6.
    if header.family == AF_INET && address.is_ipv6() {
        address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    }
    let bytes = |kind: u16| response.nlas.iter().find_map(|nla| other(nla, kind));
    Row {
        bound: Bound {
            transport,
            address: SocketAddr::new(address, header.socket_id.source_port),
            only_v6: response.nlas.iter().any(|nla| matches!(nla, Nla::SkV6Only(true))),
        },
        cookie: u64::from_ne_bytes(header.socket_id.cookie),
        inode: u64::from(header.inode),
        user: header.uid,
        cgroup: bytes(INET_DIAG_CGROUP_ID)
            .and_then(|value| Some(u64::from_ne_bytes(value.get(..8)?.try_into().ok()?))),
        waiting: header.recv_queue,
        dropped: response.nlas.iter().find_map(dropped).unwrap_or(0),
    }
}

fn dropped(nla: &Nla) -> Option<u32> {
    let Nla::MemInfo(memory) = nla else { return None };
    Some(memory.drops)
}

/// The value of an attribute that the crate has no name for.
fn other(nla: &Nla, kind: u16) -> Option<Vec<u8>> {
    let Nla::Other(nla) = nla else { return None };
    if netlink_packet_core::Nla::kind(nla) != kind {
        return None;
    }
    let mut value = vec![0; netlink_packet_core::Nla::value_len(nla)];
    netlink_packet_core::Nla::emit_value(nla, &mut value);
    Some(value)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn listeners_of_a_network_are_found_with_address_and_cookie() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let v6 = TcpListener::bind("[::1]:0").ok();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let any = |only_v6: bool| {
            let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None)?;
            socket.set_only_v6(only_v6)?;
            socket.bind(&SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0)).into())?;
            socket.listen(1)?;
            Ok::<TcpListener, std::io::Error>(socket.into())
        };
        let (both, only_v6) = (any(false).ok(), any(true).ok());
        let netns = Netns::of(std::process::id()).unwrap();
        let rows = Diagnosis::of(&netns).unwrap().rows().unwrap();
        let find = |address: SocketAddr, transport| {
            rows.iter().find(|row| row.bound.address == address && row.bound.transport == transport)
        };
        let row = find(v4.local_addr().unwrap(), Transport::Tcp).unwrap();
        assert_eq!(row.cookie, rustix::net::sockopt::socket_cookie(&v4).unwrap());
        assert_eq!((row.user, row.waiting), (0, 0));
        assert!(row.cgroup.is_some());
        for (listener, takes_v4) in [(both, true), (only_v6, false)] {
            let Some(listener) = listener else { continue };
            let row = find(listener.local_addr().unwrap(), Transport::Tcp).unwrap();
            assert_eq!((row.bound.takes_v4(), row.bound.takes_v6()), (takes_v4, true));
        }
        assert!(find(udp.local_addr().unwrap(), Transport::Udp).is_some());
        if let Some(v6) = v6 {
            let row = find(v6.local_addr().unwrap(), Transport::Tcp).unwrap();
            assert!(row.bound.takes_v6() && !row.bound.takes_v4());
        }
    }
}
