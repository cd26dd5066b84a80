//! What the kernel shows of a new version beside the old one, while a service is on its way from the one to the other.
//!
//! In: one report of the kernel after the other. Out: [`RolloutMetrics`], from which it follows whether the new version does worse.
//! Only the comparison counts: clients that reset their connections, and hosts that have too much to do, do so to both.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use crate::{
    engine::{ContainerId, Role},
    kernel::steering::{ReplicaReport, Report},
    spec::{ServiceName, Share, Update},
};

use super::{
    Desired, Direction, Observed,
    arrivals::{self, Arrivals},
    history::later,
};

/// Fewer than that are chance.
const FEW: u64 = 5;
/// What the old version does is known after so many connections; before that, all that it ever had counts.
const ENOUGH: u64 = 20;
/// Fewer than one in so many of those that were due are hardly any: probes are connections, too.
const MISSED: u64 = 10;
/// A queue of a replica that is no longer than this on average is no sign of anything.
const SHORT: u64 = 8;
/// So many times the queue of the old ones is a sign.
const LONGER: u64 = 4;
/// For so long at least the queue has to be longer.
const LASTS: Duration = Duration::from_secs(1);

/// What was counted of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    /// How many there were.
    pub connections: u64,
    /// How many were reset.
    pub reset: u64,
    /// Handshakes that a queue had no room for.
    pub overflowed: u64,
}

/// What is seen of the two versions since a rollout began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RolloutMetrics {
    /// Of the new one's replicas.
    pub new: ConnectionStats,
    /// Of the old one's.
    pub old: ConnectionStats,
    /// Since when the queues of the new one are far longer than those of the old one.
    pub queues_since: Option<Timestamp>,
    /// How many connections wait at a new replica, and at an old one.
    pub queues: (u64, u64),
    /// How many connections came to the new one by published ports, and how many should have, by the weights of its replicas.
    pub came: u64,
    /// See [`Self::came`].
    pub due: u64,
}

/// How a new version does worse than the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regression {
    /// More of its connections are reset.
    Resets,
    /// Its queues have no room for more handshakes.
    Overflows,
    /// More connections wait for it.
    Queues,
    /// Hardly any of those come to it that should.
    NoConnections,
}

impl ConnectionStats {
    fn of(report: &ReplicaReport) -> Self {
        report.ports.values().fold(Self::default(), |sum, traffic| Self {
            connections: sum.connections + traffic.total,
            reset: sum.reset + traffic.reset,
            overflowed: sum.overflowed + traffic.overflowed,
        })
    }

    fn plus(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            reset: self.reset + other.reset,
            overflowed: self.overflowed + other.overflowed,
        }
    }

    /// Connections that came before can move away again: then nothing is left, and not less.
    fn since(self, earlier: Self) -> Self {
        Self {
            connections: self.connections.saturating_sub(earlier.connections),
            reset: self.reset.saturating_sub(earlier.reset),
            overflowed: self.overflowed.saturating_sub(earlier.overflowed),
        }
    }
}

impl RolloutMetrics {
    /// How the new version does worse, if it does. `rules.budget` is how many of its connections may end badly, besides
    /// twice as many as of the old version's do.
    #[must_use]
    pub fn regression(&self, rules: &Update, now: Timestamp) -> Option<Regression> {
        let exceeds = |what: fn(&ConnectionStats) -> u64| {
            let (bad, old) = (what(&self.new), rate(what(&self.old), self.old.connections));
            let most = 2 * old + u64::from(rules.budget.thousandths());
            rules.budget < Share::ALL && bad >= FEW && is_more(bad, self.new.connections, most)
        };
        if exceeds(|stats| stats.reset) {
            return Some(Regression::Resets);
        }
        if exceeds(|stats| stats.overflowed) {
            return Some(Regression::Overflows);
        }
        if rules.budget < Share::ALL && self.due >= arrivals::ENOUGH && self.came * MISSED < self.due {
            return Some(Regression::NoConnections);
        }
        let lasts = LASTS.max(rules.monitor / 2);
        let queue = rules.budget < Share::ALL && self.queues_since.is_some_and(|at| later(at, lasts) <= now);
        queue.then_some(Regression::Queues)
    }
}

/// How many of a thousand.
fn rate(bad: u64, all: u64) -> u64 {
    bad.saturating_mul(1000) / all.max(1)
}

/// Whether `bad` of `all` is more than `most` of a thousand, and by more than chance explains: a count varies by its square
/// root, and hardly ever by three times that.
fn is_more(bad: u64, all: u64, most: u64) -> bool {
    let (bad, most) = (u128::from(bad) * 1000, u128::from(all) * u128::from(most));
    bad.checked_sub(most).is_some_and(|excess| excess > 0 && excess * excess > 9 * 1000 * most)
}

/// Follows what the kernel shows of all services that are on their way.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    services: BTreeMap<ServiceName, Watched>,
}

#[derive(Clone, Debug)]
struct Watched {
    /// By which a rollout is known.
    began: Timestamp,
    replicas: BTreeMap<(ContainerId, u32), Seen>,
    queues_since: Option<Timestamp>,
    /// Of an old replica, when there was one last.
    old_queue: u64,
    new_queue: u64,
    arrivals: Arrivals,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    is_new: bool,
    /// Whether clients have come to it: before that, only those have who ask whether it is ready.
    is_known: bool,
    before: ConnectionStats,
    last: ConnectionStats,
}

impl Signals {
    /// Takes in what the kernel shows.
    pub fn note(&mut self, desired: &Desired, observed: &Observed, report: &Report, now: Timestamp) {
        self.services.retain(|name, watched| {
            desired.rollouts.get(name).is_some_and(|rollout| rollout.began == watched.began)
        });
        let forward = desired
            .rollouts
            .iter()
            .filter(|(_, rollout)| matches!(rollout.direction, Direction::Forward { .. }));
        for (name, rollout) in forward {
            let is_first = !self.services.contains_key(name);
            let watched = self.services.entry(name.clone()).or_insert_with(|| Watched {
                began: rollout.began,
                replicas: BTreeMap::new(),
                queues_since: None,
                old_queue: 0,
                new_queue: 0,
                arrivals: Arrivals::default(),
            });
            let replicas = observed.service(name).filter_map(|(_, container)| {
                let pod = report.pods.get(&container.labels.pod)?;
                let is_new = desired.project.is_service(name, &container.labels.generation);
                Some((is_new, &container.id, pod.replicas.get(&container.id)?))
            });
            let replicas: Vec<_> = replicas.collect();
            watched.arrivals.note(&desired.project, name, &replicas);
            // Who comes later begins at nothing.
            let before = |stats| if is_first { stats } else { ConnectionStats::default() };
            let (mut new, mut old) = (Vec::new(), Vec::new());
            for (is_new, id, replica) in replicas {
                let stats = ConnectionStats::of(replica);
                let key = (id.clone(), replica.pid);
                let fresh = Seen { is_new, is_known: false, before: before(stats), last: stats };
                let seen = watched.replicas.entry(key).or_insert(fresh);
                seen.last = stats;
                seen.is_known |= replica.weight > 0;
                if !seen.is_known {
                    seen.before = stats;
                }
                if replica.weight > 0 && replica.listens() {
                    let queue = replica.ports.values().map(|traffic| traffic.queue).sum::<u64>();
                    if is_new { new.push(queue) } else { old.push(queue) }
                }
            }
            watched.old_queue = mean(&old).unwrap_or(watched.old_queue);
            watched.new_queue = mean(&new).unwrap_or(0);
            let is_long = watched.new_queue > SHORT && watched.new_queue > LONGER * (watched.old_queue + 1);
            watched.queues_since = is_long.then(|| watched.queues_since.unwrap_or(now));
        }
    }

    /// Services of which too few connections come by a published port to tell whether a new version gets any.
    #[must_use]
    pub fn silent_ports(&self) -> BTreeMap<ServiceName, u16> {
        let silent = |watched: &Watched| watched.arrivals.silent_port();
        self.services.iter().filter_map(|(name, watched)| Some((name.clone(), silent(watched)?))).collect()
    }

    /// What follows from it.
    #[must_use]
    pub fn metrics(&self) -> BTreeMap<ServiceName, RolloutMetrics> {
        self.services.iter().map(|(name, watched)| (name.clone(), watched.metrics())).collect()
    }
}

impl Watched {
    fn metrics(&self) -> RolloutMetrics {
        let sum = |is_new, part: fn(&Seen) -> ConnectionStats| {
            let those = self.replicas.values().filter(|seen| seen.is_new == is_new);
            those.map(part).fold(ConnectionStats::default(), ConnectionStats::plus)
        };
        let since = |seen: &Seen| seen.last.since(seen.before);
        let mut old = sum(false, since);
        if old.connections < ENOUGH {
            old = sum(false, |seen| seen.last);
        }
        RolloutMetrics {
            new: sum(true, since),
            old,
            queues_since: self.queues_since,
            queues: (self.new_queue, self.old_queue),
            came: self.arrivals.came_to_new(),
            due: self.arrivals.due(),
        }
    }
}

fn mean(queues: &[u64]) -> Option<u64> {
    let count = u64::try_from(queues.len()).ok().filter(|count| *count > 0)?;
    Some(queues.iter().sum::<u64>() / count)
}

/// Which container of a service does worst by its resets or its queue, so that somebody can look at it.
pub(super) fn worst<'a>(
    report: &Report,
    replicas: impl Iterator<Item = &'a super::Container>,
    regression: Regression,
) -> Option<&'a super::Container> {
    replicas.filter(|container| matches!(container.labels.role, Role::Replica { .. })).max_by_key(
        |container| {
            let pod = report.pods.get(&container.labels.pod);
            let replica = pod.and_then(|pod| pod.replicas.get(&container.id));
            replica.map_or(0, |replica| match regression {
                Regression::Resets => ConnectionStats::of(replica).reset,
                Regression::Overflows => ConnectionStats::of(replica).overflowed,
                Regression::Queues => replica.ports.values().map(|traffic| traffic.queue).sum(),
                Regression::NoConnections => 0,
            })
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONITOR: Duration = Duration::from_secs(4);

    fn rules() -> Update {
        Update { monitor: MONITOR, ..Update::default() }
    }

    fn stats(connections: u64, reset: u64) -> ConnectionStats {
        ConnectionStats { connections, reset, overflowed: 0 }
    }

    fn metrics(new: ConnectionStats, old: ConnectionStats) -> RolloutMetrics {
        RolloutMetrics { new, old, ..RolloutMetrics::default() }
    }

    #[test]
    fn only_what_is_worse_than_the_old_version_is_worse() {
        for (case, new, old, wanted) in [
            ("nothing", stats(1000, 0), stats(1000, 0), None),
            ("a few", stats(10, 4), stats(1000, 0), None),
            ("one percent", stats(1000, 10), stats(1000, 0), None),
            ("more, which may be chance", stats(1000, 19), stats(1000, 0), None),
            ("more than chance explains", stats(1000, 20), stats(1000, 0), Some(Regression::Resets)),
            (
                "of so many hardly anything is chance",
                stats(100_000, 1100),
                stats(1000, 0),
                Some(Regression::Resets),
            ),
            ("of few much is", stats(57, 5), stats(288, 9), None),
            ("as the old ones do", stats(1000, 300), stats(1000, 300), None),
            ("thrice what the old ones do", stats(1000, 900), stats(1000, 300), Some(Regression::Resets)),
            ("nobody had come to the old ones", stats(100, 50), stats(0, 0), Some(Regression::Resets)),
        ] {
            assert_eq!(metrics(new, old).regression(&rules(), Timestamp::UNIX_EPOCH), wanted, "{case}");
        }
        let full = ConnectionStats { connections: 100, reset: 0, overflowed: 6 };
        assert_eq!(
            metrics(full, stats(100, 0)).regression(&rules(), Timestamp::UNIX_EPOCH),
            Some(Regression::Overflows)
        );
    }

    /// How many of 500 rollouts are failed, where so many percent of the connections of each version end badly: what is
    /// known is looked at after each twenty of the new one's five hundred.
    fn failed(old_percent: u32, new_percent: u32) -> u32 {
        let mut chance = fastrand::Rng::with_seed(u64::from(old_percent) << 8 | u64::from(new_percent));
        let mut more = |stats: &mut ConnectionStats, count, percent| {
            stats.connections += count;
            stats.reset += (0..count).map(|_| u64::from(chance.u32(..100) < percent)).sum::<u64>();
        };
        let mut fails = || {
            let (mut new, mut old) = (ConnectionStats::default(), ConnectionStats::default());
            (0..25).any(|_| {
                more(&mut new, 20, new_percent);
                more(&mut old, 40, old_percent);
                metrics(new, old).regression(&rules(), Timestamp::UNIX_EPOCH).is_some()
            })
        };
        (0..500).filter(|_| fails()).count().try_into().unwrap()
    }

    #[test]
    fn clients_that_break_off_do_a_good_version_no_harm_and_a_bad_one_no_good() {
        for percent in [0, 1, 3, 10, 30] {
            let failed = failed(percent, percent);
            assert!(failed <= 10, "{failed} of 500 where {percent} % end badly");
        }
        for (old, new) in [(0, 10), (0, 100), (3, 30), (10, 50)] {
            assert_eq!(failed(old, new), 500, "{new} % instead of {old}");
        }
    }

    #[test]
    fn a_version_to_which_hardly_any_connections_come_is_worse_once_enough_were_due() {
        for (due, new, wanted) in [
            (19, 0, None),
            (20, 0, Some(Regression::NoConnections)),
            (20, 1, Some(Regression::NoConnections)),
            (20, 2, None),
            (1000, 99, Some(Regression::NoConnections)),
            (1000, 100, None),
        ] {
            let metrics = RolloutMetrics { due, came: new, ..metrics(stats(new, 0), stats(1000, 0)) };
            assert_eq!(metrics.regression(&rules(), Timestamp::UNIX_EPOCH), wanted, "{new} of {due}");
        }
    }

    #[test]
    fn a_budget_of_everything_minds_nothing() {
        let rules = Update { budget: Share::ALL, ..rules() };
        let worst = RolloutMetrics {
            queues_since: Some(Timestamp::MIN),
            due: 1000,
            ..metrics(stats(10, 10), stats(1000, 0))
        };
        assert_eq!(worst.regression(&rules, Timestamp::UNIX_EPOCH), None);
    }

    #[test]
    fn a_queue_is_a_sign_once_it_has_lasted_for_half_of_the_time_to_watch() {
        let begin = Timestamp::UNIX_EPOCH;
        let longer = RolloutMetrics { queues_since: Some(begin), ..RolloutMetrics::default() };
        assert_eq!(longer.regression(&rules(), later(begin, Duration::from_millis(1999))), None);
        assert_eq!(
            longer.regression(&rules(), later(begin, Duration::from_secs(2))),
            Some(Regression::Queues)
        );
        let at_once = Update { monitor: Duration::ZERO, ..Update::default() };
        assert_eq!(longer.regression(&at_once, later(begin, Duration::from_millis(999))), None);
        assert_eq!(longer.regression(&at_once, later(begin, LASTS)), Some(Regression::Queues));
    }
}
