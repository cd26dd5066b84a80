//! Gives the sockets of a port to the user of a newcomer, whom the kernel lets share it then.

use std::{
    collections::BTreeSet,
    io,
    time::{Duration, Instant},
};

use super::{NextLook, Pod, Socket, key};
use crate::kernel::{
    KernelError,
    host::Host,
    processes::{Found, Search},
    raw::Notice,
    sockets::{Bound, Row, Transport},
    steering::{
        config::{self, OtherUser, SteeringConfig},
        hold,
        pace::cpu_time,
        project::Life,
        turns::{Asker, Request, Turns},
    },
};

/// Turns at so many ports that nobody is known to listen on.
const MOST_UNKNOWN: usize = 256;
/// While a port is given, sockets may be opened on it: it is looked so often.
const ROUNDS: usize = 3;
/// A port that could not be given is tried again after that.
const RETRY: Duration = Duration::from_millis(50);
/// One try looks for sockets no longer; the next one goes on.
const BUDGET: Duration = Duration::from_millis(20);
/// So long it is told who wanted a port of another user: a replica that ended for it is judged by it.
const TOLD: Duration = Duration::from_secs(60);

impl Pod {
    /// Takes note that a user wants a port that is not known to be his.
    pub(super) fn asks(&mut self, host: &Host, notice: &Notice, now: Instant) {
        let Some(name) = super::notices::port_of(notice) else { return };
        let asker =
            self.payer(notice.cgroup).map_or(Asker::Group(notice.cgroup), |life| Asker::Replica(life.id));
        let unknown = self.turns.keys().filter(|port| !self.ports.contains_key(port)).count();
        if !self.ports.contains_key(&name) && !self.turns.contains_key(&name) && unknown >= MOST_UNKNOWN {
            return;
        }
        let user = notice.user;
        let turns = self.turns.entry(name).or_default();
        let owner = host.maps.user(&super::listeners::host_key(self.kernel.netns, name));
        if let Some(owner) = owner.filter(|owner| *owner != user).or_else(|| turns.other_than(user)) {
            let other = OtherUser { port: name.1, user, owner };
            self.other_users.insert(name.1, (other, now));
            match &asker {
                Asker::Replica(id) => {
                    self.port_requests.insert(id.clone(), other);
                }
                Asker::Service(_) => {}
                Asker::Group(group) => {
                    self.early_requests.truncate(super::notices::MOST_EARLY - 1);
                    self.early_requests.insert(0, (*group, other));
                }
            }
        }
        turns.ask(Request { asker, user });
    }

    /// Has the ports of services given to the users as whom their replicas are about to begin.
    pub(super) fn expect(&mut self, host: &Host, config: &SteeringConfig) {
        for (name, port) in &self.ports {
            let coming =
                port.service.as_ref().and_then(|service| Some((service, *config.coming.get(service)?)));
            let Some((service, user)) = coming else { continue };
            if host.maps.user(&port.host_key).is_some_and(|owner| owner != user) {
                let request = Request { asker: Asker::Service(service.clone()), user };
                self.turns.entry(*name).or_default().ask(request);
                self.turns_due.ordinary = Some(Instant::now());
            }
        }
    }

    /// Gives ports to those whose turn it is. Returns when to look again.
    pub(super) fn take_turns(&mut self, host: &mut Host) -> NextLook {
        let now = Instant::now();
        self.other_users.retain(|_, (_, at)| now.saturating_duration_since(*at) < TOLD);
        let (mut next, mut seen) = (NextLook::default(), None);
        for (name, mut turns) in std::mem::take(&mut self.turns) {
            self.note_refused(host, name, &turns, now);
            turns.begin(now, |asker| self.free(asker) <= now);
            if let Some(request) = turns.turn().filter(|turn| !turn.is_given).map(|turn| turn.request.clone())
            {
                let (begun, searched) = (cpu_time(), self.searched);
                match self.give(host, name, request.user, &mut seen) {
                    Ok(Some(there)) => {
                        self.refused_users.remove(&name.1);
                        turns.given(now, there);
                        // He may be there already.
                        next.ordinary = Some(now);
                    }
                    Ok(None) => next = next.or(NextLook { ordinary: Some(now + RETRY), urgent: None }),
                    Err(error) => {
                        tracing::warn!(%error, port = name.1, user = request.user, "a port stays with its user");
                        next = next.or(NextLook { ordinary: Some(now + RETRY), urgent: None });
                    }
                }
                // Whoever has many descriptors pays for the search himself.
                let searched = self.searched.saturating_sub(searched);
                self.charge_asker(&request.asker, cpu_time().saturating_sub(begun + searched), now);
            }
            next = next.or(NextLook { ordinary: None, urgent: turns.due(|asker| self.free(asker)) });
            if !turns.is_idle() {
                self.turns.insert(name, turns);
            }
        }
        if self.turns.is_empty() {
            self.givers.clear();
        }
        self.turns_due = next;
        next
    }

    /// Ends the turns of those whose sockets are there.
    pub(super) fn see_arrivals(&mut self, rows: &[Row]) {
        let now = Instant::now();
        for (name, turns) in &mut self.turns {
            let has_come = turns.turn().is_some_and(|turn| {
                let is_new = |row: &Row| row.user == turn.request.user && !turn.there.contains(&row.cookie);
                turn.is_given && rows.iter().any(|row| key(&row.bound) == *name && is_new(row))
            });
            if has_come {
                turns.arrived(now);
                self.turns_due = self.turns_due.or(NextLook { ordinary: Some(now), urgent: None });
            }
        }
    }

    /// A port that could not be given to somebody as long as it was his turn.
    fn note_refused(&mut self, host: &Host, name: config::Port, turns: &Turns, now: Instant) {
        let Some(turn) = turns.turn().filter(|turn| !turn.is_given && turn.until <= now) else { return };
        let (port, user) = (name.1, turn.request.user);
        let others = self.other_users.get(&port).map(|(other, _)| other.owner);
        let owner = others.or_else(|| host.maps.user(&super::listeners::host_key(self.kernel.netns, name)));
        let owner = owner.unwrap_or_default();
        tracing::warn!(port, user, owner, "a port could not be given to another user");
        self.refused_users.insert(port, OtherUser { port, user, owner });
    }

    fn free(&self, asker: &Asker) -> Instant {
        match asker {
            Asker::Replica(id) => {
                let mut residents = self.residents.iter();
                let resident = residents.find(|(life, _)| life.id == *id);
                resident.map_or_else(Instant::now, |(_, resident)| resident.allowance.free())
            }
            Asker::Group(_) | Asker::Service(_) => self.unknown_allowance.free(),
        }
    }

    fn charge_asker(&mut self, asker: &Asker, took: Duration, now: Instant) {
        match asker {
            Asker::Replica(id) => {
                if let Some((_, resident)) = self.residents.iter_mut().find(|(life, _)| life.id == *id) {
                    resident.allowance.charge(took, now);
                }
            }
            Asker::Group(_) | Asker::Service(_) => self.unknown_allowance.charge(took, now),
        }
    }

    /// Makes all sockets of a port that user's. Returns those that are there; none if some are not his (yet).
    fn give(
        &mut self,
        host: &mut Host,
        name: config::Port,
        user: u32,
        seen: &mut Option<Vec<Row>>,
    ) -> Result<Option<BTreeSet<u64>>, KernelError> {
        if self
            .sockets
            .values()
            .any(|socket| matches!(socket, Socket::Alone { bound, .. } if key(bound) == name))
        {
            // Whoever has it for himself alone shares it with nobody.
            return Ok(Some(BTreeSet::new()));
        }
        let host_key = self.host_key(name);
        let owner = host.maps.user(&host_key);
        if owner.is_some() {
            // From now on it is told who of the others comes.
            host.maps.set_user(host_key, Some(user))?;
        }
        let deadline = cpu_time() + BUDGET;
        let (mut there, mut bounds) = (BTreeSet::new(), BTreeSet::new());
        let (mut is_given, mut was_his) = (false, owner.is_none_or(|owner| owner == user));
        for round in 0..ROUNDS {
            let rows = match seen.take() {
                Some(rows) if round == 0 => rows,
                _ => self.diagnosis.rows()?,
            };
            let others = self.others(&rows, name, user)?;
            let on_port = rows.iter().filter(|row| key(&row.bound) == name);
            if round == 0 {
                let is_met = |cookie| matches!(self.sockets.get(&cookie), Some(Socket::Entered(_)));
                let old = on_port.clone().filter(|row| row.user != user || is_met(row.cookie));
                there = old.map(|row| row.cookie).collect();
            }
            bounds.extend(on_port.map(|row| row.bound));
            *seen = Some(rows);
            if others.is_empty() {
                is_given = true;
                break;
            }
            (*seen, was_his) = (None, false);
            if !self.give_sockets(&others, user, deadline)? {
                break;
            }
        }
        // Our own go last: as long as one of them is in the group, whoever else comes joins it.
        self.give_holds(name, user)?;
        if is_given && !was_his && name.0 == Transport::Tcp {
            is_given =
                self.open_to(&bounds, user)? || self.give_connections(name.1, user, deadline, &bounds)?;
        }
        Ok(is_given.then_some(there))
    }

    /// Sockets of other users on a port, but for ours.
    fn others(&mut self, rows: &[Row], name: config::Port, user: u32) -> Result<Vec<Row>, KernelError> {
        let connected = if name.0 == Transport::Udp { self.diagnosis.connected_udp()? } else { Vec::new() };
        let is_other = |row: &&Row| key(&row.bound) == name && row.user != user && !self.is_hold(row);
        Ok(rows.iter().chain(&connected).filter(is_other).cloned().collect())
    }

    /// Gives connections that came to listeners without `SO_REUSEADDR`, as there are from before our programs set it. The
    /// kernel compares their users, too.
    fn give_connections(
        &mut self,
        port: u16,
        user: u32,
        deadline: Duration,
        bounds: &BTreeSet<Bound>,
    ) -> Result<bool, KernelError> {
        let mut others = self.diagnosis.connections(port)?;
        // Nobody has accepted the rest, or its program has closed it.
        others.retain(|row| row.user != user && row.inode != 0);
        // Others may belong to foreign processes: what counts is whether the port can be bound.
        self.give_sockets(&others, user, deadline)?;
        self.open_to(bounds, user)
    }

    /// Gives sockets away; whether all of them.
    fn give_sockets(&mut self, rows: &[Row], user: u32, deadline: Duration) -> Result<bool, KernelError> {
        let wanted = rows.iter().map(|row| row.inode).collect();
        let mut are_all = true;
        for row in rows {
            are_all &= self.give_socket(row, user, &wanted, deadline)?;
        }
        self.givers.retain(|_, search| search.is_interrupted());
        Ok(are_all)
    }

    fn give_socket(
        &mut self,
        row: &Row,
        user: u32,
        wanted: &BTreeSet<u64>,
        deadline: Duration,
    ) -> Result<bool, KernelError> {
        if let Some(handle) = self.handles.get(&row.cookie) {
            return handle.belong_to(user).map(|()| true);
        }
        let Some(life) = self.owner(row) else { return Ok(false) };
        let begun = cpu_time();
        let found = self.search(&life, row.inode, wanted, deadline);
        let took = cpu_time().saturating_sub(begun);
        self.searched += took;
        if let Some(resident) = self.residents.get_mut(&life) {
            resident.allowance.charge(took, Instant::now());
        }
        match found? {
            Found::Here(handle) => handle.belong_to(user).map(|()| true),
            // Closed, or with a process that has just been started.
            Found::Nowhere | Found::NotYet => Ok(false),
        }
    }

    fn search(
        &mut self,
        life: &Life,
        inode: u64,
        wanted: &BTreeSet<u64>,
        deadline: Duration,
    ) -> Result<Found<crate::kernel::processes::Handle>, KernelError> {
        let Some(resident) = self.residents.get(life) else { return Ok(Found::Nowhere) };
        let search = self.givers.entry(life.clone());
        let search = search.or_insert_with(|| Search::new(resident.cgroup.processes()));
        search.handle(inode, wanted, || cpu_time() < deadline)
    }

    fn give_holds(&mut self, name: config::Port, user: u32) -> Result<(), KernelError> {
        let Some(port) = self.ports.get_mut(&name) else { return Ok(()) };
        for group in port.groups.iter_mut().flatten() {
            if let Some(hold) = &group.hold {
                hold.belong_to(user)?;
            }
            group.user = user;
        }
        Ok(())
    }

    /// Whether that user could bind to the same addresses. It also makes the kernel forget whom it let in last, which it would
    /// again without a look at the others: his listener would be in a group of its own (`sk_reuseport_match`).
    fn open_to(&self, bounds: &BTreeSet<Bound>, user: u32) -> Result<bool, KernelError> {
        self.netns.within(|| {
            for bound in bounds {
                match hold::bind(bound, user) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(false),
                    // Its address is the network's no more.
                    Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
                    Err(error) => {
                        let what = format!("see whether port {} is free", bound.address.port());
                        return Err(KernelError::io(what)(error));
                    }
                }
            }
            Ok(true)
        })
    }
}
