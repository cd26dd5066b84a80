//! From answers to an opinion: one good answer makes a replica ready, several bad ones in a row make it not. Pure.

use crate::engine::Health;

/// What the last answers say of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opinion {
    /// It has not been ready yet.
    Starting,
    /// It is.
    Ready,
    /// It was, and is not any more.
    Failing,
}

impl From<Opinion> for Health {
    fn from(opinion: Opinion) -> Self {
        match opinion {
            Opinion::Starting => Self::Starting,
            Opinion::Ready => Self::Healthy,
            Opinion::Failing => Self::Unhealthy,
        }
    }
}

/// Counts answers.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    opinion: Opinion,
    failures: u32,
    most: u32,
}

impl Thresholds {
    /// So many failures in a row make a replica that was ready not ready; one at least.
    #[must_use]
    pub fn new(most: u32) -> Self {
        Self { opinion: Opinion::Starting, failures: 0, most: most.max(1) }
    }

    /// Takes in an answer, and tells what follows.
    pub fn note(&mut self, is_good: bool) -> Opinion {
        if is_good {
            self.failures = 0;
            self.opinion = Opinion::Ready;
        } else {
            self.failures = self.failures.saturating_add(1);
            if self.opinion == Opinion::Ready && self.failures >= self.most {
                self.opinion = Opinion::Failing;
            }
        }
        self.opinion
    }
}

#[cfg(test)]
mod tests {
    use super::{Opinion::*, *};

    #[test]
    fn opinions() {
        for (case, answers, expected) in [
            ("never an answer", &[false, false, false, false][..], Starting),
            ("the first good one", &[false, false, true], Ready),
            ("a bad one now and then", &[true, false, false, true, false, false], Ready),
            ("three in a row", &[true, false, false, false], Failing),
            ("back again", &[true, false, false, false, true], Ready),
        ] {
            let mut thresholds = Thresholds::new(3);
            let last = answers.iter().map(|answer| thresholds.note(*answer)).last();
            assert_eq!(last, Some(expected), "{case}");
        }
    }
}
