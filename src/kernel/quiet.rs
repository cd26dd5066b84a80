//! Lets a replica that is about to end close its connections in good order.
//!
//! A server that is told to end closes the connections that it keeps for further requests. If the next request on one
//! has come just then and was not read yet, the kernel breaks the connection off (a reset) instead of closing it
//! ([RFC 1122, 4.2.2.13](https://www.rfc-editor.org/rfc/rfc1122#page-87)), and a client cannot know what became of what
//! it had sent before. So nothing is let in any more for a moment: what comes is dropped, and TCP sends it again. Whoever
//! is still connected after that moment gets it then; the others have seen their connection closed, between two answers.

use std::{collections::BTreeSet, fs, io, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};
use socket2::{SockFilter, SockRef, Type};

use super::{KernelError, processes::Cgroup};

/// The connections of a replica that is about to end. Needs the rights of the thread that steers.
#[derive(Debug)]
pub struct Quiet {
    cgroup: Cgroup,
    ports: BTreeSet<u16>,
}

impl Quiet {
    /// Those that came to these ports of the replica whose first process this is.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn of(pid: u32, ports: BTreeSet<u16>) -> Result<Self, KernelError> {
        Ok(Self { cgroup: Cgroup::of(pid)?, ports })
    }

    /// Lets nothing more in on them. Returns whether the replica has read all that had come before.
    ///
    /// # Errors
    /// When we may not look into its processes (`CAP_SYS_PTRACE`) or filter for them.
    pub fn begin(&self) -> Result<bool, KernelError> {
        let mut unread = false;
        each(&self.cgroup, |port, connection| {
            if self.ports.contains(&port) {
                SockRef::from(connection).attach_filter(&no_data())?;
                unread |= rustix::io::ioctl_fionread(connection)? > 0;
            }
            Ok(())
        })?;
        Ok(!unread)
    }

    /// Lets everything in again on those that there still are.
    ///
    /// # Errors
    /// When we may not look into the processes.
    pub fn end(&self) -> Result<(), KernelError> {
        lift(&self.cgroup)
    }
}

/// Lets everything in again on all connections of a container, whoever has stopped that.
///
/// # Errors
/// When we may not look into its processes.
pub fn lift(cgroup: &Cgroup) -> Result<(), KernelError> {
    each(cgroup, |_, connection| match SockRef::from(connection).detach_filter() {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    })
}

/// Does something with every TCP connection of a container, and the port on its side. The descriptor is one of our own,
/// and closed soon: as long as it is open, so is the connection.
fn each(cgroup: &Cgroup, mut act: impl FnMut(u16, &OwnedFd) -> io::Result<()>) -> Result<(), KernelError> {
    for pid in cgroup.processes() {
        let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { continue };
        // It and its sockets may go at any time.
        let Ok(process) = pidfd_open(id, PidfdFlags::empty()) else { continue };
        for number in sockets(pid)? {
            let socket = match pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) {
                Ok(socket) => socket,
                Err(Errno::SRCH | Errno::BADF) => continue,
                Err(errno) => {
                    return Err(KernelError::io(format!("take a socket of process {pid}"))(errno.into()));
                }
            };
            if let Some(port) = port_of(&socket) {
                act(port, &socket).map_err(KernelError::io("let nothing in on a replica's connection"))?;
            }
        }
    }
    Ok(())
}

/// The port on this side, if it is a TCP connection.
fn port_of(socket: &OwnedFd) -> Option<u16> {
    let socket = SockRef::from(socket);
    let is_connected = socket.r#type().ok()? == Type::STREAM && socket.peer_addr().is_ok();
    is_connected.then(|| socket.local_addr().ok()?.as_socket()).flatten().map(|address| address.port())
}

/// The numbers under which a process has sockets open; none once it is gone.
fn sockets(pid: u32) -> Result<Vec<i32>, KernelError> {
    let list = match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(list) => list,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(KernelError::io(format!("look at the sockets of process {pid}"))(error)),
    };
    let is_socket = |entry: &fs::DirEntry| {
        fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    };
    let sockets = list.flatten().filter(is_socket);
    Ok(sockets.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// A program of the classic packet filter: segments with data are dropped, all others pass, such as those that
/// acknowledge or close (<https://docs.kernel.org/networking/filter.html>). It sees the segment from its TCP header on.
fn no_data() -> [SockFilter; 8] {
    let step = |code: u32, jump: u8, otherwise: u8, k: u32| {
        #[allow(clippy::cast_possible_truncation, reason = "codes have 16 bits")]
        SockFilter::new(code as u16, jump, otherwise, k)
    };
    [
        // How long the header is: the upper half of its byte 12, in words.
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, 12),
        step(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, 0, 0, 4),
        step(libc::BPF_ALU | libc::BPF_LSH | libc::BPF_K, 0, 0, 2),
        step(libc::BPF_MISC | libc::BPF_TAX, 0, 0, 0),
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_LEN, 0, 0, 0),
        // Whether the segment is longer.
        step(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_X, 1, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        os::fd::OwnedFd,
        thread,
        time::Duration,
    };

    use super::*;

    #[test]
    fn what_comes_while_nothing_is_let_in_breaks_no_connection_off_and_is_not_lost() {
        // Some kernels let only root filter.
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            (client, listener.accept().unwrap().0)
        };
        let [(mut closed, server), (mut stays, kept)] = [connect(), connect()];
        let (server, kept) = (OwnedFd::from(server), OwnedFd::from(kept));
        for socket in [&server, &kept] {
            SockRef::from(socket).attach_filter(&no_data()).unwrap();
        }
        closed.write_all(b"request").unwrap();
        stays.write_all(b"request").unwrap();
        thread::sleep(Duration::from_millis(50));
        assert_eq!(rustix::io::ioctl_fionread(&server).unwrap(), 0);
        drop(server);
        assert_eq!(closed.read(&mut [0]).unwrap(), 0, "it is closed in good order");
        SockRef::from(&kept).detach_filter().unwrap();
        let mut request = [0; 7];
        TcpStream::from(kept).read_exact(&mut request).unwrap();
        assert_eq!(&request, b"request");
    }
}
