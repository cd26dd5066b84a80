//! How replicas are asked how they are, besides by the engine's own health check.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What the answers of a probe mean for a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeType {
    /// Whether it has come up: until then nothing else is asked. Too many bad answers, and it is replaced.
    Startup,
    /// Whether it gets new connections.
    Readiness,
    /// Whether it lives. Too many bad answers, and it is replaced.
    Liveness,
}

impl ProbeType {
    /// In the order in which they begin.
    pub const ALL: [Self; 3] = [Self::Startup, Self::Readiness, Self::Liveness];
}

/// The probes of a service (`x-sameport.probe`). One without a type is a readiness probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probes {
    /// Whether a replica has come up.
    pub startup: Option<Probe>,
    /// Whether it gets new connections.
    pub readiness: Option<Probe>,
    /// Whether it lives.
    pub liveness: Option<Probe>,
}

impl Probes {
    /// The probe for that, if there is one.
    #[must_use]
    pub fn get(&self, probe_type: ProbeType) -> Option<&Probe> {
        match probe_type {
            ProbeType::Startup => self.startup.as_ref(),
            ProbeType::Readiness => self.readiness.as_ref(),
            ProbeType::Liveness => self.liveness.as_ref(),
        }
    }
}

/// How a replica is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What it is asked.
    pub kind: ProbeKind,
    /// On which port in its pod; `None` is the only one that its service publishes or exposes.
    pub port: Option<u16>,
    /// Between two questions.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// So many bad answers in a row count.
    pub failures: u32,
    /// So many good answers in a row count.
    pub successes: u32,
    /// How long bad answers do not count at first. `None`: not at all for start-up and liveness; and a replica that has
    /// not been ready yet may take as long as it likes to become so.
    pub start_period: Option<Duration>,
}

/// What a replica is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeKind {
    /// A path by HTTP, to be answered with a status from 200 to 399.
    Http {
        /// Such as `/healthz`.
        path: String,
    },
    /// To take a connection.
    Tcp,
    /// To run a command in its container, which has to end with exit code 0.
    Exec {
        /// The program and its arguments.
        command: Vec<String>,
    },
}

impl Probe {
    /// Between two questions when the file does not say.
    pub const INTERVAL: Duration = Duration::from_secs(2);
    /// How long an answer may take when the file does not say.
    pub const TIMEOUT: Duration = Duration::from_secs(1);
    /// Bad answers in a row when the file does not say.
    pub const FAILURES: u32 = 3;
    /// Good answers in a row when the file does not say.
    pub const SUCCESSES: u32 = 1;

    /// A probe of that kind, of which the file says nothing else.
    #[must_use]
    pub fn of(kind: ProbeKind) -> Self {
        Self {
            kind,
            port: None,
            interval: Self::INTERVAL,
            timeout: Self::TIMEOUT,
            failures: Self::FAILURES,
            successes: Self::SUCCESSES,
            start_period: None,
        }
    }

    /// Whether it takes a port to ask.
    #[must_use]
    pub fn needs_port(&self) -> bool {
        !matches!(self.kind, ProbeKind::Exec { .. })
    }
}
