//! One request, to see whether somebody is there. Load comes from `load`.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Result, bail};

/// Asks for a path, and returns the answer if it is a good one.
pub fn get(address: SocketAddr, path: &str, patience: Duration) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    // At once: of several small parts, the second one waits until the first one is acknowledged, which may be 40 ms later.
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    match text.split(' ').nth(1) {
        Some("200") => Ok(text),
        _ => bail!("{address}{path} answered {:?}", text.lines().next().unwrap_or_default()),
    }
}
