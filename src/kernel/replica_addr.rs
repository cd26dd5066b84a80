//! The addresses of single replicas: each is known by an IPv4 one, and has an IPv6 one beside it in pods with IPv6.
//!
//! 127.0.0.0/8 is local to each network already. The IPv6 addresses are made so by one route of the pod's network ("AnyIP"),
//! which no program sees among the addresses of its interfaces. The programs for the kernel accept either only from within
//! the pod.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_ROUTE};

use super::{KernelError, Netns};

/// What comes before the IPv4 address: `REPLICA_PREFIX0` and on of the programs' `sameport.h`.
const PREFIX: Ipv6Addr = Ipv6Addr::new(0xfd61, 0x6d65, 0x706f, 0x7274, 0, 0, 0, 0);
const PREFIX_LENGTH: u8 = 96;
/// The index of the loopback interface is the same in every network.
const LOOPBACK: u32 = 1;

/// The IPv6 address of the replica that has an IPv4 one.
#[must_use]
pub fn v6(address: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(PREFIX.to_bits() | u128::from(address.to_bits()))
}

/// Connects to a replica wherever it listens: by IPv4, or else by IPv6, where a socket that takes IPv6 alone
/// (`IPV6_V6ONLY`) listens.
///
/// # Errors
/// When we may not enter the network, or in the inner result, when it takes no connection in time; the error is that by
/// IPv4 if the network has no IPv6.
pub fn connect(
    netns: &Netns,
    address: Ipv4Addr,
    port: u16,
    limit: Duration,
) -> Result<io::Result<TcpStream>, KernelError> {
    let deadline = Instant::now() + limit;
    netns.within(|| {
        let refused = match TcpStream::connect_timeout(&SocketAddr::from((address, port)), limit) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => error,
            done => return Ok(done),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Err(refused));
        }
        let by_v6 = TcpStream::connect_timeout(&SocketAddr::from((v6(address), port)), left);
        Ok(by_v6.map_err(|error| if is_unreachable(&error) { refused } else { error }))
    })
}

/// Whether a network has no IPv6, or no route to replicas.
fn is_unreachable(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable};
    let has_no_family = error.raw_os_error() == Some(libc::EAFNOSUPPORT);
    has_no_family || matches!(error.kind(), AddrNotAvailable | HostUnreachable | NetworkUnreachable)
}

/// Makes the IPv6 addresses of replicas local to this thread's network, if its loopback interface has IPv6.
///
/// # Errors
/// When the kernel does not take the route (`CAP_NET_ADMIN`).
pub fn make_local() -> Result<(), KernelError> {
    let fail = || KernelError::io("add the route to replicas' IPv6 addresses");
    if !super::netns::addresses()?.contains(&IpAddr::V6(Ipv6Addr::LOCALHOST)) {
        return Ok(());
    }
    let mut socket = Socket::new(NETLINK_ROUTE).map_err(fail())?;
    socket.bind_auto().map_err(fail())?;
    socket.connect(&NetlinkAddress::new(0, 0)).map_err(fail())?;
    let mut message = NetlinkMessage::new(
        NetlinkHeader::default(),
        NetlinkPayload::from(RouteNetlinkMessage::NewRoute(route())),
    );
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0).map_err(fail())?;
    let mut answer = [0; 4096];
    let size = socket.recv(&mut &mut answer[..], 0).map_err(fail())?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(answer.get(..size).unwrap_or_default())
        .map_err(|error| fail()(io::Error::other(error.to_string())))?;
    match answer.payload {
        NetlinkPayload::Error(error) => match error.to_io() {
            // An acknowledgement is an error without a code.
            _ if error.code.is_none() => Ok(()),
            error if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            error => Err(fail()(error)),
        },
        _ => Err(fail()(io::ErrorKind::InvalidData.into())),
    }
}

fn route() -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header = RouteHeader {
        address_family: AddressFamily::Inet6,
        destination_prefix_length: PREFIX_LENGTH,
        table: libc::RT_TABLE_LOCAL,
        protocol: RouteProtocol::Static,
        scope: RouteScope::Host,
        kind: RouteType::Local,
        ..RouteHeader::default()
    };
    route.attributes =
        vec![RouteAttribute::Destination(RouteAddress::Inet6(PREFIX)), RouteAttribute::Oif(LOOPBACK)];
    route
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ipv6_address_ends_with_the_ipv4_address() {
        assert_eq!(v6(Ipv4Addr::new(127, 77, 0, 1)).to_string(), "fd61:6d65:706f:7274::7f4d:1");
    }
}
