//! Turns probe results into a health state, by thresholds of consecutive successes and failures. Pure.

use std::time::Duration;

use crate::{
    engine::Health,
    spec::{Probe, ProbeType},
};

/// The health of a replica according to its recent probe results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opinion {
    /// It has not been ready yet.
    Starting,
    /// It is ready.
    Ready,
    /// It is not ready, and its start period is over.
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

/// Counts consecutive probe results.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    opinion: Opinion,
    /// Consecutive failures.
    failures: u32,
    /// Consecutive successes.
    successes: u32,
    most_failures: u32,
    enough_successes: u32,
    /// How long failures do not count before the first success; `None`: no limit.
    start_period: Option<Duration>,
}

impl Thresholds {
    /// The thresholds of a probe. A liveness probe starts as ready, all others as starting.
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

    /// The same thresholds with a known health, for example after a restart of the supervisor.
    #[must_use]
    pub fn with(self, opinion: Opinion) -> Self {
        let start_period =
            if opinion == Opinion::Starting { self.start_period } else { Some(Duration::ZERO) };
        Self { opinion, start_period, ..self }
    }

    /// The current health.
    #[must_use]
    pub fn opinion(&self) -> Opinion {
        self.opinion
    }

    /// Records a result and returns the resulting health. `after` is the time between the first probe and this one.
    pub fn note(&mut self, is_good: bool, after: Duration) -> Opinion {
        if is_good {
            // A success ends the start period.
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

    /// Runs a series of results, one second apart.
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
    fn several_consecutive_successes_can_be_required() {
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
    fn failures_count_after_the_start_period() {
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
    fn without_a_start_period_failures_count_immediately_except_for_readiness() {
        for (probe_type, expected) in
            [(ProbeType::Startup, Failing), (ProbeType::Readiness, Starting), (ProbeType::Liveness, Failing)]
        {
            assert_eq!(last(probe_type, &probe(), &[false; 3]), expected, "{probe_type:?}");
        }
        assert_eq!(last(ProbeType::Liveness, &probe(), &[false; 2]), Ready, "innocent at first");
    }
}
