//! Network namespaces.

use std::{
    fs::{self, File},
    net::IpAddr,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    thread,
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sched::{CloneFlags, setns};

use super::{KernelError, rights};

/// Inode of the network namespace of a process of this host: two processes share a network exactly when it is
/// equal (namespaces(7)). `None` when there is no such process, or we may not look (ptrace(2) access is needed).
#[must_use]
pub fn inode(pid: u32) -> Option<u64> {
    fs::metadata(path(pid)).ok().map(|meta| meta.ino())
}

fn path(pid: u32) -> String {
    format!("/proc/{pid}/ns/net")
}

/// A network namespace, which lives at least as long as this.
#[derive(Debug)]
pub struct Netns {
    file: File,
    /// Tells it from all others that there are now.
    pub inode: u64,
}

impl Netns {
    /// That of a process of this host.
    ///
    /// # Errors
    /// When there is no such process, or we may not look (ptrace(2) access is needed).
    pub fn of(pid: u32) -> Result<Self, KernelError> {
        let fail = || KernelError::io(format!("open the network of process {pid}"));
        let file = File::open(path(pid)).map_err(fail())?;
        let inode = file.metadata().map_err(fail())?.ino();
        Ok(Self { file, inode })
    }

    /// Its file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Does something in it: sockets that are made then stay in it. It is done on a thread of its own, because there
    /// is no way back for one that could not return to where it was.
    ///
    /// # Errors
    /// When we may not enter it (`CAP_SYS_ADMIN`), or what is done fails.
    pub fn within<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, KernelError> + Send,
    ) -> Result<T, KernelError> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                rights::raise()?;
                setns(&self.file, CloneFlags::CLONE_NEWNET)
                    .map_err(|errno| KernelError::io("enter a pod's network")(errno.into()))?;
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// Tells when addresses of a network come and go.
#[derive(Debug)]
pub struct AddressWatch(Socket);

/// Groups of `linux/rtnetlink.h`: IPv4 and IPv6 addresses.
const ADDRESS_GROUPS: u32 = 1 << (5 - 1) | 1 << (9 - 1);

impl AddressWatch {
    /// For a network; what is told stays that of that network wherever we are.
    ///
    /// # Errors
    /// When we may not enter it.
    pub fn of(netns: &Netns) -> Result<Self, KernelError> {
        netns.within(|| {
            let fail = || KernelError::io("watch the addresses of a network");
            let mut socket = Socket::new(NETLINK_ROUTE).map_err(fail())?;
            socket.bind(&SocketAddr::new(0, ADDRESS_GROUPS)).map_err(fail())?;
            socket.set_non_blocking(true).map_err(fail())?;
            Ok(Self(socket))
        })
    }

    /// Whether anything has changed since this was asked last.
    pub fn has_changed(&self) -> bool {
        let mut changed = false;
        // What did not fit is lost, which is told by an error.
        loop {
            let mut buffer = [0_u8; 4096];
            match self.0.recv(&mut &mut buffer[..], 0) {
                Ok(_) => changed = true,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                Err(_) => return changed,
            }
        }
    }
}

impl AsFd for AddressWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The addresses of this thread's network.
///
/// # Errors
/// When the kernel does not list them.
pub fn addresses() -> Result<Vec<IpAddr>, KernelError> {
    let fail = |errno: nix::errno::Errno| KernelError::io("list the addresses of a network")(errno.into());
    let addresses = nix::ifaddrs::getifaddrs().map_err(fail)?.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::from(address.ip())))
    });
    Ok(addresses.collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_shares_its_network_with_itself() {
        let own = super::inode(std::process::id());
        assert!(own.is_some());
        assert_eq!(own, super::inode(std::process::id()));
        assert_eq!(super::inode(u32::MAX), None);
    }
}
