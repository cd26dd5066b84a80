//! Clients that keep their connection, as browsers, pools and proxies do.
//!
//! A server may close such a connection between two answers at any time, and a request that was on its way just then
//! is sent again on a new connection ([RFC 9112, 9.3.1](https://www.rfc-editor.org/rfc/rfc9112#section-9.3.1)). That is
//! counted, and no failure. A connection that is broken off is one, and so is half an answer.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use super::{Answer, Failure, Load, Report, connect};

/// A client with a connection at most.
pub struct Kept {
    address: SocketAddr,
    path: String,
    stream: Option<TcpStream>,
}

impl Kept {
    /// A client that is not connected yet.
    pub fn new(address: SocketAddr, path: &str) -> Self {
        Self { address, path: path.to_owned(), stream: None }
    }

    /// Sends one request on the connection that there is, or on a new one, and returns the name of the replica that
    /// answered. A connection that is found closed is noted in the report.
    pub fn request(&mut self, report: &mut Report) -> Result<String, Failure> {
        if let Some(stream) = self.stream.take() {
            match self.exchange(stream)? {
                Some(answer) => return answer.replica(),
                None => report.closed += 1,
            }
        }
        // Who closes a new connection without an answer answers nobody.
        self.exchange(connect(self.address)?)?.ok_or(Failure::CutShort)?.replica()
    }

    /// Nothing, if the connection was closed before the first byte of an answer.
    fn exchange(&mut self, mut stream: TcpStream) -> Result<Option<Answer>, Failure> {
        stream.write_all(format!("GET {} HTTP/1.1\r\nHost: test\r\n\r\n", self.path).as_bytes())?;
        let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match (stream.read(&mut buffer)?, bytes.is_empty()) {
                (0, true) => return Ok(None),
                (0, false) => return Err(Failure::CutShort),
                (length, _) => bytes.extend_from_slice(&buffer[..length]),
            }
            let Some(answer) = Answer::read(&bytes) else { continue };
            let Some(length) = answer.length else {
                return Err(Failure::Other("it does not say how long it is".to_owned()));
            };
            if answer.body >= length {
                if !answer.ends {
                    self.stream = Some(stream);
                }
                return Ok(Some(answer));
            }
        }
    }
}

impl Load {
    /// Begins to send `rate` requests for that path a second from so many clients, each of which keeps its connection.
    pub fn kept(address: SocketAddr, path: &'static str, clients: u32, rate: u32) -> Self {
        Self::with(clients, rate, move || {
            let mut client = Kept::new(address, path);
            move |report: &mut Report| client.request(report)
        })
    }
}
