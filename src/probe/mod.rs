//! Network probes of a replica, at its own address in its pod: an HTTP path or a TCP port. Probe commands are run by
//! the engine.
//!
//! This module runs a single probe and returns success or the reason for the failure. [`Thresholds`] turn results into
//! the replica's health.

mod thresholds;

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::{Duration, Instant},
};

pub use thresholds::{Opinion, Thresholds};

use crate::{
    engine::EngineError,
    kernel::{KernelError, Netns, is_shortage, replica_addr},
    spec::{Probe, ProbeKind},
};

/// Maximum number of bytes to read in search of the status line.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Maximum number of bytes, and maximum time, to read after the status line: a response may have no end.
const REST: (usize, Duration) = (1024 * 1024, Duration::from_secs(1));

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The connection failed or timed out.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The response is not HTTP.
    #[error("no HTTP response")]
    NotHttp,
    /// The HTTP status is not in 200–399.
    #[error("the status is {0}")]
    Status(u16),
    /// The command exited with an error.
    #[error("exit code {code}{}", said(output))]
    Exit {
        /// The exit code.
        code: i64,
        /// The last lines of its output.
        output: Vec<String>,
    },
    /// The command did not exit within the timeout.
    #[error("not finished within {0:?}")]
    TimedOut(Duration),
    /// The previous command is still running. No further one is started, so that commands do not pile up.
    #[error("the command that was run before has not ended yet")]
    StillRuns,
    /// The engine cannot run the command.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The pod's network namespace cannot be entered.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl ProbeError {
    /// Whether the failure says nothing about the replica: this process or the engine could not run the probe, for
    /// example for lack of resources.
    #[must_use]
    pub fn was_not_asked(&self) -> bool {
        match self {
            Self::Io(error) => is_shortage(error),
            Self::Kernel(error) => error.is_shortage(),
            Self::Engine(error) => error.is_passing(),
            Self::NotHttp | Self::Status(_) | Self::Exit { .. } | Self::TimedOut(_) | Self::StillRuns => {
                false
            }
        }
    }
}

/// The last line of the output of a check, without control characters and limited to 200 characters.
#[must_use]
pub fn last_line(output: &str) -> String {
    let line = output.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn said(output: &[String]) -> String {
    match last_line(&output.join("\n")) {
        line if line.is_empty() => line,
        line => format!(": {line}"),
    }
}

/// Runs a network probe. Blocks for at most the probe's timeout. For a command probe it only connects.
///
/// # Errors
/// If the replica is not ready.
pub fn ask(netns: &Netns, (address, port): (Ipv4Addr, u16), probe: &Probe) -> Result<(), ProbeError> {
    let deadline = Instant::now() + probe.timeout;
    let stream = replica_addr::connect(netns, address, port, probe.timeout)??;
    match &probe.kind {
        ProbeKind::Tcp | ProbeKind::Exec { .. } => Ok(()),
        ProbeKind::Http { path } => match get(stream, path, deadline)? {
            200..400 => Ok(()),
            status => Err(ProbeError::Status(status)),
        },
    }
}

/// Sends the request and returns the status code of the response.
fn get(mut stream: TcpStream, path: &str, deadline: Instant) -> Result<u16, ProbeError> {
    stream.set_write_timeout(Some(left_until(deadline)?))?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: sameport-probe\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    loop {
        if let Some(status) = status(&answer) {
            hear_out(stream, deadline);
            return status;
        }
        if answer.len() > MAX_HEADER_BYTES || read_until(&mut stream, &mut answer, deadline)? == 0 {
            return Err(ProbeError::NotHttp);
        }
    }
}

/// Reads the rest of the response. Closing the connection earlier would reset it, which many servers log as an error.
fn hear_out(mut stream: TcpStream, deadline: Instant) {
    let (most, longest) = REST;
    let deadline = deadline.min(Instant::now() + longest);
    let mut rest = Vec::new();
    // Errors do not matter any more: the status is known.
    while rest.len() < most && read_until(&mut stream, &mut rest, deadline).is_ok_and(|length| length > 0) {}
}

fn read_until(stream: &mut TcpStream, to: &mut Vec<u8>, deadline: Instant) -> io::Result<usize> {
    let mut buffer = [0; 4096];
    stream.set_read_timeout(Some(left_until(deadline)?))?;
    let length = stream.read(&mut buffer)?;
    to.extend_from_slice(buffer.get(..length).unwrap_or_default());
    Ok(length)
}

fn left_until(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The status code, once the first line is complete.
fn status(answer: &[u8]) -> Option<Result<u16, ProbeError>> {
    let end = answer.windows(2).position(|pair| pair == b"\r\n")?;
    let line = String::from_utf8_lossy(answer.get(..end)?);
    let mut words = line.split(' ');
    let is_http = words.next().is_some_and(|version| version.starts_with("HTTP/1."));
    let number = words.next().and_then(|word| word.parse().ok());
    Some(number.filter(|_| is_http).ok_or(ProbeError::NotHttp))
}

/// The delay before the first probe of a replica that has just started: the probe's interval, but at most 200 ms.
#[must_use]
pub fn first_pause(probe: &Probe) -> Duration {
    probe.interval.min(Duration::from_millis(200))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_has_the_last_line_of_the_output() {
        for (output, wanted) in [
            ("", "exit code 1"),
            ("\n \n", "exit code 1"),
            ("a\nno database\n\n", "exit code 1: no database"),
            ("\u{1b}[31mred\n", "exit code 1: [31mred"),
        ] {
            let output = output.lines().map(str::to_owned).collect();
            let error = ProbeError::Exit { code: 1, output };
            assert_eq!(error.to_string(), wanted);
        }
    }

    #[test]
    fn a_probe_that_could_not_run_is_inconclusive() {
        let system = |errno| io::Error::from_raw_os_error(errno);
        let engine = |message: &str| EngineError::Refused { message: message.to_owned() };
        let unreachable = EngineError::Unreachable { address: "a".to_owned(), reason: "b".to_owned() };
        for (error, not_asked) in [
            (ProbeError::Io(system(libc::EMFILE)), true),
            (ProbeError::Io(system(libc::ENFILE)), true),
            (ProbeError::Kernel(KernelError::io("enter it")(system(libc::EMFILE))), true),
            (unreachable.into(), true),
            (ProbeError::Io(system(libc::ECONNREFUSED)), false),
            (ProbeError::Io(io::ErrorKind::TimedOut.into()), false),
            (ProbeError::Kernel(KernelError::io("enter it")(system(libc::ENOENT))), false),
            (engine("no such program").into(), false),
            (ProbeError::Status(503), false),
        ] {
            assert_eq!(error.was_not_asked(), not_asked, "{error:?}");
        }
    }

    #[test]
    fn the_whole_response_is_read() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let (mut asked, _) = server.accept().unwrap();
        let answering = std::thread::spawn(move || {
            let _ = asked.read(&mut [0; 1024])?;
            asked.write_all(b"HTTP/1.1 503 Service Unavailable\r\n")?;
            for part in ["Content-Length: 4\r\n\r\n", "la", "te"] {
                std::thread::sleep(Duration::from_millis(20));
                asked.write_all(part.as_bytes())?;
            }
            asked.shutdown(std::net::Shutdown::Write)?;
            // A client that closes the connection early resets it.
            asked.read(&mut [0])
        });
        let status = get(stream, "/", Instant::now() + Duration::from_secs(5));
        assert_eq!(status.unwrap(), 503);
        assert_eq!(answering.join().unwrap().unwrap(), 0);
    }

    #[test]
    fn an_endless_response_counts_by_its_status() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let (mut asked, _) = server.accept().unwrap();
        let head = b"HTTP/1.1 200 OK\r\n\r\n";
        let answering = std::thread::spawn(move || {
            asked.write_all(head)?;
            loop {
                asked.write_all(&[b'.'; 4096])?;
            }
        });
        let status = get(stream, "/", Instant::now() + Duration::from_secs(60));
        assert_eq!(status.unwrap(), 200);
        let gone: io::Result<()> = answering.join().unwrap();
        assert!(gone.is_err());
    }

    #[test]
    fn the_status_is_parsed_once_its_line_is_complete() {
        let read = |text: &str| status(text.as_bytes()).map(|result| result.ok());
        assert_eq!(read("HTTP/1.1 20"), None);
        assert_eq!(read("HTTP/1.1 200 OK\r\n"), Some(Some(200)));
        assert_eq!(read("HTTP/1.0 503 Service Unavailable\r\nX: y\r\n"), Some(Some(503)));
        assert_eq!(read("SSH-2.0-OpenSSH\r\n"), Some(None));
        assert_eq!(read("\r\n"), Some(None));
    }
}
