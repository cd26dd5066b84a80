//! What became of requests: who answered how many, and how the others failed.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::Latencies;

/// How many failures are kept with all they said.
const EXAMPLES: usize = 20;

/// What became of the requests of a load so far.
#[derive(Clone, Debug, Default)]
pub struct RequestStats {
    /// Answered ones, by the name of the one who answered.
    pub answered: BTreeMap<String, Answers>,
    /// The others, by kind.
    pub failed: BTreeMap<Failure, u64>,
    /// Requests that were sent twice: a kept connection was closed under the first one. They count once above.
    pub repeated: u64,
    /// The first failures: when, counted from the start of the load, and in the system's words.
    pub examples: Vec<(Duration, String)>,
    /// How long the answered ones took, from when they were due to the last byte of the answer.
    pub latencies: Latencies,
}

/// What one server answered. Times count from the start of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answers {
    /// How many requests.
    pub count: u64,
    /// When its first answer was there.
    pub first: Duration,
    /// When its latest answer was there.
    pub last: Duration,
}

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// Nobody listened.
    Refused,
    /// The connection was reset.
    Reset,
    /// The connection was closed before the whole answer was there.
    Closed,
    /// There was no whole answer in time.
    TimedOut,
    /// There was an answer, and it was not a 2xx.
    Status(u16),
    /// Anything else; [`RequestStats::examples`] has the words.
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
    /// How many requests were answered.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.answered.values().map(|a| a.count).sum()
    }

    /// How many requests failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// How many requests have ended, well or not.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.answers() + self.failures()
    }

    /// Takes in an answer by `server` at `at`.
    pub(super) fn answer(&mut self, server: String, at: Duration, took: Duration) {
        self.latencies.record(took);
        let answers = self.answered.entry(server).or_insert(Answers { count: 0, first: at, last: at });
        answers.count += 1;
        answers.last = at;
    }

    /// Takes in a failure at `at`.
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
