//! A listener of our own that drops all that it gets: a port that nobody has listened on yet does not answer, as a host that is
//! still coming up does not. Whoever connects tries again by itself.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use crate::kernel::{KernelError, Netns};

/// `BPF_RET | BPF_K` with 0: nothing is kept of a packet.
const DROP: SockFilter = SockFilter::new(0x06, 0, 0, 0);

/// Where it listens: nobody else wants that.
const PORT: u16 = 1;
const V4: Ipv4Addr = Ipv4Addr::new(127, 77, 255, 254);

/// The listener.
#[derive(Debug)]
pub struct Silence {
    socket: Socket,
    /// Never used twice.
    pub cookie: u64,
    /// Its place in the array of sockets.
    pub index: u32,
}

impl Silence {
    /// Opens one in a network.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn open(netns: &Netns, index: u32) -> Result<Self, KernelError> {
        let fail = || KernelError::io("open a listener for ports that nobody listens on yet");
        let socket = netns.within(|| {
            // A socket of IPv6 with an address of IPv4 can be given packets of both (`bpf_sk_lookup_assign`, `__inet6_bind`).
            listen(Domain::IPV6, (V4.to_ipv6_mapped(), PORT).into())
                .or_else(|_| listen(Domain::IPV4, (V4, PORT).into()))
                .map_err(fail())
        })?;
        let cookie = rustix::net::sockopt::socket_cookie(&socket).map_err(|errno| fail()(errno.into()))?;
        Ok(Self { socket, cookie, index })
    }

    /// The listener.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }
}

fn listen(domain: Domain, address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    // Before anything can come.
    socket.attach_filter(&[DROP])?;
    // That of a supervisor before us may be there for a moment.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(0)?;
    Ok(socket)
}
