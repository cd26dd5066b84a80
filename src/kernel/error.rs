//! What can go wrong in the kernel part, by what to do about it.

use std::{io, path::PathBuf};

/// Why the kernel did not do something.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// This process may not do it.
    #[error("permission denied: {what}: {source}")]
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
    #[error("too many {what}: the maximum is {most}")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many are possible.
        most: usize,
    },
    /// What is pinned is of a newer release.
    #[error(
        "{} has layout {found}, and this release of sameport knows layouts up to {known}: a newer release supervises \
         the project, or did",
        folder.display()
    )]
    NewerLayout {
        /// The project's folder of pins.
        folder: PathBuf,
        /// Its layout, as it is written there.
        found: String,
        /// The newest layout that this release can take over.
        known: u32,
    },
    /// A pinned map is not as its layout says.
    #[error("the BPF map {} is of another release of sameport: it has {found}; layout {layout} has {wanted}",
        path.display())]
    OtherMap {
        /// Where it is pinned.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What it should be.
        wanted: String,
        /// The layout of this release.
        layout: u32,
    },
    /// A folder on bpffs that has our name, and that others can change.
    #[error("{} is not safe to use: {reason}; remove it as root", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Who can change it.
        reason: String,
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

/// Whether the system had no memory or descriptor left for this process.
#[must_use]
pub fn is_shortage(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

impl KernelError {
    /// Whether there was no memory or descriptor left to find anything out with: nothing was learned.
    #[must_use]
    pub fn is_shortage(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_shortage(source))
    }

    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::NewerLayout { .. } => Some(
                "nothing was changed; use the newer release, or remove the project with it (`sameport down`) and start it with this one",
            ),
            Self::OtherMap { .. } => Some(
                "nothing was changed; remove the project with the release that made it (`sameport down`) and start it with this one",
            ),
            Self::Foreign { .. } => Some(
                "nothing in it was used or changed; find out who made it, remove it as root, and try again",
            ),
            _ => None,
        }
    }

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
        move |error| {
            // The verifier's own words are long, and for who mends the program.
            tracing::debug!(error = %chain(&error), "{what}");
            Self::of_bpf(what, &error)
        }
    }

    fn of_bpf(what: String, error: &(dyn std::error::Error + 'static)) -> Self {
        match system_error(error) {
            Some(code) => Self::io(what)(io::Error::from_raw_os_error(code)),
            None => Self::Unsupported { what, reason: error.to_string() },
        }
    }
}

/// An error and what is below it.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
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
