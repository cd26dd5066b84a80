//! Lets a replica that is about to end close its connections in good order.
//!
//! A server that is told to end closes the connections that it keeps for further requests. If the next request on one
//! has come just then and was not read yet, the kernel breaks the connection off (a reset) instead of closing it
//! ([RFC 1122, 4.2.2.13](https://www.rfc-editor.org/rfc/rfc1122#page-87)), and a client cannot know what became of what
//! it had sent before. So nothing is let in any more for a moment: what comes is dropped, and TCP sends it again. Whoever
//! is still connected after that moment gets it then; the others have seen their connection closed, between two answers.
//!
//! Two protocols say themselves when a connection ends, and need what a client sends meanwhile: WebSocket (a Close frame of
//! either side) and HTTP/2 (GOAWAY, with the last request that counts). A client of gRPC whose request had to wait here
//! would even have it refused: the server would read it only after it has begun to end. Their frames are let in. Within TLS
//! nobody can tell what is what.

use std::{collections::BTreeSet, fs, io, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};
use socket2::{SockFilter, SockRef, Type};

use super::{KernelError, processes::Cgroup};

/// The connections of a replica that is about to end. Needs the rights of the thread that steers.
#[derive(Debug)]
pub struct SocketFilter {
    cgroup: Cgroup,
    ports: BTreeSet<u16>,
}

impl SocketFilter {
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
                SockRef::from(connection).attach_filter(&no_requests())?;
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

/// A program of the classic packet filter: segments with data are dropped unless these begin with a frame of HTTP/2 or of
/// WebSocket. All others pass, such as those that acknowledge or close
/// (<https://docs.kernel.org/networking/filter.html>). It sees the segment from its TCP header on; reading beyond its end
/// drops it.
fn no_requests() -> Vec<SockFilter> {
    use libc::{
        BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_IND, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_JSET, BPF_K,
        BPF_LD, BPF_LEN, BPF_LSH, BPF_MISC, BPF_RET, BPF_RSH, BPF_TAX, BPF_W, BPF_X,
    };
    const BYTE: u32 = BPF_LD | BPF_B | BPF_IND;
    const HTTP_2: u8 = 8;
    const WEBSOCKET: u8 = 12;
    const MASKED: u8 = 19;
    const PASS: u8 = 21;
    const DROP: u8 = 22;
    // What is done, and at which step it goes on, if a condition holds and if not.
    let next = |code: u32, k: u32| (code, None, k);
    let jump = |code: u32, k: u32, yes: u8, no: u8| (BPF_JMP | code, Some((yes, no)), k);
    let steps = [
        // How long the header is: the upper half of its byte 12, in words.
        next(BPF_LD | BPF_B | BPF_ABS, 12),
        next(BPF_ALU | BPF_RSH | BPF_K, 4),
        next(BPF_ALU | BPF_LSH | BPF_K, 2),
        next(BPF_MISC | BPF_TAX, 0),
        next(BPF_LD | BPF_W | BPF_LEN, 0),
        // Whether the segment is longer.
        jump(BPF_JGT | BPF_X, 0, 6, PASS),
        next(BYTE, 0),
        jump(BPF_JEQ, 0, HTTP_2, WEBSOCKET),
        // RFC 9113, 4.1: three bytes of length, 16,384 as a rule, so that the first one is zero; the type; flags; a bit that is
        // zero, and the stream.
        next(BYTE, 3),
        jump(BPF_JGT, 9, DROP, 10),
        next(BYTE, 5),
        jump(BPF_JSET, 0x80, DROP, PASS),
        // RFC 6455, 5.2: the last frame of a message (0x80), compressed or not (0x40); continued, text, binary, or close, ping,
        // pong (0 to 2 and 8 to 10); and masked, as clients have to.
        next(BPF_ALU | BPF_AND | BPF_K, 0xb0),
        jump(BPF_JEQ, 0x80, 14, DROP),
        next(BYTE, 0),
        next(BPF_ALU | BPF_AND | BPF_K, 0x0f),
        jump(BPF_JGT, 10, DROP, 17),
        jump(BPF_JGT, 2, 18, MASKED),
        jump(BPF_JGE, 8, MASKED, DROP),
        next(BYTE, 1),
        jump(BPF_JSET, 0x80, PASS, DROP),
        next(BPF_RET | BPF_K, u32::MAX),
        next(BPF_RET | BPF_K, 0),
    ];
    let program = steps.into_iter().zip(1..).map(|((code, jump, k), following): (_, u8)| {
        let (yes, no) = jump.map_or((0, 0), |(yes, no)| (yes - following, no - following));
        #[allow(clippy::cast_possible_truncation, reason = "codes have 16 bits")]
        SockFilter::new(code as u16, yes, no, k)
    });
    program.collect()
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
            SockRef::from(socket).attach_filter(&no_requests()).unwrap();
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

    #[test]
    fn frames_of_protocols_that_end_by_themselves_are_let_in() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let http_2 = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let cases: &[(&str, &[u8], bool)] = &[
            ("ping of HTTP/2", &http_2, true),
            ("no frame type", &[0, 0, 8, 77, 0, 0, 0, 0, 0, 1], false),
            ("cut short", &http_2[..4], false),
            ("close of WebSocket", &[0x88, 0x82, 1, 2, 3, 4, 5, 6], true),
            ("compressed text of WebSocket", &[0xc1, 0x81, 1, 2, 3, 4, 5], true),
            ("continued message of WebSocket", &[0x80, 0x81, 1, 2, 3, 4, 5], true),
            ("not masked", &[0x88, 0x02, 5, 6], false),
            ("no opcode", &[0x85, 0x81, 1, 2, 3, 4, 5], false),
            ("request of HTTP/1.1", b"GET / HTTP/1.1\r\n\r\n", false),
            ("record of TLS", &[0x17, 3, 3, 0, 1, 0], false),
            ("Redis", b"*1\r\n$4\r\nPING\r\n", false),
            ("one byte", &[0], false),
        ];
        for (case, bytes, is_let_in) in cases {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let server = OwnedFd::from(listener.accept().unwrap().0);
            SockRef::from(&server).attach_filter(&no_requests()).unwrap();
            client.write_all(bytes).unwrap();
            thread::sleep(Duration::from_millis(20));
            let there = rustix::io::ioctl_fionread(&server).unwrap();
            assert_eq!(there, if *is_let_in { bytes.len() as u64 } else { 0 }, "{case}");
        }
    }
}
