//! In which order the users of a pod's replicas get a port. The kernel lets only sockets of one user share it, so all that are
//! there are given to the newcomer's user; newcomers of different users go one after the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{engine::ContainerId, spec::ServiceName};

/// A port is kept for a user so long, if others want it: a program that ends by `EADDRINUSE` is started again within that time.
const KEPT: Duration = Duration::from_secs(5);
/// The same for one who did not come the last time.
const KEPT_AGAIN: Duration = Duration::from_millis(500);
/// So many wait for one port. Each replica waits once.
const MOST_WAITING: usize = 64;
/// Who had a turn is remembered so long.
const REMEMBERED: Duration = Duration::from_secs(300);

/// Who wants a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asker {
    /// A replica, in any of its lives.
    Replica(ContainerId),
    /// A control group that we were not told of yet.
    Group(u64),
    /// Replicas of a service that are about to begin.
    Service(ServiceName),
}

/// A user who wants a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// In whose name.
    pub asker: Asker,
    /// Which user.
    pub user: u32,
}

/// The one who has the port now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Who asked for it.
    pub request: Request,
    /// Whether all sockets on the port are that user's. As long as they are not, it is tried again.
    pub is_given: bool,
    /// Until when the port is kept for him.
    pub until: Instant,
    /// Sockets on the port, by cookie, that are not what he has come with.
    pub there: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Past {
    at: Instant,
    in_vain: bool,
}

/// The turns of one port.
#[derive(Debug, Default)]
pub struct Turns {
    waiting: Vec<Request>,
    turn: Option<Turn>,
    past: BTreeMap<Asker, Past>,
}

impl Turns {
    /// Takes note of a request.
    pub fn ask(&mut self, request: Request) {
        let is_his = self.turn.as_ref().is_some_and(|turn| turn.request.user == request.user);
        let waits = self.waiting.iter().any(|other| other.asker == request.asker);
        if !is_his && !waits && self.waiting.len() < MOST_WAITING {
            self.waiting.push(request);
        }
    }

    /// Whose turn it is.
    pub fn turn(&self) -> Option<&Turn> {
        self.turn.as_ref()
    }

    /// Gives the turn to the next one if it is nobody's, to whom had none for the longest time first. Those who may not use
    /// anything now wait on. Returns whether it is somebody's now who had it not before.
    pub fn begin(&mut self, now: Instant, may: impl Fn(&Asker) -> bool) -> bool {
        if self.turn.as_ref().is_some_and(|turn| turn.until <= now) {
            self.end(now, !self.waiting.is_empty());
        }
        if self.turn.is_some() {
            return false;
        }
        self.past.retain(|_, past| now.saturating_duration_since(past.at) < REMEMBERED);
        let past = &self.past;
        // Of those who are equal the first one is the one who asked first.
        let next = (0..self.waiting.len())
            .filter(|at| self.waiting.get(*at).is_some_and(|request| may(&request.asker)))
            .min_by_key(|at| {
                self.waiting.get(*at).and_then(|request| past.get(&request.asker)).map(|past| past.at)
            });
        let Some(next) = next else { return false };
        let request = self.waiting.remove(next);
        let until = now + self.patience(&request.asker);
        self.turn = Some(Turn { request, is_given: false, until, there: BTreeSet::new() });
        true
    }

    /// The port is his from now on.
    pub fn given(&mut self, now: Instant, there: BTreeSet<u64>) {
        let Some(asker) = self.turn.as_ref().map(|turn| turn.request.asker.clone()) else { return };
        let until = now + self.patience(&asker);
        if let Some(turn) = &mut self.turn {
            (turn.is_given, turn.until, turn.there) = (true, until, there);
        }
    }

    /// Whose turn it is has come, or was there already.
    pub fn arrived(&mut self, now: Instant) {
        self.end(now, false);
    }

    fn end(&mut self, now: Instant, in_vain: bool) {
        if let Some(turn) = self.turn.take() {
            let user = turn.request.user;
            self.past.insert(turn.request.asker, Past { at: now, in_vain });
            // The port is theirs as well, unless it could not be given.
            self.waiting.retain(|other| !turn.is_given || other.user != user);
        }
    }

    fn patience(&self, asker: &Asker) -> Duration {
        if self.past.get(asker).is_some_and(|past| past.in_vain) { KEPT_AGAIN } else { KEPT }
    }

    /// When there is something to do for those who wait, if nothing happens before. `free` tells when one may use something.
    pub fn due(&self, free: impl Fn(&Asker) -> Instant) -> Option<Instant> {
        let free = self.waiting.iter().map(|request| free(&request.asker)).min()?;
        Some(self.turn.as_ref().map_or(free, |turn| turn.until))
    }

    /// Another user who wants the port, or has got it.
    pub fn other_than(&self, user: u32) -> Option<u32> {
        let turn = self.turn.as_ref().map(|turn| &turn.request);
        turn.into_iter().chain(&self.waiting).map(|request| request.user).find(|other| *other != user)
    }

    /// Whether nobody wants anything.
    pub fn is_idle(&self) -> bool {
        self.turn.is_none() && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(name: &str, user: u32) -> Request {
        Request { asker: Asker::Replica(ContainerId(name.to_owned())), user }
    }

    fn user(turns: &Turns) -> Option<u32> {
        turns.turn().map(|turn| turn.request.user)
    }

    #[test]
    fn newcomers_of_different_users_go_one_after_the_other() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        for request in [replica("a", 0), replica("b", 1000), replica("c", 1000), replica("d", 0)] {
            turns.ask(request);
        }
        assert!(turns.begin(now, |_| true));
        assert_eq!(user(&turns), Some(0));
        assert!(!turns.begin(now, |_| true), "it is kept for him");
        turns.given(now, BTreeSet::new());
        turns.arrived(now);
        assert!(turns.begin(now, |_| true));
        assert_eq!(user(&turns), Some(1000), "the other one of user 0 needs no turn any more");
        turns.given(now, BTreeSet::new());
        assert!(!turns.begin(now + KEPT / 2, |_| true));
        assert!(!turns.begin(now + KEPT, |_| true), "nobody is left");
        assert!(turns.is_idle());
    }

    #[test]
    fn who_asks_again_and_again_and_never_comes_keeps_nobody_out_for_long() {
        let (mut turns, mut now) = (Turns::default(), Instant::now());
        let begin = now;
        for user in 1..1000 {
            turns.ask(replica("hostile", user));
        }
        assert!(turns.begin(now, |_| true));
        turns.ask(replica("honest", 0));
        turns.ask(replica("hostile", 2));
        now += KEPT;
        assert!(turns.begin(now, |_| true));
        assert_eq!(user(&turns), Some(0), "who had no turn yet goes first");
        turns.given(now, BTreeSet::new());
        turns.arrived(now);
        turns.begin(now, |_| true);
        assert_eq!(user(&turns), Some(2));
        turns.ask(replica("honest", 0));
        assert!(turns.begin(now + KEPT_AGAIN, |_| true));
        assert_eq!(user(&turns), Some(0));
        assert!(now + KEPT_AGAIN - begin < KEPT * 2);
    }

    #[test]
    fn who_has_used_up_his_allowance_waits() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        turns.ask(replica("a", 1));
        turns.ask(replica("b", 2));
        let may = |asker: &Asker| *asker != replica("a", 1).asker;
        assert!(turns.begin(now, may));
        assert_eq!(user(&turns), Some(2));
        turns.arrived(now);
        assert!(!turns.begin(now, may));
        assert_eq!(turns.due(|_| now + KEPT), Some(now + KEPT));
    }

    #[test]
    fn a_turn_in_which_the_port_could_not_be_given_helps_nobody_else() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        turns.ask(replica("a", 1));
        turns.begin(now, |_| true);
        turns.ask(replica("b", 2));
        turns.ask(replica("c", 2));
        assert!(turns.begin(now + KEPT, |_| true));
        assert!(turns.begin(now + KEPT * 2, |_| true), "the other one of that user has his own turn");
        assert_eq!(user(&turns), Some(2));
    }
}
