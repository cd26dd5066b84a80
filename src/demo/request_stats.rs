//! The results of requests: responses by server, and failures by kind.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::Latencies;

/// The number of failures whose message is kept.
const EXAMPLES: usize = 20;

/// The results of a load so far.
#[derive(Clone, Debug, Default)]
pub struct RequestStats {
    /// Successful requests, by the name of the server.
    pub answered: BTreeMap<String, Answers>,
    /// Failed requests, by kind.
    pub failed: BTreeMap<Failure, u64>,
    /// Requests that were sent twice because a kept connection was closed. They count once above.
    pub repeated: u64,
    /// The first failures: the time since the start of the load, and the message.
    pub examples: Vec<(Duration, String)>,
    /// Latencies of successful requests, from the time at which they were due to the last byte.
    pub latencies: Latencies,
}

/// The responses of one server. Times count from the start of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answers {
    /// The number of requests.
    pub count: u64,
    /// The time of the first response.
    pub first: Duration,
    /// The time of the latest response.
    pub last: Duration,
}

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// The connection was refused.
    Refused,
    /// The connection was reset.
    Reset,
    /// The connection was closed before the response was complete.
    Closed,
    /// The response was not complete in time.
    TimedOut,
    /// The response had a status other than 2xx.
    Status(u16),
    /// Anything else; see [`RequestStats::examples`].
    Other,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.pad("refused"),
            Self::Reset => f.pad("reset"),
            Self::Closed => f.pad("closed before the answer"),
            Self::TimedOut => f.pad("timed out"),
            Self::Status(code) => write!(f, "answered with status {code}"),
            Self::Other => f.pad("failed otherwise"),
        }
    }
}

impl RequestStats {
    /// The number of successful requests.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.answered.values().map(|a| a.count).sum()
    }

    /// The number of failed requests.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// The number of requests that have ended, successful or not.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.answers() + self.failures()
    }

    /// Records a response of `server` at `at`.
    pub(super) fn answer(&mut self, server: String, at: Duration, took: Duration) {
        self.latencies.record(took);
        let answers = self.answered.entry(server).or_insert(Answers { count: 0, first: at, last: at });
        answers.count += 1;
        answers.last = at;
    }

    /// Records a failure at `at`.
    pub(super) fn failure(&mut self, failure: Failure, at: Duration, words: String) {
        *self.failed.entry(failure).or_default() += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push((at, words));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_server_and_failures_by_kind() {
        let mut request_stats = RequestStats::default();
        for millis in [1, 2, 3] {
            request_stats.answer("a".into(), Duration::from_millis(millis), Duration::from_millis(1));
        }
        request_stats.answer("b".into(), Duration::from_millis(9), Duration::from_millis(1));
        request_stats.failure(Failure::Reset, Duration::from_millis(4), "reset by peer".into());
        let a = Answers { count: 3, first: Duration::from_millis(1), last: Duration::from_millis(3) };
        assert_eq!(request_stats.answered["a"], a);
        assert_eq!((request_stats.requests(), request_stats.answers(), request_stats.failures()), (5, 4, 1));
        assert_eq!(request_stats.failed, BTreeMap::from([(Failure::Reset, 1)]));
        assert_eq!(request_stats.examples, [(Duration::from_millis(4), "reset by peer".to_owned())]);
    }
}
