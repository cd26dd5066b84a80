//! What can go wrong in the kernel part, by what to do about it.

use std::io;

/// Why the kernel did not do something.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// This process may not do it.
    #[error("no right to {what}: {source}")]
    Denied {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// This kernel, or this host as it is set up, cannot do it.
    #[error("{what}: {reason}")]
    Unsupported {
        /// What was tried.
        what: String,
        /// What is missing.
        reason: String,
    },
    /// A process, a socket or a namespace is gone.
    #[error("{what} is gone")]
    Gone {
        /// Which one.
        what: String,
    },
    /// More than there is room for.
    #[error("too many {what}: there is room for {most}")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many are possible.
        most: usize,
    },
    /// Anything else.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl KernelError {
    /// Classifies an error of the system.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Denied { what, source },
            Some(libc::ESRCH | libc::ENOENT | libc::EBADF) => {
                Self::Gone { what: format!("{what}: {source}") }
            }
            Some(libc::EOPNOTSUPP | libc::ENOPROTOOPT | libc::ENOSYS) => {
                Self::Unsupported { what, reason: source.to_string() }
            }
            _ => Self::Io { what, source },
        }
    }

    /// Classifies an error of the library that loads programs.
    pub fn bpf<E: std::error::Error + 'static>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |error| match system_error(&error) {
            Some(code) => Self::io(what)(io::Error::from_raw_os_error(code)),
            None => Self::Unsupported { what, reason: error.to_string() },
        }
    }
}

/// The number of the system's error at the root of another one.
fn system_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(code) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(code);
        }
        next = error.source();
    }
    None
}
