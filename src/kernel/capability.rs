//! What this host's kernel lets us do: found out by trying, where that harms nothing.

use std::{fs, io, net::TcpListener, os::fd::FromRawFd, path::PathBuf};

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

/// Where a file system of a type is mounted, such as `cgroup2` or `bpf`.
#[must_use]
pub fn mounted(kind: &str) -> Option<PathBuf> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    table.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (path, found) = (words.next()?, words.next()?);
        (found == kind).then(|| PathBuf::from(path))
    })
}

/// Whether the kernel describes its own types, which BPF programs need to run on other kernels than that they
/// were made on.
#[must_use]
pub fn has_btf() -> bool {
    PathBuf::from("/sys/kernel/btf/vmlinux").exists()
}

/// The part of `union bpf_attr` that makes a map.
#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_TYPE_REUSEPORT_SOCKARRAY: u32 = 20;

/// Whether we may make a BPF map of the kind that chooses among the listeners of a port; it is gone at once.
///
/// # Errors
/// When the kernel refuses: it has no BPF, no such maps, or we have no right to them.
#[allow(unsafe_code)]
pub fn try_bpf() -> io::Result<()> {
    let attributes = MapCreate {
        map_type: BPF_MAP_TYPE_REUSEPORT_SOCKARRAY,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        map_flags: 0,
    };
    // SAFETY: the kernel reads as many bytes of `attributes` as it is told there are, during the call only.
    let made = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, &raw const attributes, size_of::<MapCreate>())
    };
    let descriptor = i32::try_from(made).unwrap_or(-1);
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    drop(unsafe { std::os::fd::OwnedFd::from_raw_fd(descriptor) });
    Ok(())
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

    #[test]
    fn a_refused_bpf_call_is_an_error_and_no_more() {
        // Whether it is allowed depends on the host; what must not happen is a crash or a leak of descriptors.
        let open = || fs::read_dir("/proc/self/fd").unwrap().count();
        let _ = try_bpf();
        let before = open();
        let _ = try_bpf();
        assert!(open() <= before + 1);
    }
}
