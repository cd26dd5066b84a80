//! Who takes no connections while others do: a replica that hangs, as far as its queue tells.
//!
//! In: one report of the kernel after the other. Out: who is [`Stuck`], and since when. A queue that is not emptied says
//! little by itself: a server may be slow, or all of them have too much to do. So what counts is the comparison:
//! nothing was accepted here for a while, and elsewhere much was. To give the next connections to others is cheap, and
//! taken back as soon as one is accepted; whether to end the process takes more time, and its own doing counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    engine::ContainerId,
    kernel::{
        processes::Pulse,
        sockets::Transport,
        steering::{Port, Report, Traffic},
    },
    spec::PodName,
};

use super::history::later;

/// For so long nothing is accepted before anything follows from it.
pub const SILENCE: Duration = Duration::from_millis(600);
/// So many connections another replica must have accepted meanwhile: servers that are busy for seconds with each of
/// theirs are not that far apart.
const FASTER: u64 = 4;
/// What one that was stopped by a signal is given: it does nothing at all.
const STOPPED: Duration = Duration::from_secs(5);
/// What one is given that uses no processor time: it may wait for somebody else's answer.
const IDLE: Duration = Duration::from_secs(10);
/// What one is given that works on something.
const BUSY: Duration = Duration::from_secs(60);
/// Whoever uses a tenth of a processor works.
const WORKS: u32 = 10;

/// What a replica does that accepts nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// A signal has stopped it.
    Stopped,
    /// It uses no processor time.
    Nothing,
    /// It uses processor time.
    Work,
}

/// A replica that takes no connections while others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Since when it has accepted none.
    pub since: Timestamp,
    /// How many wait.
    pub waiting: u64,
    /// What it does meanwhile.
    pub doing: Doing,
}

impl Stuck {
    /// When it has had its time.
    #[must_use]
    pub fn hopeless_at(&self) -> Timestamp {
        let patience = match self.doing {
            Doing::Stopped => STOPPED,
            Doing::Nothing => IDLE,
            Doing::Work => BUSY,
        };
        later(self.since, patience)
    }
}

type Place = (PodName, Port, ContainerId);

/// The queues of all replicas, as they were seen last.
#[derive(Clone, Debug, Default)]
pub struct Queues {
    seen: BTreeMap<Place, Seen>,
}

/// One replica's queue on one port.
#[derive(Clone, Debug)]
struct Seen {
    pid: u32,
    accepted: u64,
    queue: u64,
    /// Nothing was accepted, and somebody waited, from then on.
    since: Timestamp,
    /// What the replica had done until then.
    before: Option<Pulse>,
    now: Option<Pulse>,
    /// What others had accepted until then.
    others: BTreeMap<ContainerId, u64>,
}

impl Queues {
    /// Takes in what the kernel shows.
    pub fn note(&mut self, report: &Report, now: Timestamp) {
        let mut seen = BTreeMap::new();
        for (pod, shown) in &report.pods {
            for (id, replica) in &shown.replicas {
                for (port, traffic) in replica.ports.iter().filter(|(port, traffic)| counts(port, traffic)) {
                    let place = (pod.clone(), *port, id.clone());
                    let others = || {
                        let others = shown.replicas.iter().filter(|(other, _)| *other != id);
                        others
                            .filter_map(|(other, r)| Some((other.clone(), r.ports.get(port)?.accepted)))
                            .collect()
                    };
                    let fresh = Seen {
                        pid: replica.pid,
                        accepted: traffic.accepted,
                        queue: traffic.queue,
                        since: now,
                        before: replica.pulse,
                        now: replica.pulse,
                        others: BTreeMap::new(),
                    };
                    let entry = match self.seen.remove(&place).filter(|seen| seen.waits_on(&fresh)) {
                        Some(seen) => {
                            Seen { since: seen.since, before: seen.before, others: seen.others, ..fresh }
                        }
                        None => Seen { others: others(), ..fresh },
                    };
                    seen.insert(place, entry);
                }
            }
        }
        self.seen = seen;
    }

    /// Lets nothing count that has been seen of those who are not ready yet: those who wait for them only ask whether they
    /// are. One that a signal has stopped will not be.
    pub fn excuse(&mut self, coming_up: &BTreeSet<ContainerId>, now: Timestamp) {
        self.seen.retain(|(_, _, id), seen| !coming_up.contains(id) || seen.doing(now) == Doing::Stopped);
    }

    /// Who is stuck, and when to ask again if nothing is taken in before.
    #[must_use]
    pub fn stuck(&self, now: Timestamp) -> (BTreeMap<ContainerId, Stuck>, Option<Timestamp>) {
        let (mut stuck, mut wake) = (BTreeMap::new(), None);
        for ((pod, port, id), seen) in self.seen.iter().filter(|(_, seen)| seen.is_wanted()) {
            let ripe = later(seen.since, SILENCE);
            if ripe > now {
                wake = Some(wake.map_or(ripe, |wake: Timestamp| wake.min(ripe)));
                continue;
            }
            let doing = seen.doing(now);
            let enough = if doing == Doing::Stopped { 1 } else { FASTER };
            let ahead = |(other, then): (&ContainerId, &u64)| {
                let place = (pod.clone(), *port, other.clone());
                self.seen.get(&place).map_or(0, |other| other.accepted.saturating_sub(*then))
            };
            if seen.others.iter().map(ahead).max().unwrap_or(0) >= enough {
                stuck.insert(id.clone(), Stuck { since: seen.since, waiting: seen.queue, doing });
            }
        }
        (stuck, wake)
    }
}

/// Datagrams are not accepted, and one who has a port alone has no others to be compared with.
fn counts(port: &Port, traffic: &Traffic) -> bool {
    port.0 == Transport::Tcp && traffic.listens && traffic.shared
}

impl Seen {
    /// Whether there is somebody to be served: connections that wait, or of one that a signal has stopped, those that it
    /// has in its hands.
    fn is_wanted(&self) -> bool {
        self.queue > 0 || self.now.is_some_and(|pulse| pulse.frozen)
    }

    /// Whether nobody was accepted since the last look. Connections may have moved here: then less than before counts as
    /// accepted, and that is no sign of life.
    fn waits_on(&self, next: &Self) -> bool {
        self.pid == next.pid && self.is_wanted() && next.is_wanted() && next.accepted <= self.accepted
    }

    fn doing(&self, now: Timestamp) -> Doing {
        let Some(pulse) = self.now else { return Doing::Work };
        if pulse.stopped {
            return Doing::Stopped;
        }
        let silent = Duration::try_from(now.duration_since(self.since)).unwrap_or_default();
        let used = pulse.cpu.saturating_sub(self.before.unwrap_or(pulse).cpu);
        if used >= silent / WORKS { Doing::Work } else { Doing::Nothing }
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;
    use crate::kernel::steering::{PodReport, ReplicaReport};

    const HTTP: Port = (Transport::Tcp, 80);

    /// What one replica shows: accepted so far, waiting, processor time in milliseconds.
    #[derive(Clone, Copy)]
    struct Shows(u64, u64, u64);

    fn report(replicas: &[Shows], stopped: bool) -> Report {
        let replicas = replicas.iter().zip(1..).map(|(Shows(accepted, queue, cpu), number)| {
            let traffic = Traffic {
                accepted: *accepted,
                total: accepted + queue,
                queue: *queue,
                listens: true,
                shared: true,
                ..Traffic::default()
            };
            let cpu = Duration::from_millis(*cpu);
            let is_stopped = stopped && number == 1;
            let pulse =
                (*queue > 0 || is_stopped).then_some(Pulse { stopped: is_stopped, frozen: is_stopped, cpu });
            let ports = BTreeMap::from([(HTTP, traffic)]);
            (id(number), ReplicaReport { pid: 42, address: None, weight: 100, ports, pulse })
        });
        let pod = PodReport { replicas: replicas.collect(), ..PodReport::default() };
        Report { pods: BTreeMap::from([("web".parse().unwrap(), pod)]) }
    }

    fn id(number: u32) -> ContainerId {
        ContainerId(format!("web-{number}"))
    }

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + milliseconds.milliseconds()
    }

    /// What is known of the first replica after looks at those times, in milliseconds.
    fn first(looks: &[(i64, &[Shows])], stopped: bool) -> Option<Stuck> {
        let mut queues = Queues::default();
        for (time, replicas) in looks {
            queues.note(&report(replicas, stopped), at(*time));
        }
        queues.stuck(at(looks.last().unwrap().0)).0.get(&id(1)).copied()
    }

    #[test]
    fn who_accepts_nothing_while_others_accept_much_is_stuck() {
        for (case, looks, wanted) in [
            (
                "it hangs",
                &[(0, &[Shows(10, 1, 0), Shows(10, 0, 0)][..]), (700, &[Shows(10, 3, 0), Shows(40, 0, 0)])][..],
                true,
            ),
            (
                "not long enough",
                &[(0, &[Shows(10, 1, 0), Shows(10, 0, 0)]), (500, &[Shows(10, 3, 0), Shows(40, 0, 0)])],
                false,
            ),
            (
                "nobody waits",
                &[(0, &[Shows(10, 0, 0), Shows(10, 0, 0)]), (700, &[Shows(10, 0, 0), Shows(40, 0, 0)])],
                false,
            ),
            (
                "somebody waits only just now",
                &[(0, &[Shows(10, 0, 0), Shows(10, 0, 0)]), (700, &[Shows(10, 1, 0), Shows(40, 0, 0)])],
                false,
            ),
            (
                "nobody comes",
                &[(0, &[Shows(10, 1, 0), Shows(10, 0, 0)]), (9000, &[Shows(10, 1, 0), Shows(10, 0, 0)])],
                false,
            ),
            ("it is alone", &[(0, &[Shows(10, 1, 0)]), (9000, &[Shows(10, 9, 0)])], false),
            (
                "all hang",
                &[(0, &[Shows(10, 1, 0), Shows(10, 1, 0)]), (9000, &[Shows(10, 9, 0), Shows(10, 9, 0)])],
                false,
            ),
            (
                "all are busy for seconds with each, and take one now and then",
                &[(0, &[Shows(10, 5, 0), Shows(10, 5, 0)]), (2900, &[Shows(10, 9, 0), Shows(12, 7, 0)])],
                false,
            ),
            (
                "it has accepted one meanwhile",
                &[
                    (0, &[Shows(10, 5, 0), Shows(10, 0, 0)]),
                    (500, &[Shows(11, 5, 0), Shows(40, 0, 0)]),
                    (1000, &[Shows(11, 6, 0), Shows(80, 0, 0)]),
                ],
                false,
            ),
            (
                "connections have moved to it, which is no sign of life",
                &[
                    (0, &[Shows(10, 1, 0), Shows(10, 0, 0)]),
                    (300, &[Shows(8, 3, 0), Shows(20, 0, 0)]),
                    (700, &[Shows(8, 3, 0), Shows(40, 0, 0)]),
                ],
                true,
            ),
            (
                "it is back",
                &[
                    (0, &[Shows(10, 1, 0), Shows(10, 0, 0)]),
                    (700, &[Shows(10, 3, 0), Shows(40, 0, 0)]),
                    (800, &[Shows(12, 1, 0), Shows(50, 0, 0)]),
                ],
                false,
            ),
        ] {
            assert_eq!(first(looks, false).is_some(), wanted, "{case}");
        }
    }

    #[test]
    fn a_single_other_connection_is_enough_when_a_signal_has_stopped_the_replica() {
        let looks: &[(i64, &[Shows])] =
            &[(0, &[Shows(10, 1, 0), Shows(10, 0, 0)]), (700, &[Shows(10, 1, 0), Shows(11, 0, 0)])];
        assert_eq!(first(looks, false), None);
        assert_eq!(first(looks, true).map(|stuck| stuck.doing), Some(Doing::Stopped));
    }

    #[test]
    fn one_that_is_stopped_as_a_whole_serves_nobody_also_where_nobody_waits() {
        let looks: &[(i64, &[Shows])] =
            &[(0, &[Shows(10, 0, 0), Shows(10, 0, 0)]), (700, &[Shows(10, 0, 0), Shows(11, 0, 0)])];
        assert_eq!(first(looks, false), None);
        assert_eq!(first(looks, true).map(|stuck| (stuck.doing, stuck.waiting)), Some((Doing::Stopped, 0)));
    }

    #[test]
    fn what_it_does_decides_how_long_it_has() {
        for (cpu, stopped, doing, seconds) in [
            (0, true, Doing::Stopped, 5),
            (0, false, Doing::Nothing, 10),
            (50, false, Doing::Nothing, 10),
            (700, false, Doing::Work, 60),
        ] {
            let looks: &[(i64, &[Shows])] =
                &[(0, &[Shows(10, 1, 0), Shows(10, 0, 0)]), (1000, &[Shows(10, 1, cpu), Shows(90, 0, 0)])];
            let stuck = first(looks, stopped).unwrap();
            assert_eq!((stuck.doing, stuck.waiting, stuck.since), (doing, 1, at(0)));
            assert_eq!(stuck.hopeless_at(), at(seconds * 1000), "{doing:?}");
        }
    }

    #[test]
    fn another_process_begins_anew_and_time_alone_can_tell() {
        let mut queues = Queues::default();
        queues.note(&report(&[Shows(10, 1, 0), Shows(10, 0, 0)], false), at(0));
        queues.note(&report(&[Shows(10, 1, 0), Shows(40, 0, 0)], false), at(400));
        assert_eq!(queues.stuck(at(500)), (BTreeMap::new(), Some(at(600))));
        assert_eq!(queues.stuck(at(600)).0.len(), 1);
        let mut another = report(&[Shows(10, 1, 0), Shows(80, 0, 0)], false);
        another.pods.values_mut().flat_map(|pod| pod.replicas.values_mut()).for_each(|r| r.pid = 43);
        queues.note(&another, at(700));
        assert!(queues.stuck(at(1200)).0.is_empty());
    }

    #[test]
    fn who_has_just_come_up_begins_anew_unless_a_signal_has_stopped_it() {
        for (is_stopped, wanted) in [(false, [0, 0, 1]), (true, [1, 1, 1])] {
            let mut queues = Queues::default();
            let mut stuck_at = |time, replicas: &[Shows], coming_up: &[u32]| {
                queues.note(&report(replicas, is_stopped), at(time));
                queues.excuse(&coming_up.iter().copied().map(id).collect(), at(time));
                queues.stuck(at(time)).0.len()
            };
            stuck_at(0, &[Shows(0, 1, 0), Shows(10, 0, 0)], &[1]);
            let seen = [
                stuck_at(9000, &[Shows(0, 9, 0), Shows(40, 0, 0)], &[1]),
                stuck_at(9500, &[Shows(0, 9, 0), Shows(50, 0, 0)], &[]),
                stuck_at(10_100, &[Shows(0, 9, 0), Shows(60, 0, 0)], &[]),
            ];
            assert_eq!(seen, wanted, "{is_stopped}");
        }
    }
}
