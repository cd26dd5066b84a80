//! Read-only access for other users of this host who may use the engine.
//!
//! The supervisor listens on an abstract socket for them. Its name and a key are in the label of the lock that the supervisor
//! holds on the engine: whoever can read that may ask the engine about everything that is told there. Others can
//! connect, and get no answer.

use std::{fmt, io};

use serde::{Deserialize, Serialize};

/// What gives read-only access to a supervisor.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadAccess {
    /// The name of the abstract socket.
    pub socket: String,
    /// What a request has to bring.
    pub key: String,
}

/// The key is no word for a log.
impl fmt::Debug for ReadAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadAccess").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl ReadAccess {
    /// A new one, which nobody can guess.
    ///
    /// # Errors
    /// When the kernel has no random numbers.
    pub fn new() -> io::Result<Self> {
        Ok(Self { socket: format!("sameport-{}", random()?), key: random()? })
    }

    /// What the header `Authorization` of a request has to be.
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
