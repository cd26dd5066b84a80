//! The distribution of responses over replicas.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::RequestStats;

/// The period over which rates are averaged.
const WINDOW: Duration = Duration::from_millis(1000);

/// If replicas should have this number of responses each, one with none did not get connections.
const SHARE: u64 = 50;

/// Responses by replica, over all its processes.
pub type Counts = BTreeMap<u32, u64>;

/// The number of a replica from the name of its process, such as `2.17324`.
#[must_use]
pub fn replica_of(process: &str) -> Option<u32> {
    process.split_once('.')?.0.parse().ok()
}

/// Adds up the responses of each replica's processes. Other servers are ignored.
#[must_use]
pub fn counts(request_stats: &RequestStats) -> Counts {
    let mut counts = Counts::new();
    for (process, answers) in &request_stats.answered {
        if let Some(replica) = replica_of(process) {
            *counts.entry(replica).or_default() += answers.count;
        }
    }
    counts
}

/// A replica without responses, although there are at least 50 responses per replica.
#[must_use]
pub fn silent(request_stats: &RequestStats, replicas: u32) -> Option<u32> {
    let counts = counts(request_stats);
    let enough = request_stats.answers() >= u64::from(replicas) * SHARE;
    (1..=replicas).find(|replica| enough && !counts.contains_key(replica))
}

/// The time of the first response of a process of the replica that had not responded before `since`.
#[must_use]
pub fn replaced_at(request_stats: &RequestStats, replica: u32, since: Duration) -> Option<Duration> {
    request_stats
        .answered
        .iter()
        .filter(|(process, answers)| replica_of(process) == Some(replica) && answers.first > since)
        .map(|(_, answers)| answers.first)
        .min()
}

/// Recent counts, from which rates are computed.
#[derive(Debug, Default)]
pub struct Rates(VecDeque<(Duration, Counts)>);

impl Rates {
    /// Adds the counts at a time. Returns the responses per second of each replica over the last period.
    pub fn update(&mut self, at: Duration, counts: &Counts) -> BTreeMap<u32, f64> {
        self.0.push_back((at, counts.clone()));
        while self.0.get(1).is_some_and(|(second, _)| at.saturating_sub(*second) >= WINDOW) {
            self.0.pop_front();
        }
        let Some((from, old)) = self.0.front() else { return BTreeMap::new() };
        // Before the first counts, all counts were 0.
        let (from, old) = if self.0.len() == 1 { (&Duration::ZERO, &Counts::new()) } else { (from, old) };
        let seconds = at.saturating_sub(*from).as_secs_f64().max(0.1);
        let rate = |replica: &u32, count: &u64| {
            let new = count.saturating_sub(old.get(replica).copied().unwrap_or(0));
            f64::from(u32::try_from(new).unwrap_or(u32::MAX)) / seconds
        };
        counts.iter().map(|(replica, count)| (*replica, rate(replica, count))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request_stats(answers: &[(&str, u64)]) -> RequestStats {
        let mut request_stats = RequestStats::default();
        for (process, millis) in answers {
            let at = Duration::from_millis(*millis);
            request_stats.answer((*process).to_owned(), at, Duration::from_millis(1));
        }
        request_stats
    }

    #[test]
    fn processes_of_a_replica_count_together() {
        let request_stats = request_stats(&[("1.5", 1), ("2.5", 2), ("2.9", 3), ("nobody", 4)]);
        assert_eq!(counts(&request_stats), Counts::from([(1, 1), (2, 2)]));
    }

    #[test]
    fn a_replacement_is_a_process_that_had_not_answered_before() {
        let since = Duration::from_millis(10);
        for (case, answers, expected) in [
            ("the old process still answers", &[("2.5", 5), ("2.5", 11)][..], None),
            ("another replica's process is new", &[("2.5", 5), ("3.9", 12)], None),
            ("its new process answers", &[("2.5", 5), ("2.9", 12), ("2.9", 13)], Some(12)),
        ] {
            let found = replaced_at(&request_stats(answers), 2, since);
            assert_eq!(found, expected.map(Duration::from_millis), "{case}");
        }
    }

    #[test]
    fn a_replica_without_answers_is_silent_once_there_were_many() {
        for (case, answers, expected) in
            [("few answers", 99, None), ("many answers, all from one", 100, Some(2))]
        {
            let request_stats = request_stats(&vec![("1.5", 1); answers]);
            assert_eq!(silent(&request_stats, 2), expected, "{case}");
        }
    }

    #[test]
    fn rates_are_those_of_the_last_second() {
        let mut rates = Rates::default();
        let mut found = Vec::new();
        for (tenth, count) in [(0, 0), (5, 50), (10, 100), (15, 150), (20, 150), (25, 150)] {
            let counts = Counts::from([(1, count)]);
            found.push(rates.update(Duration::from_millis(tenth * 100), &counts)[&1].round());
        }
        assert_eq!(found, [0.0, 100.0, 100.0, 100.0, 50.0, 0.0]);
    }
}
