//! Looks at a pod's sockets by turn: those of declared ports first, and of these the ones of replicas first whose sockets
//! have taken the least time so far. So no replica's keep the others' from being found.

use std::{
    collections::BTreeSet,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use super::{Pod, key, listeners::Met};
use crate::kernel::{
    KernelError,
    processes::{Found, Search},
    raw::BindKey,
    sockets::{Bound, Row},
    steering::{
        config::{self, ForeignListener, SteeringConfig},
        pace::cpu_time,
        project::{InKernel, Life},
    },
};

/// A socket is looked at no sooner.
pub(super) const YOUNG: Duration = Duration::from_millis(10);
/// Looks so soon again while there are sockets that were not looked at yet.
const SOON: Duration = Duration::from_millis(5);
/// One look at new sockets takes no longer; the next one goes on.
const BUDGET: Duration = Duration::from_millis(20);

/// What is known of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Socket {
    /// A replica's, among which we choose.
    Entered(Entered),
    /// A replica's, which has its port for itself alone: it is exclusive, or was opened before we came.
    Alone { life: Life, bound: Bound },
    /// A replica's, for which there is no room: the kernel chooses without us.
    LeftAlone { life: Life, next: Instant },
    /// Not one that serves anybody, such as a client's.
    Ignored,
    /// Nobody's that is known. It may be that of a replica which has just been started, so it is asked again.
    Unknown { since: Instant, foreign_listener: ForeignListener, listed: Option<(BindKey, u8)> },
    /// One that could not be looked at, or that the kernel did not take.
    Refused { tries: u32, next: Instant },
}

/// A listener among which we choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entered {
    pub life: Life,
    pub port: config::Port,
    pub group: usize,
    pub index: u32,
    /// Where we have entered it for what its replica sends to itself.
    pub listed: Option<(BindKey, u8)>,
}

/// When a look finds out something, of what nobody tells.
#[derive(Clone, Copy, Debug, Default)]
pub struct NextLook {
    /// If there is an allowance for it.
    pub ordinary: Option<Instant>,
    /// In any case: somebody's listener on a declared port has got old enough.
    pub urgent: Option<Instant>,
}

impl Pod {
    /// Looks at all sockets of which it is not known what they are, as far as there is time. Returns what went wrong.
    pub(super) fn meet_all(
        &mut self,
        kernel: &mut InKernel,
        config: &SteeringConfig,
        rows: &[Row],
    ) -> Option<KernelError> {
        // Whatever was there when we came is taken over at once.
        let is_first = !std::mem::replace(&mut self.has_looked, true);
        let now = Instant::now();
        let there: BTreeSet<u64> = rows.iter().map(|row| row.cookie).collect();
        self.first_seen.retain(|cookie, _| there.contains(cookie));
        for row in rows {
            if !self.first_seen.contains_key(&row.cookie) {
                self.first_seen.insert(row.cookie, self.told_at(row).unwrap_or(now));
            }
        }
        self.told.clear();
        self.next_look = NextLook::default();
        self.is_behind = false;
        self.refreshed_groups = false;
        self.count_unshared();
        let rows: Vec<&Row> = rows.iter().filter(|row| self.is_open(row, now)).collect();
        self.wanted = rows.iter().map(|row| row.inode).collect();
        let (mut unowned, mut error) = (Vec::new(), None);
        let rows = self.by_turn(rows, now);
        self.deadline = (!is_first).then(|| cpu_time() + BUDGET);
        for (row, owner) in rows {
            if !is_first && !self.is_grown(row, owner.as_ref(), now) {
                continue;
            }
            let Some(owner) = owner else {
                unowned.push(row);
                continue;
            };
            if !is_first && !self.has_turn(row, &owner, now) {
                continue;
            }
            let begun = cpu_time();
            // One that cannot be entered must not keep out the others.
            match self.meet(kernel, config, row) {
                Ok(Met::Known) => {}
                Ok(Met::Unowned) => unowned.push(row),
                Err(why) => error = Some(why),
            }
            if !is_first && let Some(resident) = self.residents.get_mut(&owner) {
                resident.allowance.charge(cpu_time().saturating_sub(begun), now);
            }
        }
        self.searches.retain(|_, search| search.end_look());
        let foreign_listeners = self.note_foreign_listeners(kernel, &unowned);
        foreign_listeners.err().or(error)
    }

    /// Whether it is to be found out what a socket is.
    fn is_open(&mut self, row: &Row, now: Instant) -> bool {
        let is_open = match self.sockets.get(&row.cookie) {
            None => true,
            // It may be that of a replica that was not known before.
            Some(Socket::Unknown { .. }) => true,
            Some(Socket::Refused { next, .. } | Socket::LeftAlone { next, .. }) if *next > now => {
                let next = *next;
                self.look_again(next);
                false
            }
            Some(Socket::Refused { .. } | Socket::LeftAlone { .. }) => true,
            Some(Socket::Entered(_) | Socket::Alone { .. } | Socket::Ignored) => false,
        };
        is_open && !self.is_hold(row)
    }

    /// Sockets and their owners, in the order in which they are looked at.
    fn by_turn<'a>(&mut self, rows: Vec<&'a Row>, now: Instant) -> Vec<(&'a Row, Option<Life>)> {
        let mut rows: Vec<_> = rows.into_iter().map(|row| (row, self.owner(row))).collect();
        let has_previous = self.previous_layout.is_some();
        rows.sort_by_cached_key(|(row, owner)| {
            // Whoever gets connections goes first, so that there is somebody to give them to all the time.
            let is_later = has_previous && !self.is_in_rotation(row);
            let resident = owner.as_ref().and_then(|life| self.residents.get(life));
            let used = resident.map(|resident| resident.allowance.used(now));
            (is_later, !self.is_declared(key(&row.bound)), used, self.tried_before(row))
        });
        rows
    }

    /// Since when a socket that was looked at before may be looked at again. Those that never were go first, and then whoever
    /// has waited longest: a replica may have more of them than its allowance lets us ask again in time.
    fn tried_before(&self, row: &Row) -> Option<Instant> {
        match self.sockets.get(&row.cookie) {
            Some(Socket::Refused { next, .. } | Socket::LeftAlone { next, .. }) => Some(*next),
            _ => None,
        }
    }

    /// Whether a socket is no longer new; else it is looked at later. A descriptor of ours keeps it open, and so its port
    /// taken, also when its program closes it at once to see whether the port is free.
    fn is_grown(&mut self, row: &Row, owner: Option<&Life>, now: Instant) -> bool {
        let grown = self.first_seen.get(&row.cookie).map_or(now, |since| *since + YOUNG);
        if grown > now {
            self.look_again_at(row, owner, grown, now);
        }
        grown <= now
    }

    /// Whether there is time for one more socket of a replica; else it is looked at later.
    fn has_turn(&mut self, row: &Row, owner: &Life, now: Instant) -> bool {
        let free = self.residents.get(owner).map_or(now, |resident| resident.allowance.free());
        let has_turn = free <= now && has_time(self.deadline);
        if !has_turn {
            self.is_behind = true;
            self.look_again_at(row, Some(owner), free.max(now + SOON), now);
        }
        has_turn
    }

    /// A descriptor of our own for a replica's socket.
    ///
    /// # Errors
    /// When we may not look into its processes.
    pub(super) fn duplicate(&mut self, life: &Life, row: &Row) -> Result<Found<OwnedFd>, KernelError> {
        let Some(resident) = self.residents.get(life) else { return Ok(Found::Nowhere) };
        let deadline = self.deadline;
        let anew = || Search::new(resident.cgroup.processes());
        let search = self.searches.entry(life.clone()).or_insert_with(anew);
        let mut found = search.duplicate(row.inode, &self.wanted, || has_time(deadline))?;
        if matches!(found, Found::Nowhere) && search.is_old() {
            *search = anew();
            found = search.duplicate(row.inode, &self.wanted, || has_time(deadline))?;
        }
        if matches!(found, Found::NotYet) {
            self.is_behind = true;
            let now = Instant::now();
            self.look_again_at(row, Some(life), now + SOON, now);
        }
        Ok(found)
    }

    /// Asks for a look at a socket at that time; in any case, if it is on a declared port and its owner may hurry.
    fn look_again_at(&mut self, row: &Row, owner: Option<&Life>, at: Instant, now: Instant) {
        self.look_again(at);
        if owner.is_some() && self.is_declared(key(&row.bound)) && self.may_hurry(owner, now) {
            self.next_look = self.next_look.or(NextLook { ordinary: None, urgent: Some(at) });
        }
    }

    /// Asks for a look at that time, or sooner.
    fn look_again(&mut self, at: Instant) {
        self.next_look = self.next_look.or(NextLook { ordinary: Some(at), urgent: None });
    }
}

fn has_time(deadline: Option<Duration>) -> bool {
    deadline.is_none_or(|deadline| cpu_time() < deadline)
}

impl NextLook {
    /// Whichever is earlier.
    pub fn or(self, other: Self) -> Self {
        let earlier = |one: Option<Instant>, other: Option<Instant>| one.into_iter().chain(other).min();
        Self { ordinary: earlier(self.ordinary, other.ordinary), urgent: earlier(self.urgent, other.urgent) }
    }
}
