//! Read-only access for other users of this host who can use the engine.
//!
//! The supervisor listens on an abstract socket for them. The socket's name and a key are in the label of the
//! supervisor's lock container: a user who can read that label can query the engine for the same information. Other
//! users can connect, but are refused.

use std::{fmt, io};

use serde::{Deserialize, Serialize};

/// The address and key for read-only access to a supervisor.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadAccess {
    /// The name of the abstract socket.
    pub socket: String,
    /// The key that each request must contain.
    pub key: String,
}

/// The key must not appear in logs.
impl fmt::Debug for ReadAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadAccess").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl ReadAccess {
    /// Generates a random socket name and key, of 128 bits each.
    ///
    /// # Errors
    /// If the kernel provides no random numbers.
    pub fn new() -> io::Result<Self> {
        Ok(Self { socket: format!("sameport-{}", random()?), key: random()? })
    }

    /// The value of the `Authorization` header of a request.
    #[must_use]
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.key)
    }
}

fn random() -> io::Result<String> {
    let mut bytes = [0; 16];
    let flags = rustix::rand::GetRandomFlags::empty();
    if rustix::rand::getrandom(&mut bytes[..], flags)? < bytes.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
