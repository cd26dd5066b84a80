//! Which requests a fault may fail.

use std::{fmt, time::Duration};

use super::support::load::{Failure, PATIENCE, Report};

/// Which requests a fault may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// None.
    Nothing,
    /// One for each client that can have had a request or a connection in the hands of a process that ended: it was broken
    /// off, neither refused nor left without an answer.
    InHand,
    /// The same of a process that hangs: also whoever gave up waiting for it.
    InHandOrLate,
    /// What is sent until somebody serves again, which is within so many seconds.
    Outage(u64),
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("none"),
            Self::InHand => f.write_str("what its processes had in hand"),
            Self::InHandOrLate => {
                f.write_str("what its processes had in hand, also for longer than clients wait")
            }
            Self::Outage(seconds) => write!(f, "all until the pod is back, {seconds} s at most"),
        }
    }
}

/// What clients saw, each kind for itself.
#[derive(Debug, Default)]
pub struct Seen {
    /// Those with a connection for each request.
    pub fresh: Report,
    /// Those that keep their connection.
    pub kept: Report,
}

impl Seen {
    /// A report of both kinds.
    pub fn all(&self) -> Report {
        let mut all = self.fresh.clone();
        all.merge(self.kept.clone());
        all
    }

    /// Adds what was seen later.
    pub fn merge(&mut self, other: Self) {
        self.fresh.merge(other.fresh);
        self.kept.merge(other.kept);
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "with a connection for each request: {}with kept connections: {}", self.fresh, self.kept)
    }
}

/// How many clients can have had something in the hands of a process, each kind for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AtRisk {
    /// Those with a connection for each request: any of them may just have had one there.
    pub fresh: usize,
    /// Those that keep their connection: whose connection was there.
    pub kept: usize,
}

impl Cost {
    fn allows(self, failure: &Failure) -> bool {
        match failure {
            Failure::Reset | Failure::CutShort => true,
            Failure::TimedOut => self == Self::InHandOrLate,
            Failure::Refused | Failure::Status(_) | Failure::Other(_) => false,
        }
    }

    /// Whether the failures are explained: with so many clients `at_risk`, and a beginning at that time of the load's clock.
    ///
    /// # Errors
    /// Which failures are not, and why.
    pub fn explains(self, seen: &Seen, at_risk: AtRisk, begin: Duration) -> Result<(), String> {
        let all = seen.all().failures;
        let (fresh, kept) = (seen.fresh.failures.len(), seen.kept.failures.len());
        match self {
            Self::Nothing if all.is_empty() => Ok(()),
            Self::Nothing => Err("it may fail no request".to_owned()),
            Self::InHand | Self::InHandOrLate if fresh > at_risk.fresh || kept > at_risk.kept => Err(
                format!("{fresh} and {kept} requests failed, and these can have had one there: {at_risk:?}"),
            ),
            Self::InHand | Self::InHandOrLate => {
                match all.iter().find(|(_, failure)| !self.allows(failure)) {
                    None => Ok(()),
                    Some((at, failure)) => {
                        Err(format!("a request was not broken off, at {at:.1?}: {failure:?}"))
                    }
                }
            }
            Self::Outage(seconds) => {
                let end = begin + Duration::from_secs(seconds);
                match all.iter().find(|(at, failure)| began(*at, failure) > end) {
                    None => Ok(()),
                    Some((at, failure)) => {
                        Err(format!("a request failed after {seconds} s, at {at:.1?}: {failure:?}"))
                    }
                }
            }
        }
    }
}

/// When a request that failed at that time was sent: what fails otherwise than by its patience fails soon.
fn began(at: Duration, failure: &Failure) -> Duration {
    match failure {
        Failure::TimedOut => at.saturating_sub(PATIENCE),
        _ => at,
    }
}
