//! From answers to an opinion: so many good ones in a row, or so many bad ones, make a replica another one. Pure.

use std::time::Duration;

use crate::{
    engine::Health,
    spec::{Probe, ProbeType},
};

/// What the last answers say of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opinion {
    /// It has not been ready yet.
    Starting,
    /// It is.
    Ready,
    /// It is not, and has had its time.
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
    /// In a row.
    failures: u32,
    /// In a row.
    successes: u32,
    most_failures: u32,
    enough_successes: u32,
    /// How long bad answers do not count as long as there was no good one; none: for ever.
    start_period: Option<Duration>,
}

impl Thresholds {
    /// As a probe says. Whoever is asked whether it lives is taken to live until its answers say otherwise.
    #[must_use]
    pub fn new(probe_type: ProbeType, probe: &Probe) -> Self {
        Self {
            opinion: if probe_type == ProbeType::Liveness { Opinion::Ready } else { Opinion::Starting },
            failures: 0,
            successes: 0,
            most_failures: probe.failures.max(1),
            enough_successes: probe.successes.max(1),
            start_period: match probe_type {
                ProbeType::Readiness => probe.start_period,
                ProbeType::Startup | ProbeType::Liveness => Some(probe.start_period.unwrap_or_default()),
            },
        }
    }

    /// The same, where an opinion is known.
    #[must_use]
    pub fn with(self, opinion: Opinion) -> Self {
        let start_period =
            if opinion == Opinion::Starting { self.start_period } else { Some(Duration::ZERO) };
        Self { opinion, start_period, ..self }
    }

    /// What the answers so far say.
    #[must_use]
    pub fn opinion(&self) -> Opinion {
        self.opinion
    }

    /// Takes in an answer to a question that was asked so long after the first one, and tells what follows.
    pub fn note(&mut self, is_good: bool, after: Duration) -> Opinion {
        if is_good {
            // Whoever has come up is past its start period.
            self.start_period = Some(Duration::ZERO);
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            if self.successes >= self.enough_successes {
                self.opinion = Opinion::Ready;
            }
        } else if self.start_period.is_some_and(|period| after >= period) {
            self.successes = 0;
            self.failures = self.failures.saturating_add(1);
            if self.failures >= self.most_failures {
                self.opinion = Opinion::Failing;
            }
        } else {
            self.successes = 0;
        }
        self.opinion
    }
}

#[cfg(test)]
mod tests {
    use super::{Opinion::*, *};
    use crate::spec::ProbeKind;

    /// Answers a second apart.
    fn last(probe_type: ProbeType, probe: &Probe, answers: &[bool]) -> Opinion {
        let mut thresholds = Thresholds::new(probe_type, probe);
        for (second, answer) in (0..).zip(answers) {
            thresholds.note(*answer, Duration::from_secs(second));
        }
        thresholds.opinion()
    }

    fn probe() -> Probe {
        Probe::of(ProbeKind::Tcp)
    }

    #[test]
    fn readiness() {
        for (case, answers, expected) in [
            ("never an answer", &[false, false, false, false][..], Starting),
            ("the first good one", &[false, false, true], Ready),
            ("a bad one now and then", &[true, false, false, true, false, false], Ready),
            ("three in a row", &[true, false, false, false], Failing),
            ("back again", &[true, false, false, false, true], Ready),
        ] {
            assert_eq!(last(ProbeType::Readiness, &probe(), answers), expected, "{case}");
        }
    }

    #[test]
    fn several_good_answers_in_a_row_may_be_asked_for() {
        let probe = Probe { successes: 2, ..probe() };
        for (case, answers, expected) in [
            ("one is not enough", &[true][..], Starting),
            ("nor with a bad one between", &[true, false, true], Starting),
            ("two are", &[true, false, true, true], Ready),
            ("also to come back", &[true, true, false, false, false, true], Failing),
            ("once more", &[true, true, false, false, false, true, true], Ready),
        ] {
            assert_eq!(last(ProbeType::Readiness, &probe, answers), expected, "{case}");
        }
    }

    #[test]
    fn bad_answers_count_once_the_start_period_is_over() {
        let probe = Probe { start_period: Some(Duration::from_secs(3)), ..probe() };
        for (case, probe_type, answers, expected) in [
            ("in the period", ProbeType::Startup, &[false, false, false, false, false][..], Starting),
            ("and three more", ProbeType::Startup, &[false, false, false, false, false, false], Failing),
            ("it came up in time", ProbeType::Startup, &[false, false, false, false, true], Ready),
            ("a readiness with an end", ProbeType::Readiness, &[false; 6], Failing),
            ("it lives as long as nothing counts", ProbeType::Liveness, &[false; 5], Ready),
            ("and then no more", ProbeType::Liveness, &[false; 6], Failing),
            ("a good answer ends the period", ProbeType::Liveness, &[true, false, false, false], Failing),
        ] {
            assert_eq!(last(probe_type, &probe, answers), expected, "{case}");
        }
    }

    #[test]
    fn without_a_start_period_bad_answers_count_at_once_but_for_readiness() {
        for (probe_type, expected) in
            [(ProbeType::Startup, Failing), (ProbeType::Readiness, Starting), (ProbeType::Liveness, Failing)]
        {
            assert_eq!(last(probe_type, &probe(), &[false; 3]), expected, "{probe_type:?}");
        }
        assert_eq!(last(ProbeType::Liveness, &probe(), &[false; 2]), Ready, "innocent at first");
    }
}
