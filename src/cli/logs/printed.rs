//! Remembers printed lines of a container's log. An engine sends lines twice when it rotates its log file, or when the
//! log is requested again from some time on.

use std::{
    collections::{HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

use jiff::Timestamp;
use sameport::engine::LogLine;

/// The number of lines remembered per container.
const CAPACITY: usize = 1 << 16;

/// The last printed lines of one container.
#[derive(Debug, Default)]
pub struct Printed {
    /// The time and the digest of each line, oldest first.
    lines: VecDeque<(Timestamp, u64)>,
    digests: HashSet<u64>,
    newest: Option<Timestamp>,
}

impl Printed {
    /// The time of the newest printed line.
    pub fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    /// Remembers a line and returns whether it is new. An older time alone does not make it a repetition: the two
    /// streams of a container overtake each other, and clocks can be set back.
    pub fn is_new(&mut self, line: &LogLine) -> bool {
        let Some(time) = line.time else { return true };
        let mut hasher = DefaultHasher::new();
        (time, line.stderr, &line.text).hash(&mut hasher);
        let digest = hasher.finish();
        if self.newest.is_some_and(|newest| time <= newest) {
            let is_forgotten =
                self.lines.len() == CAPACITY && self.lines.front().is_some_and(|(oldest, _)| time < *oldest);
            if is_forgotten || self.digests.contains(&digest) {
                return false;
            }
        }
        if self.lines.len() == CAPACITY
            && let Some((_, oldest)) = self.lines.pop_front()
        {
            self.digests.remove(&oldest);
        }
        self.lines.push_back((time, digest));
        self.digests.insert(digest);
        self.newest = self.newest.max(Some(time));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at: i64, text: &str) -> LogLine {
        LogLine {
            time: Some(Timestamp::from_nanosecond(at.into()).unwrap()),
            stderr: false,
            text: text.to_owned(),
            bytes: None,
        }
    }

    #[test]
    fn repeated_lines_are_printed_once() {
        let mut printed = Printed::default();
        let lines: Vec<_> = (1..=100).map(|at| line(at, "same")).collect();
        assert!(lines.iter().all(|line| printed.is_new(line)));
        assert!(!lines.iter().any(|line| printed.is_new(line)), "all of them");
        assert!(printed.is_new(&line(101, "same")));
        assert_eq!(printed.newest(), line(101, "").time);
    }

    #[test]
    fn a_line_that_comes_late_is_printed() {
        let mut printed = Printed::default();
        assert!(printed.is_new(&line(100, "out")));
        assert!(printed.is_new(&line(99, "other")), "the other stream was overtaken");
        assert!(printed.is_new(&line(5, "after the clock was put back")));
        assert!(printed.is_new(&line(100, "at the same moment")));
        assert!(printed.is_new(&LogLine { time: None, ..line(1, "") }), "it has no time");
    }

    #[test]
    fn lines_older_than_the_capacity_count_as_printed() {
        let mut printed = Printed::default();
        let most = i64::try_from(CAPACITY).unwrap();
        for at in 1..=most + 10 {
            assert!(printed.is_new(&line(at, "")));
        }
        assert!(!printed.is_new(&line(3, "")));
        assert!(!printed.is_new(&line(most, "")));
        assert_eq!((printed.lines.len(), printed.digests.len()), (CAPACITY, CAPACITY));
    }
}
