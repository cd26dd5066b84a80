//! The distribution of latencies.

use std::{fmt, time::Duration};

use hdrhistogram::Histogram;

/// The longest time that is recorded; longer times count as this one.
const LONGEST: Duration = Duration::from_secs(120);

/// A histogram of times in microseconds, with three significant digits.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        match Histogram::new_with_max(micros(LONGEST), 3) {
            Ok(histogram) => Self(histogram),
            Err(error) => unreachable!("these are valid bounds: {error}"),
        }
    }
}

impl Latencies {
    /// Records a time.
    pub fn record(&mut self, took: Duration) {
        self.0.saturating_record(micros(took).max(1));
    }

    /// The time that this percentage of the requests did not exceed; zero if there were none.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_micros(self.0.value_at_percentile(percent))
    }

    /// The longest time; zero if there were none.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }

    /// The number of recorded times.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "50 % within {}", Millis(self.percentile(50.0)))?;
        for percent in [90.0, 99.0] {
            write!(f, ", {percent} % {}", Millis(self.percentile(percent)))?;
        }
        write!(f, ", all {}", Millis(self.max()))
    }
}

/// A time in milliseconds, with one decimal below 10 ms.
#[derive(Clone, Copy, Debug)]
pub(super) struct Millis(pub Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_secs_f64() * 1000.0;
        let decimals = if millis < 10.0 { 1 } else { 0 };
        write!(f, "{millis:.decimals$} ms")
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_recorded_times() {
        let mut latencies = Latencies::default();
        for millis in 1..=100 {
            latencies.record(Duration::from_millis(millis));
        }
        for (percent, millis) in [(50.0, 50), (90.0, 90), (99.0, 99)] {
            let found = latencies.percentile(percent).as_millis();
            assert!(found.abs_diff(millis) <= 1, "{percent}: {found}");
        }
        assert_eq!(latencies.count(), 100);
        assert_eq!(latencies.to_string(), "50 % within 50 ms, 90 % 90 ms, 99 % 99 ms, all 100 ms");
    }

    #[test]
    fn nothing_recorded_is_zero_and_a_day_is_the_longest_time() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(99.0), Duration::ZERO);
        latencies.record(Duration::from_secs(86_400));
        assert!(latencies.max() >= Duration::from_secs(119), "{:?}", latencies.max());
    }

    #[test]
    fn short_times_get_a_decimal() {
        for (micros, text) in [(140, "0.1 ms"), (9_940, "9.9 ms"), (12_600, "13 ms")] {
            assert_eq!(Millis(Duration::from_micros(micros)).to_string(), text);
        }
    }
}
