//! Sets of ports, as ranges: a file may name all 65,535 of them in a line.

use std::{collections::VecDeque, fmt};

use serde::{Deserialize, Serialize};

use super::Protocol;

/// Whether replicas share a port that their program asks for by number (`x-sameport.ports`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortSharing {
    /// Each replica can hold it, and the kernel chooses among them.
    Shared,
    /// Only one replica can hold it at a time; others get `EADDRINUSE`.
    Exclusive,
}

/// Consecutive ports of one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortRange {
    /// Their protocol.
    pub protocol: Protocol,
    /// The lowest one.
    pub first: u16,
    /// The highest one; not below the lowest.
    pub last: u16,
}

impl PortRange {
    /// A single port.
    #[must_use]
    pub fn of(port: u16, protocol: Protocol) -> Self {
        Self { protocol, first: port, last: port }
    }

    /// Whether both have a port in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.protocol == other.protocol && self.first <= other.last && other.first <= self.last
    }
}

/// As the file and messages write it: `8080/tcp`, `30000-30009/udp`.
impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, first, last } = self;
        if first == last { write!(f, "{first}/{protocol}") } else { write!(f, "{first}-{last}/{protocol}") }
    }
}

/// A set of ports. Its ranges are sorted and apart from each other, so equal sets are written in the same way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<PortRange>", into = "Vec<PortRange>")]
pub struct PortSet(Vec<PortRange>);

impl PortSet {
    /// Whether no port is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a port is in it.
    #[must_use]
    pub fn contains(&self, port: u16, protocol: Protocol) -> bool {
        let after = self.0.partition_point(|range| (range.protocol, range.first) <= (protocol, port));
        let before = after.checked_sub(1).and_then(|at| self.0.get(at));
        before.is_some_and(|range| range.overlaps(&PortRange::of(port, protocol)))
    }

    /// Its ranges, sorted and apart from each other.
    pub fn ranges(&self) -> impl Iterator<Item = PortRange> + '_ {
        self.0.iter().copied()
    }

    /// The ports that are in one of both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.ranges().chain(other.ranges()).collect()
    }

    /// Its ports without those of another one.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left: VecDeque<PortRange> = self.ranges().collect();
        let mut gone = other.0.iter().peekable();
        let mut kept = Vec::new();
        while let Some(range) = left.pop_front() {
            let is_past = |gone: &&PortRange| (gone.protocol, gone.last) < (range.protocol, range.first);
            while gone.next_if(|gone| is_past(gone)).is_some() {}
            let Some(hole) = gone.peek().filter(|hole| hole.overlaps(&range)) else {
                kept.push(range);
                continue;
            };
            if let Some(last) = hole.first.checked_sub(1).filter(|last| *last >= range.first) {
                kept.push(PortRange { last, ..range });
            }
            if let Some(first) = hole.last.checked_add(1).filter(|first| *first <= range.last) {
                left.push_front(PortRange { first, ..range });
            }
        }
        Self(kept)
    }
}

impl FromIterator<PortRange> for PortSet {
    fn from_iter<I: IntoIterator<Item = PortRange>>(ranges: I) -> Self {
        // What was read from a file or a socket may be anything.
        let mut all: Vec<_> = ranges.into_iter().filter(|range| range.first <= range.last).collect();
        all.sort_unstable();
        all.dedup_by(|next, range| {
            let joins = next.protocol == range.protocol && u32::from(next.first) <= u32::from(range.last) + 1;
            if joins {
                range.last = range.last.max(next.last);
            }
            joins
        });
        Self(all)
    }
}

impl From<Vec<PortRange>> for PortSet {
    fn from(ranges: Vec<PortRange>) -> Self {
        ranges.into_iter().collect()
    }
}

impl From<PortSet> for Vec<PortRange> {
    fn from(PortSet(ranges): PortSet) -> Self {
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(first: u16, last: u16) -> PortRange {
        PortRange { protocol: Protocol::Tcp, first, last }
    }

    fn udp(first: u16, last: u16) -> PortRange {
        PortRange { protocol: Protocol::Udp, first, last }
    }

    fn set(ranges: &[PortRange]) -> PortSet {
        ranges.iter().copied().collect()
    }

    fn shown(set: &PortSet) -> String {
        set.ranges().map(|range| range.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ranges_are_sorted_and_those_that_touch_are_one() {
        for (ranges, wanted) in [
            (&[][..], ""),
            (&[tcp(80, 80)], "80/tcp"),
            (&[tcp(9, 12), tcp(1, 3), tcp(4, 5)], "1-5/tcp 9-12/tcp"),
            (&[tcp(1, 9), tcp(2, 3), tcp(5, 20)], "1-20/tcp"),
            (&[udp(1, 3), tcp(3, 5)], "3-5/tcp 1-3/udp"),
            (&[tcp(65535, 65535), tcp(1, 65535), udp(0, 0)], "1-65535/tcp 0/udp"),
            (&[tcp(3, 1)], ""),
        ] {
            assert_eq!(shown(&set(ranges)), wanted);
        }
    }

    #[test]
    fn what_is_taken_away_may_be_anywhere() {
        for (from, gone, wanted) in [
            (&[tcp(1, 9)][..], &[][..], "1-9/tcp"),
            (&[tcp(1, 9)], &[tcp(4, 5)], "1-3/tcp 6-9/tcp"),
            (&[tcp(1, 9)], &[tcp(1, 2), tcp(4, 4), tcp(9, 20)], "3/tcp 5-8/tcp"),
            (&[tcp(1, 9)], &[udp(1, 9)], "1-9/tcp"),
            (&[tcp(1, 9), udp(1, 9)], &[tcp(1, 9), udp(5, 5)], "1-4/udp 6-9/udp"),
            (&[tcp(1, 3), tcp(5, 6), tcp(8, 9)], &[tcp(2, 8)], "1/tcp 9/tcp"),
            (&[tcp(0, 65535)], &[tcp(0, 0), tcp(65535, 65535)], "1-65534/tcp"),
            (&[tcp(5, 6)], &[tcp(1, 9)], ""),
        ] {
            assert_eq!(shown(&set(from).without(&set(gone))), wanted);
        }
        assert_eq!(shown(&set(&[tcp(1, 3)]).union(&set(&[tcp(4, 5)]))), "1-5/tcp");
    }

    #[test]
    fn a_port_is_in_it_or_not() {
        let set = set(&[tcp(9000, 9001), udp(53, 53), tcp(80, 80)]);
        for (port, protocol, wanted) in [
            (80, Protocol::Tcp, true),
            (80, Protocol::Udp, false),
            (53, Protocol::Udp, true),
            (8999, Protocol::Tcp, false),
            (9000, Protocol::Tcp, true),
            (9001, Protocol::Tcp, true),
            (9002, Protocol::Tcp, false),
            (9000, Protocol::Sctp, false),
            (1, Protocol::Tcp, false),
        ] {
            assert_eq!(set.contains(port, protocol), wanted, "{port}/{protocol}");
        }
        assert!(!PortSet::default().contains(80, Protocol::Tcp));
    }

    #[test]
    fn what_travels_is_put_in_order() {
        let ports = set(&[tcp(1, 65535), udp(53, 53)]);
        let json = serde_json::to_string(&ports).unwrap();
        assert_eq!(
            json,
            r#"[{"protocol":"tcp","first":1,"last":65535},{"protocol":"udp","first":53,"last":53}]"#
        );
        assert_eq!(serde_json::from_str::<PortSet>(&json).unwrap(), ports);
        let mixed = r#"[{"protocol":"tcp","first":5,"last":9},{"protocol":"tcp","first":9,"last":1},{"protocol":"tcp","first":1,"last":6}]"#;
        assert_eq!(serde_json::from_str::<PortSet>(mixed).unwrap(), set(&[tcp(1, 9)]));
    }
}
