//! How often a pod is looked at: soon while something goes on, and never so often that it costs much.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::config::PodReport;
use crate::{kernel::sockets::Transport, tick};

/// Looks that often while somebody waits for a change that nobody tells.
const EAGER: Duration = Duration::from_millis(50);
/// Looks that often while connections wait to be accepted.
const QUEUED: Duration = Duration::from_millis(100);
/// Looks that often while connections come: so soon a queue is seen that nobody empties.
const FLOWING: Duration = Duration::from_millis(200);
/// So many ticks are left out while a pod rests: a look at many replicas takes longer than all that is done at a tick.
const LEFT_OUT: u32 = 3;

/// When the next look is, after what was seen before and now. What nobody told is found at the next tick, or after a few if nothing
/// goes on.
pub fn next_look(before: &PodReport, report: &PodReport, now: Instant) -> Instant {
    match interval(before, report) {
        Some(pause) => now + pause,
        None if rests(before, report) => tick::after(now + tick::TICK * LEFT_OUT),
        None => tick::after(now),
    }
}

/// Whether nothing has changed in a pod, nobody is connected to it, and nobody can be waiting: then a change is one that the kernel
/// tells.
fn rests(before: &PodReport, now: &PodReport) -> bool {
    let mut traffic = now.replicas.values().flat_map(|replica| replica.ports.values());
    let is_served = now.replicas.values().any(|replica| {
        replica.weight > 0 && replica.ports.values().any(|traffic| traffic.listens && traffic.shared)
    });
    before == now
        && is_served
        && now.waiting.is_empty()
        && traffic.all(|traffic| traffic.live == 0 && traffic.unfinished == 0 && traffic.udp_idle.is_none())
}

/// How long to wait before the next look; none while nothing goes on.
fn interval(before: &PodReport, now: &PodReport) -> Option<Duration> {
    let traffic =
        |pod: &PodReport| pod.replicas.values().flat_map(|replica| replica.ports.clone()).collect::<Vec<_>>();
    let total = |pod| traffic(pod).iter().map(|(_, traffic)| traffic.total).sum::<u64>();
    let waits = |pod| {
        traffic(pod).iter().any(|((transport, _), traffic)| *transport == Transport::Tcp && traffic.queue > 0)
    };
    if is_changing(now) {
        Some(EAGER)
    } else if waits(now) {
        Some(QUEUED)
    } else if total(before) != total(now) {
        Some(FLOWING)
    } else {
        None
    }
}

/// Whether something is going on in a pod that nobody tells us of.
fn is_changing(pod: &PodReport) -> bool {
    let waiting = pod.waiting.values().any(|waiting| waiting.connections > 0);
    let draining = pod.replicas.values().any(|replica| {
        replica.weight == 0 && replica.ports.values().any(|traffic| traffic.live > 0 || traffic.has_flows())
    });
    waiting || draining || pod.error.is_some()
}

/// Processor time that may be used: a share of each second, and some at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Of a second, in thousandths.
    share: u32,
    most: Duration,
    /// When it is, or was, full again.
    full: Instant,
}

impl Allowance {
    /// That many thousandths of each second, and so much at once.
    pub fn new(share: u32, most: Duration, now: Instant) -> Self {
        Self { share, most, full: now }
    }

    /// How long it takes to have so much again.
    fn refill(&self, used: Duration) -> Duration {
        used * 1000 / self.share.max(1)
    }

    /// Takes note of what was used. Of what was used beyond it only the last part counts: what could not wait is no debt.
    pub fn charge(&mut self, used: Duration, now: Instant) {
        let latest = self.full.max(now + self.refill(self.most + used));
        self.full = (self.full.max(now) + self.refill(used)).min(latest);
    }

    /// From when on something may be used.
    pub fn free(&self) -> Instant {
        self.full.checked_sub(self.refill(self.most)).unwrap_or(self.full)
    }

    /// How much of it was used of late, as the time that it takes to have it again.
    pub fn used(&self, now: Instant) -> Duration {
        self.full.saturating_duration_since(now)
    }

    /// Whether nothing may be used now.
    pub fn is_spent(&self, now: Instant) -> bool {
        self.free() > now
    }
}

/// The processor time that this thread has used.
pub fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{
        super::config::{ReplicaReport, Traffic, Waiting},
        *,
    };

    #[test]
    fn the_more_goes_on_the_sooner_is_the_next_look() {
        let shows = |weight, traffic| {
            let ports = BTreeMap::from([((Transport::Tcp, 80), traffic)]);
            let replica = ReplicaReport { weight, ports, ..ReplicaReport::default() };
            let id = crate::engine::ContainerId("web-1".to_owned());
            PodReport { replicas: BTreeMap::from([(id, replica)]), ..PodReport::default() }
        };
        let unchanged = shows(100, Traffic { total: 5, live: 1, ..Traffic::default() });
        let idle = |seconds| Traffic {
            total: 5,
            udp_idle: Some(Duration::from_secs(seconds)),
            ..Traffic::default()
        };
        for (case, now, wanted) in [
            ("nothing", unchanged.clone(), None),
            ("connections come", shows(100, Traffic { total: 6, ..Traffic::default() }), Some(FLOWING)),
            (
                "connections wait",
                shows(100, Traffic { total: 6, queue: 1, ..Traffic::default() }),
                Some(QUEUED),
            ),
            ("somebody drains", shows(0, Traffic { total: 5, live: 1, ..Traffic::default() }), Some(EAGER)),
            ("datagrams come", shows(0, idle(0)), Some(EAGER)),
            ("some may still come", shows(0, idle(4)), Some(EAGER)),
            ("none have come for long", shows(0, idle(5)), None),
        ] {
            assert_eq!(interval(&unchanged, &now), wanted, "{case}");
        }
    }

    #[test]
    fn a_pod_rests_if_it_is_served_and_nothing_has_changed_and_nobody_is_connected() {
        let shows = |weight, traffic| {
            let replica = ReplicaReport {
                weight,
                ports: BTreeMap::from([((Transport::Tcp, 80), traffic)]),
                ..ReplicaReport::default()
            };
            let id = crate::engine::ContainerId("web-1".to_owned());
            PodReport { replicas: BTreeMap::from([(id, replica)]), ..PodReport::default() }
        };
        let idle = Traffic { total: 5, listens: true, shared: true, ..Traffic::default() };
        let unchanged = shows(100, idle);
        assert!(rests(&unchanged, &unchanged), "nothing goes on");
        assert!(!rests(&shows(100, Traffic { total: 4, ..idle }), &unchanged), "it has only begun to rest");
        for (case, stays) in [
            ("somebody is connected", shows(100, Traffic { live: 1, ..idle })),
            ("somebody connects", shows(100, Traffic { unfinished: 1, ..idle })),
            ("nobody serves", shows(100, Traffic { listens: false, ..idle })),
            ("nobody is in rotation", shows(0, idle)),
        ] {
            assert!(!rests(&stays, &stays), "{case}");
        }
        let waits = PodReport { waiting: BTreeMap::from([(80, Waiting::default())]), ..unchanged };
        assert!(!rests(&waits, &waits), "somebody waits");
    }

    #[test]
    fn who_uses_much_at_once_has_to_wait_and_never_uses_more_than_its_share() {
        let ms = Duration::from_millis;
        let begin = Instant::now() + Duration::from_secs(60);
        let mut allowance = Allowance::new(50, ms(100), begin);
        let mut now = begin;
        // It may use 100 ms at once, and 5 % from then on.
        let mut used = Duration::ZERO;
        while now < begin + Duration::from_secs(10) {
            if !allowance.is_spent(now) {
                allowance.charge(ms(10), now);
                used += ms(10);
            }
            now += ms(1);
        }
        assert!((ms(580)..=ms(620)).contains(&used), "{used:?}");
        // What was done all the same is no debt.
        (0..100).for_each(|_| allowance.charge(ms(10), now));
        assert_eq!(allowance.free(), now + ms(200));
        allowance.charge(ms(1), now);
        assert_eq!(allowance.free(), now + ms(200), "nor does little that follows make up for it");
    }
}
