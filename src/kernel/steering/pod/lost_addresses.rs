//! Addresses that a pod's network has lost, as when somebody takes it off a network of the engine.
//!
//! Whoever was connected through such an address can never be heard again, and no packet tells the replica: its server
//! keeps the connection until its own time-out, or for ever. Until then the connection counts, and a replica that has
//! many of them gets no new ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

/// An address that is back by then was lost for no longer than a packet may take to be sent again: its connections go on.
const GRACE: Duration = Duration::from_secs(2);
/// A replica that may change addresses can have any number of them come and go.
const MOST: usize = 64;

#[derive(Debug, Default)]
pub struct LostAddresses {
    present: BTreeSet<IpAddr>,
    lost: BTreeMap<IpAddr, Instant>,
}

impl LostAddresses {
    /// Takes note of the addresses that there are.
    pub fn note(&mut self, addresses: &[IpAddr], now: Instant) {
        let present: BTreeSet<_> = addresses.iter().copied().collect();
        self.lost.retain(|address, _| !present.contains(address));
        for address in self.present.difference(&present) {
            if self.lost.len() < MOST {
                self.lost.insert(*address, now);
            }
        }
        self.present = present;
    }

    /// Those that will not come back in time for their connections. Each is returned once.
    pub fn take_due(&mut self, now: Instant) -> BTreeSet<IpAddr> {
        let (due, waiting) =
            self.lost.iter().partition(|(_, since)| now.saturating_duration_since(**since) >= GRACE);
        self.lost = waiting;
        BTreeMap::into_keys(due).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_given_up_once_and_only_if_it_does_not_come_back() {
        let addresses: Vec<IpAddr> =
            ["127.0.0.1", "172.18.0.2", "172.19.0.2"].map(|address| address.parse().unwrap()).to_vec();
        let begin = Instant::now();
        let after = |milliseconds| begin + Duration::from_millis(milliseconds);
        let mut lost = LostAddresses::default();
        lost.note(&addresses, begin);
        assert_eq!(lost.take_due(after(60_000)), BTreeSet::new(), "all are there");
        lost.note(&addresses[..1], after(0));
        lost.note(&addresses[..2], after(1000));
        assert_eq!(lost.take_due(after(1999)), BTreeSet::new());
        assert_eq!(lost.take_due(after(2000)), BTreeSet::from([addresses[2]]), "the other one is back");
        assert_eq!(lost.take_due(after(60_000)), BTreeSet::new(), "once");
        lost.note(&addresses, after(3000));
        lost.note(&addresses[..1], after(4000));
        assert_eq!(lost.take_due(after(6000)), addresses[1..].iter().copied().collect());
    }

    #[test]
    fn so_many_are_remembered_and_no_more() {
        let many: Vec<IpAddr> =
            (0..10_000_u32).map(|number| IpAddr::V4((0x0a00_0000 + number).into())).collect();
        let mut lost = LostAddresses::default();
        lost.note(&many, Instant::now());
        lost.note(&[], Instant::now());
        assert_eq!(lost.take_due(Instant::now() + GRACE).len(), MOST);
    }
}
