//! What this host's kernel lets us do: found out by trying, where that harms nothing.

use std::{fs, io, net::TcpListener, path::PathBuf};

use socket2::{Domain, Protocol, Socket, Type};

/// A capability of a process, by its number in `capability.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// May set up networks.
    NetAdmin = 12,
    /// May look into processes of others.
    SysPtrace = 19,
    /// May do almost anything.
    SysAdmin = 21,
    /// May load BPF programs.
    Bpf = 39,
}

/// Whether two sockets of this process can listen on one port.
///
/// # Errors
/// When the kernel does not let them.
pub fn share_port() -> io::Result<()> {
    let listen = |port: u16| -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_port(true)?;
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into())?;
        socket.listen(1)?;
        Ok(socket.into())
    };
    let first = listen(0)?;
    listen(first.local_addr()?.port()).map(drop)
}

/// Whether connections that wait on a closing listener can move on to another one (since Linux 5.14).
#[must_use]
pub fn can_migrate() -> bool {
    PathBuf::from("/proc/sys/net/ipv4/tcp_migrate_req").exists()
}

/// Whether the kernel has Multipath TCP.
#[must_use]
pub fn has_mptcp() -> bool {
    PathBuf::from("/proc/sys/net/mptcp/enabled").exists()
}

/// The kernel's release, such as `6.18.0`.
#[must_use]
pub fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Whether this process has a capability in force.
#[must_use]
pub fn has(capability: Capability) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> (capability as u32) & 1 == 1)
}

/// Where a file system of a type is mounted for this thread, such as `cgroup2` or `bpf`.
#[must_use]
pub fn mounted(kind: &str) -> Option<PathBuf> {
    let table = fs::read_to_string("/proc/thread-self/mounts").unwrap_or_default();
    table.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (path, found) = (words.next()?, words.next()?);
        (found == kind).then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_shares_ports() {
        share_port().unwrap();
    }

    #[test]
    fn what_is_mounted_is_found() {
        assert_eq!(mounted("proc"), Some(PathBuf::from("/proc")));
        assert_eq!(mounted("no-such-type"), None);
    }
}
