//! The results of the demo, as text and as figures.

use std::{collections::BTreeMap, fmt, net::SocketAddr, time::Duration};

use serde::Serialize;

use crate::spec::ProjectName;

use super::{Connections, RequestStats, spread};

/// The results of the demo.
#[derive(Clone, Debug)]
pub struct Report {
    /// The name of the project.
    pub project: ProjectName,
    /// The address that all replicas share.
    pub address: SocketAddr,
    /// The number of replicas.
    pub replicas: u32,
    /// How connections were used.
    pub connections: Connections,
    /// The results of the requests.
    pub request_stats: RequestStats,
    /// How long requests were sent.
    pub elapsed: Duration,
    /// The replica that was killed.
    pub killed: Killed,
}

/// A replica that was killed under load. Times count from the start of the load.
#[derive(Clone, Copy, Debug)]
pub struct Killed {
    /// The slot of the replica.
    pub replica: u32,
    /// The time of the kill.
    pub at: Duration,
    /// The time of the replacement's first response.
    pub replaced_at: Duration,
}

/// The report for programs. Fields that end in `_ms` are in milliseconds.
#[derive(Debug, Serialize)]
pub struct Figures {
    requests: u64,
    answered: u64,
    failed: u64,
    repeated: u64,
    answers_by_replica: spread::Counts,
    killed_replica: u32,
    replaced_after_ms: u128,
    latency_ms: BTreeMap<&'static str, f64>,
}

impl Report {
    /// Converts the report for programs.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let percents = [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("max", 100.0)];
        let latency =
            |percent: f64| self.request_stats.latencies.percentile(percent).as_micros() as f64 / 1000.0;
        Figures {
            requests: self.request_stats.requests(),
            answered: self.request_stats.answers(),
            failed: self.request_stats.failures(),
            repeated: self.request_stats.repeated,
            answers_by_replica: spread::counts(&self.request_stats),
            killed_replica: self.killed.replica,
            replaced_after_ms: (self.killed.replaced_at - self.killed.at).as_millis(),
            latency_ms: percents.map(|(name, percent)| (name, latency(percent))).into(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { replicas, request_stats, killed, .. } = self;
        let counts = spread::counts(request_stats);
        let answers = request_stats.answers().max(1);
        for replica in 1..=*replicas {
            let count = counts.get(&replica).copied().unwrap_or(0);
            let share = tenths_of_percent(count, answers);
            let name = format!("web-{replica}");
            let bar = bar(count, counts.values().copied().max().unwrap_or(0));
            write!(f, "  {name:<6} {bar:<BAR$} {:>7} answers {share:>7}", grouped(count))?;
            if replica == killed.replica {
                let after = (killed.replaced_at - killed.at).as_secs_f64();
                write!(f, "  killed, back in {after:.2} s")?;
            }
            writeln!(f)?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "  {} requests in {:.1} s, {}:\n  {} answered, {} failed.",
            grouped(request_stats.requests()),
            self.elapsed.as_secs_f64(),
            self.connections,
            grouped(request_stats.answers()),
            grouped(request_stats.failures()),
        )?;
        for (failure, count) in &request_stats.failed {
            writeln!(f, "    {count} {failure}")?;
        }
        if let Some((at, _)) = request_stats.examples.first() {
            let (at, kill) = (at.as_secs_f64(), killed.at.as_secs_f64());
            writeln!(f, "    the first {at:.2} s after the start; the kill was at {kill:.2} s")?;
        }
        if request_stats.repeated > 0 {
            let count = grouped(request_stats.repeated);
            writeln!(f, "  {count} of them were sent twice: their kept connection had been closed.")?;
        }
        writeln!(f, "  Latency: {}.", request_stats.latencies)?;
        if request_stats.failures() + request_stats.repeated == 0 {
            writeln!(f, "  No client noticed that web-{} was killed.", killed.replica)?;
        }
        Ok(())
    }
}

/// Formats `12345` as `12,345`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The length of the longest bar, in columns.
const BAR: usize = 20;

fn bar(count: u64, longest: u64) -> String {
    let columns = count.saturating_mul(BAR as u64).div_ceil(longest.max(1));
    "█".repeat(usize::try_from(columns).unwrap_or(BAR).min(BAR))
}

fn tenths_of_percent(part: u64, whole: u64) -> String {
    let tenths = (u128::from(part) * 1000 + u128::from(whole) / 2) / u128::from(whole);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::Failure;

    fn report(failures: u32) -> Report {
        let mut request_stats = RequestStats::default();
        for n in 0..2000_u64 {
            let (replica, process) = (n % 4 + 1, if n > 1000 && n % 4 == 1 { 9 } else { 1 });
            let at = Duration::from_millis(n * 4);
            request_stats.answer(format!("{replica}.{process}"), at, Duration::from_micros(700 + n));
        }
        for _ in 0..failures {
            request_stats.failure(Failure::Reset, Duration::from_millis(3210), "reset".into());
        }
        Report {
            project: "demo-41234".parse().unwrap(),
            address: "127.0.0.1:41234".parse().unwrap(),
            replicas: 4,
            connections: Connections::PerRequest,
            request_stats,
            elapsed: Duration::from_secs(8),
            killed: Killed {
                replica: 2,
                at: Duration::from_millis(3200),
                replaced_at: Duration::from_millis(3680),
            },
        }
    }

    #[test]
    fn a_report_without_failures() {
        insta::assert_snapshot!(report(0));
    }

    #[test]
    fn a_report_with_failures_claims_nothing() {
        let mut report = report(2);
        report.request_stats.repeated = 3;
        report.connections = Connections::Kept(25);
        insta::assert_snapshot!(report);
    }

    #[test]
    fn figures_for_programs() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&report(1).figures()).unwrap());
    }

    #[test]
    fn numbers_are_grouped_by_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
