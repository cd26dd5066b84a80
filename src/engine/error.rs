//! What can go wrong in an engine, by what to do about it.

/// Why an engine did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// What the call was about does not exist (any more).
    #[error("{what} does not exist")]
    Gone {
        /// The thing, such as `container web-1`, `image nginx`.
        what: String,
    },
    /// A name is taken by something else, or the thing is in the wrong state for this.
    #[error("{message}")]
    Conflict {
        /// The engine's own words.
        message: String,
    },
    /// A port of the host is taken by somebody else.
    #[error("{message}")]
    PortTaken {
        /// The engine's own words.
        message: String,
    },
    /// It has to be asked again later: it is starting, stopping, or overloaded.
    #[error("{message}")]
    Busy {
        /// The engine's own words.
        message: String,
    },
    /// The host of the engine is out of something, such as room on its disk: that is no fault of what was asked for.
    #[error("{message}")]
    HostFault {
        /// The engine's own words.
        message: String,
    },
    /// An address or a subnet of a network is somebody else's.
    #[error("{message}")]
    AddressTaken {
        /// The engine's own words.
        message: String,
    },
    /// It cannot be reached, or went away in the middle of a call.
    #[error("cannot reach the container engine at {address}: {reason}")]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// It does not let us: no permission on its socket.
    #[error("{message}")]
    Denied {
        /// Who refused, and in which words.
        message: String,
    },
    /// The registry of an image does not let us: credentials are missing or wrong.
    #[error("{message}")]
    Unauthorized {
        /// Who refused, and in which words.
        message: String,
    },
    /// A command of the user's did not succeed.
    #[error("{what}: {how}{}", last_lines(output))]
    CommandFailed {
        /// Which one, such as ``post_start `load.sh` ``.
        what: String,
        /// How it ended, such as `exit code 1`.
        how: String,
        /// The last lines that it wrote.
        output: Vec<String>,
    },
    /// It refuses the request as it stands: asking again does not help.
    #[error("{message}")]
    Refused {
        /// The engine's own words.
        message: String,
    },
}

impl EngineError {
    /// Whether the same call may succeed a little later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::HostFault { .. } | Self::Unreachable { .. })
    }

    /// What the user can do about it, where there is something to say.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { .. } => Some(
                "is Docker Engine running? `systemctl start docker` starts it; \
                 DOCKER_HOST or `docker context use` say where it is",
            ),
            Self::HostFault { .. } => {
                Some("free disk space, memory or descriptors on the engine's host; sameport keeps trying")
            }
            Self::Denied { .. } => Some("run as root or as a member of the group `docker`"),
            Self::Unauthorized { .. } => Some(
                "`docker login REGISTRY` first, as the user who runs sameport; check the image's name, too",
            ),
            Self::PortTaken { .. } => {
                Some("another program has this port of the host: stop it, or publish another port")
            }
            Self::AddressTaken { .. } => Some(
                "another container has this address, or another network this subnet: remove it, or choose another one in the file",
            ),
            Self::Gone { .. }
            | Self::Conflict { .. }
            | Self::Busy { .. }
            | Self::Refused { .. }
            | Self::CommandFailed { .. } => None,
        }
    }
}

/// Whether an engine or a runtime says that its host is out of something, or fails: then whatever it was asked to run is not
/// to blame. The words are those of the kernel (errno(3)), and of what the engine is made of.
#[must_use]
pub fn tells_of_host_fault(message: &str) -> bool {
    let words = message.to_lowercase();
    [
        "no space left on device",
        "disk quota exceeded",
        "cannot allocate memory",
        "too many open files",
        "too many links",
        "resource temporarily unavailable",
        "input/output error",
        "ttrpc: closed",
        "context deadline exceeded",
    ]
    .iter()
    .any(|phrase| words.contains(phrase))
}

/// Lines of an output, each on a line of its own, as they follow what is told in one line.
fn last_lines(output: &[String]) -> String {
    output.iter().map(|line| format!("\n    {line}")).collect()
}
