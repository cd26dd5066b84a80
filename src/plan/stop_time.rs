//! How long a process that is to end may take. What a request gives it counts for what that request ends, and for nothing
//! that is ended later.

use std::time::Duration;

use crate::spec::Service;

/// How long a process may take to finish its connections, and then to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StopTime {
    /// Until it is told to end, at the latest.
    pub(super) drain: Duration,
    /// From then on, until it is killed.
    pub(super) grace: Duration,
}

impl StopTime {
    /// Of what no file says anything any more.
    pub(super) const DEFAULT: Self = Self { drain: Service::DRAIN, grace: Service::STOP_GRACE };

    /// As the file says.
    pub(super) fn of(service: &Service) -> Self {
        Self { drain: service.drain, grace: service.stop_grace }
    }

    /// Of what has no connections to finish.
    pub(super) fn without_drain(self) -> Self {
        Self { drain: Duration::ZERO, ..self }
    }

    /// As the request says that ends it, if it says something. A short time to end is a short time to finish.
    pub(super) fn or(self, timeout: Option<Duration>) -> Self {
        timeout.map_or(self, |grace| Self { drain: self.drain.min(grace), grace })
    }
}
