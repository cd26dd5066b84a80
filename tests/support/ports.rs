//! Ports of the host that nobody uses.

use std::net::{TcpListener, UdpSocket};

/// A port that was free a moment ago, from below the range that outgoing connections get theirs from.
///
/// It is drawn at random, so that test programs that run at once hardly ever draw the same.
pub fn free() -> u16 {
    (0..1000)
        .map(|_| fastrand::u16(12_000..32_000))
        .find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok())
        .expect("a free port")
}

/// The first of so many ports that were free a moment ago, of UDP.
pub fn free_range(count: u16) -> u16 {
    (0..1000)
        .map(|_| fastrand::u16(12_000..32_000 - count))
        .find(|first| (*first..first + count).all(|port| UdpSocket::bind(("0.0.0.0", port)).is_ok()))
        .expect("free ports")
}
