//! Who has which listener of a pod, and its place among those that the kernel chooses from.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use socket2::SockRef;

use super::{Pod, Resident, Socket, key, pod_key};
use crate::kernel::{
    KernelError,
    processes::{self, Found, Handle},
    raw::{Addr, BindKey, GROUPS, Listener, PortKey, ServedKey},
    sockets::{Bound, Row, Transport},
    steering::{
        config::{self, ForeignListener, SteeringConfig},
        hold,
        port::{Group, Part, Port},
        project::{InKernel, Life},
        turns::Turns,
    },
};
use crate::spec::ServiceName;

/// An undeclared port that nobody has listened on for so long makes room for others.
const EMPTY: Duration = Duration::from_secs(60);
/// While a listener is left alone for want of room: so soon.
const SCARCE: Duration = Duration::from_secs(5);
/// Whether there is room for one that was left alone is asked again after so long.
const AGAIN: Duration = Duration::from_secs(5);
/// What could not be looked at is tried again after that long at most.
const REFUSED: Duration = Duration::from_secs(30);

/// Handles that are kept of listeners of a pod.
const MOST_HANDLES: usize = 128;
/// What was found nowhere is looked for again after that long at most.
const NOWHERE: Duration = Duration::from_secs(1);

/// What came of a look at a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// It is known what it is, or it is gone.
    Known,
    /// It is no replica's.
    Unowned,
}

impl Pod {
    /// Lets go of listeners that have been closed.
    ///
    /// # Errors
    /// When the kernel does not do it.
    pub(super) fn forget_closed(&mut self, kernel: &mut InKernel, rows: &[Row]) -> Result<(), KernelError> {
        let there: BTreeSet<u64> = rows.iter().map(|row| row.cookie).collect();
        self.sought.retain(|cookie| there.contains(cookie));
        self.handles.retain(|cookie, _| there.contains(cookie));
        let closed: Vec<u64> =
            self.sockets.keys().filter(|cookie| !there.contains(cookie)).copied().collect();
        for cookie in closed {
            let entered = match self.sockets.remove(&cookie) {
                Some(Socket::Entered(entered)) => entered,
                Some(Socket::Unknown { listed: Some((key, slot)), .. }) => {
                    kernel.host.maps.unlist(key, slot);
                    continue;
                }
                _ => continue,
            };
            let part =
                self.ports.get_mut(&entered.port).and_then(|port| port.endpoints.get_mut(&entered.life));
            if let Some(listeners) = part.and_then(|part| part.listeners.get_mut(entered.group)) {
                listeners.retain(|(listener, _)| *listener != cookie);
            }
            if let Some((key, slot)) = entered.listed {
                kernel.host.maps.unlist(key, slot);
            }
            // Nothing points to it any more before its place can be another's.
            self.write_port(entered.port)?;
            self.kernel.forget(cookie, entered.index);
        }
        Ok(())
    }

    /// Finds out what a socket is, if that is not known.
    ///
    /// # Errors
    /// When it cannot be looked at, or the kernel does not take it.
    pub(super) fn meet(
        &mut self,
        kernel: &mut InKernel,
        config: &SteeringConfig,
        row: &Row,
    ) -> Result<Met, KernelError> {
        let Some(life) = self.owner(row) else { return Ok(Met::Unowned) };
        if let Some(Socket::Unknown { listed: Some((key, slot)), .. }) = self.sockets.get(&row.cookie) {
            kernel.host.maps.unlist(*key, *slot);
        }
        if !self.has_room(config, &life, &row.bound) {
            self.leave_alone(row, life);
            return Ok(Met::Known);
        }
        let tries = match self.sockets.get(&row.cookie) {
            Some(Socket::Refused { tries, .. }) => *tries,
            _ => 0,
        };
        // It is not asked again each time: a replica may have thousands of them.
        let refused = |longest: Duration| {
            let wait = Duration::from_millis(10).saturating_mul(1 << tries.min(12)).min(longest);
            Socket::Refused { tries: tries + 1, next: Instant::now() + wait }
        };
        match self.know(kernel, config, row, life.clone()) {
            Ok(Found::Here(known)) => {
                if let Socket::Alone { life, bound } = &known
                    && !self.is_declared(key(bound))
                {
                    *self.unshared.entry(life.clone()).or_default() += 1;
                }
                self.sockets.insert(row.cookie, known);
            }
            Ok(Found::NotYet) => {}
            // Closed again, or passed on to somebody else: the next look tells.
            Ok(Found::Nowhere) => {
                self.sockets.insert(row.cookie, refused(NOWHERE));
            }
            Err(KernelError::Full { .. }) => self.leave_alone(row, life),
            Err(error) => {
                self.sockets.insert(row.cookie, refused(REFUSED));
                return Err(error);
            }
        }
        Ok(Met::Known)
    }

    fn leave_alone(&mut self, row: &Row, life: Life) {
        self.crowded.insert(life.id.clone());
        self.sockets.insert(row.cookie, Socket::LeftAlone { life, next: Instant::now() + AGAIN });
    }

    /// Whether a socket is one of ours: connections wait behind it, or it answers nobody.
    pub(super) fn is_hold(&self, row: &Row) -> bool {
        if self.silence.as_ref().is_some_and(|silence| silence.cookie == row.cookie) {
            return true;
        }
        let port = self.ports.get(&key(&row.bound));
        let mut holds =
            port.into_iter().flat_map(|port| port.groups.iter().flatten()).flat_map(|group| &group.hold);
        holds.any(|hold| hold.cookie == row.cookie)
    }

    /// Takes note of sockets that are no replica's and on whose ports replicas listen. To be called once those are known.
    ///
    /// # Errors
    /// When the kernel does not take one.
    pub(super) fn note_foreign_listeners(
        &mut self,
        kernel: &mut InKernel,
        rows: &[&Row],
    ) -> Result<(), KernelError> {
        let port = |row: &Row| {
            let port = self.ports.get(&key(&row.bound));
            port.filter(|port| port.groups.iter().any(Option::is_some))
        };
        let is_new = |row: &&&Row| port(row).is_some() && !self.sockets.contains_key(&row.cookie);
        let new: Vec<_> = rows.iter().filter(is_new).collect();
        if new.is_empty() {
            return Ok(());
        }
        let holders = processes::holders(&new.iter().map(|row| row.inode).collect());
        let mut met = Vec::new();
        for row in new {
            let (pid, command) = match holders.get(&row.inode) {
                Some((pid, name)) => (Some(*pid), name.clone()),
                None => (None, String::new()),
            };
            let takes =
                port(row).is_some_and(|port| port.group(&row.bound).is_none()).then_some(row.bound.address);
            let foreign_listener = ForeignListener { port: row.bound.address.port(), takes, pid, command };
            let listed = self.list_strange(kernel, row, pid)?;
            met.push((row.cookie, Socket::Unknown { since: Instant::now(), foreign_listener, listed }));
        }
        self.sockets.extend(met);
        Ok(())
    }

    /// What a replica's socket is.
    fn know(
        &mut self,
        kernel: &mut InKernel,
        config: &SteeringConfig,
        row: &Row,
        life: Life,
    ) -> Result<Found<Socket>, KernelError> {
        let socket = match self.duplicate(&life, row)? {
            Found::Here(socket) => socket,
            Found::Nowhere => return Ok(Found::Nowhere),
            Found::NotYet => return Ok(Found::NotYet),
        };
        let looked = || KernelError::io("look at a listener of a replica");
        let shares = SockRef::from(&socket).reuse_port().map_err(looked())?;
        // It was shut down since. With a program it would be in a group of its own (`reuseport_attach_prog`), and for that
        // reason could not listen again beside its siblings (`inet_csk_bind_conflict`).
        if row.bound.transport == Transport::Tcp && !SockRef::from(&socket).is_listener().map_err(looked())? {
            return Ok(Found::Nowhere);
        }
        let (port, bound) = (key(&row.bound), row.bound);
        if shares && row.bound.transport == Transport::Tcp {
            // Our programs have done it, unless it was opened before them. Its connections have it from now on.
            SockRef::from(&socket)
                .set_reuse_address(true)
                .map_err(KernelError::io("let other users beside a listener"))?;
        }
        match (shares, row.bound.transport) {
            (true, _) => self.enter(kernel, config, row, life, &socket).map(Found::Here),
            (false, Transport::Tcp) => Ok(Found::Here(Socket::Alone { life, bound })),
            // Other ones may be a client's.
            (false, Transport::Udp) if self.is_declared(port) || super::is_exclusive(config, port) => {
                Ok(Found::Here(Socket::Alone { life, bound }))
            }
            (false, Transport::Udp) => Ok(Found::Here(Socket::Ignored)),
        }
    }

    /// Whose a socket is.
    pub(super) fn owner(&mut self, row: &Row) -> Option<Life> {
        let cgroup = row.cgroup?;
        let find = |residents: &BTreeMap<Life, Resident>| {
            residents
                .iter()
                .find(|(_, resident)| resident.ids.contains(&cgroup))
                .map(|(life, _)| life.clone())
        };
        find(&self.residents).or_else(|| {
            // A replica may have made groups of its own since. Once is enough for each socket: what belongs to others,
            // such as the engine's own in each pod, stays.
            if !self.sought.insert(row.cookie) {
                return None;
            }
            if std::mem::replace(&mut self.refreshed_groups, true) {
                return None;
            }
            for resident in self.residents.values_mut() {
                resident.ids = resident.cgroup.ids().into_iter().collect();
            }
            find(&self.residents)
        })
    }

    /// How many replicas of a service get connections.
    fn in_rotation(&self, service: &ServiceName) -> usize {
        let of_service = self.residents.values().filter(|resident| resident.service == *service);
        of_service.filter(|resident| resident.weight > 0).count()
    }

    /// Whether a socket is that of a replica which gets connections.
    pub(super) fn is_in_rotation(&self, row: &Row) -> bool {
        let of_group = |resident: &&Resident| row.cgroup.is_some_and(|group| resident.ids.contains(&group));
        self.residents.values().find(of_group).is_some_and(|resident| resident.weight > 0)
    }

    /// The port of that name, from now on one of those that are steered.
    pub(super) fn port(&mut self, name: config::Port) -> Result<&mut Port, KernelError> {
        match self.ports.entry(name) {
            std::collections::btree_map::Entry::Occupied(port) => Ok(port.into_mut()),
            std::collections::btree_map::Entry::Vacant(free) => {
                let key = pod_key(name);
                let (number, hold) = self.kernel.take_port(&key)?;
                Ok(free.insert(Port::new(number, hold, key, self.kernel.netns)))
            }
        }
    }

    fn enter(
        &mut self,
        kernel: &mut InKernel,
        config: &SteeringConfig,
        row: &Row,
        life: Life,
        socket: &OwnedFd,
    ) -> Result<Socket, KernelError> {
        let name = key(&row.bound);
        let Some(resident) = self.residents.get(&life) else { return Ok(Socket::Ignored) };
        let (service, member, cgroup) = (resident.service.clone(), resident.member, resident.cgroup.id);
        let is_ours = resident.is_ours;
        let resident_service = service.clone();
        let (previous_layout, inherited) =
            (self.previous_layout.clone(), self.kernel.left_behind(row.cookie));
        let previous_endpoint =
            previous_layout.as_ref().and_then(|previous_layout| previous_layout.endpoint(row.cookie));
        let port = self.port(name)?;
        port.service.get_or_insert(service);
        port.empty_since = None;
        let host_key = port.host_key;
        let group = match (port.group(&row.bound), &inherited) {
            (Some(group), _) => group,
            (None, Some(listener))
                if port.groups.get(listener.group() as usize).is_some_and(Option::is_none) =>
            {
                listener.group() as usize
            }
            (None, _) => port.free_group()?,
        };
        let is_first = port.groups.get(group).is_some_and(Option::is_none);
        let (port_number, part) = (port.number, port.endpoints.get(&life).map(|part| part.number));
        // What chooses in the group now goes on with the other listeners that it knows, until there is one that we know. If
        // there is no other, it would have nobody: then the kernel chooses in between.
        let is_late = previous_endpoint.is_some() && self.in_rotation(&resident_service) > 1;
        let is_tcp = row.bound.transport == Transport::Tcp;
        if is_first && is_tcp && !is_late {
            self.kernel.attach_to_group(socket.as_fd())?;
        }
        if is_first && let Some(place) = self.port(name)?.groups.get_mut(group) {
            *place = Some(Group { bound: row.bound, user: row.user, hold: None });
        }
        let turn = self.turns.get(&name).and_then(Turns::turn);
        if turn.is_none_or(|turn| !turn.is_given || turn.request.user == row.user) {
            kernel.host.maps.set_user(host_key, Some(row.user))?;
        }
        self.keep_handle(row.cookie, socket)?;
        let number = match (part, &inherited) {
            (Some(number), _) => number,
            (None, Some(listener)) => listener.endpoint,
            (None, None) => self.kernel.take_endpoint(row.bound.transport)?,
        };
        if let Some(previous_layout) = &previous_layout {
            // No socket can be where a previous layout had it and here as well.
            previous_layout.let_go(row.cookie, socket)?;
        }
        let listed = match &inherited {
            Some(listener) if !self.kernel.is_unknown() => {
                listener.slot().map(|slot| (bind_key(self.kernel.netns, cgroup, &row.bound), slot))
            }
            _ if is_ours => None,
            _ => self.list(kernel, row, cgroup, socket)?,
        };
        let served = ServedKey {
            netns: self.kernel.netns,
            addr: Addr::bound(row.bound.address.ip(), row.bound.only_v6),
            port: host_key.port,
            protocol: host_key.protocol,
            ..ServedKey::default()
        };
        kernel.host.maps.add_served(served, member.service)?;
        let index = match inherited {
            Some(listener) => {
                self.kernel.inherit(row.cookie);
                if self.kernel.is_unknown() {
                    kernel.host.maps.tag(socket, number)?;
                    let slot = listed.map(|(_, slot)| slot);
                    let listener = Listener::new(listener.index, number, port_number, group, slot);
                    self.kernel.enter(socket, row.cookie, listener)?;
                }
                listener.index
            }
            None => {
                let index = self.kernel.take_place()?;
                let listener = Listener::new(index, number, port_number, group, listed.map(|(_, slot)| slot));
                // Once it can be chosen, its connections are to be counted from the first one on.
                kernel
                    .host
                    .maps
                    .tag(socket, number)
                    .and_then(|()| self.kernel.enter(socket, row.cookie, listener))
                    .inspect_err(|_| self.kernel.give_back_place(index))?;
                index
            }
        };
        let part = self.port(name)?.endpoints.entry(life.clone()).or_insert_with(|| Part::new(number));
        part.previous_layout = part.previous_layout.or(previous_endpoint);
        if let Some(listeners) = part.listeners.get_mut(group) {
            listeners.push((row.cookie, index));
        }
        if previous_endpoint.is_some() {
            self.write_port_by(name, |port| super::rules(config, port))?;
        }
        if is_first && is_tcp && is_late {
            self.kernel.attach_to_group(socket.as_fd())?;
        }
        Ok(Socket::Entered(super::Entered { life, port: name, group, index, listed }))
    }

    /// Enters a socket for what its replica sends to itself, unless the programs in the kernel have done it: they cannot for
    /// UDP, nor for what was there before them.
    fn list(
        &self,
        kernel: &mut InKernel,
        row: &Row,
        cgroup: u64,
        socket: &OwnedFd,
    ) -> Result<Option<(BindKey, u8)>, KernelError> {
        let key = bind_key(self.kernel.netns, cgroup, &row.bound);
        if row.bound.transport == Transport::Tcp && kernel.host.maps.is_listed(&key) {
            return Ok(None);
        }
        Ok(kernel.host.maps.list(socket, key)?.map(|slot| (key, slot)))
    }

    /// Enters a UDP socket of nobody whom we know for what its own container sends to itself.
    fn list_strange(
        &self,
        kernel: &mut InKernel,
        row: &Row,
        pid: Option<u32>,
    ) -> Result<Option<(BindKey, u8)>, KernelError> {
        let (Some(pid), Some(cgroup), Transport::Udp) = (pid, row.cgroup, row.bound.transport) else {
            return Ok(None);
        };
        let Some(socket) = processes::duplicate(&[pid], row.inode)? else { return Ok(None) };
        let key = bind_key(self.kernel.netns, cgroup, &row.bound);
        Ok(kernel.host.maps.list(&socket, key)?.map(|slot| (key, slot)))
    }

    /// Lets go of parts of replicas that are no more, of groups that nobody is in, of ports that nobody has listened on for
    /// long, and of what a supervisor before us has left.
    ///
    /// # Errors
    /// When the kernel does not let something go.
    pub(super) fn let_go_of_the_dead(&mut self, kernel: &mut InKernel) -> Result<(), KernelError> {
        for port in self.ports.values_mut() {
            for endpoint in self.kernel.bury(port.number) {
                if endpoint != port.hold && !port.endpoints.values().any(|part| part.number == endpoint) {
                    self.kernel.retire(endpoint)?;
                }
            }
            let dead: Vec<_> = port
                .endpoints
                .iter()
                .filter(|(life, part)| !self.residents.contains_key(life) && !part.listens())
                .map(|(life, part)| (life.clone(), part.number))
                .collect();
            for (life, number) in dead {
                port.endpoints.remove(&life);
                self.kernel.retire(number)?;
            }
            for group in 0..GROUPS {
                let is_empty = !port.is_inhabited(group);
                if let Some(place) = port.groups.get_mut(group)
                    && is_empty
                    && place.as_ref().is_some_and(|group| group.hold.is_none())
                {
                    *place = None;
                }
            }
        }
        self.let_go_of_ports(kernel)
    }

    fn let_go_of_ports(&mut self, kernel: &mut InKernel) -> Result<(), KernelError> {
        let now = Instant::now();
        let is_scarce = self.sockets.values().any(|socket| matches!(socket, Socket::LeftAlone { .. }));
        let patience = if is_scarce { SCARCE } else { EMPTY };
        let mut gone = Vec::new();
        for (name, port) in &mut self.ports {
            if !port.is_empty() || self.declared.contains(name) {
                port.empty_since = None;
            } else if now.duration_since(*port.empty_since.get_or_insert(now)) >= patience {
                gone.push(*name);
            }
        }
        for name in gone {
            // A replica that closed its listener there may have connections to finish.
            let parts = self.ports.get(&name).into_iter().flat_map(|port| port.endpoints.values());
            let counts: Result<Vec<_>, _> = parts.map(|part| self.counts(part)).collect();
            if counts?.iter().any(|counts| counts.live > 0) {
                continue;
            }
            let Some(mut port) = self.ports.remove(&name) else { continue };
            for hold in port.groups.iter_mut().flatten().filter_map(|group| group.hold.take()) {
                self.kernel.forget(hold.cookie, hold.index);
            }
            kernel.host.maps.set_user(port.host_key, None)?;
            self.kernel.drop_port(&port.key, port.number, port.hold)?;
            for part in port.endpoints.into_values() {
                self.kernel.retire(part.number)?;
            }
        }
        Ok(())
    }

    /// By which a listener can be given to another user, without a search for it. Each takes a descriptor: where there are many
    /// listeners, or no more descriptors, the rest is searched for.
    fn keep_handle(&mut self, cookie: u64, socket: &OwnedFd) -> Result<(), KernelError> {
        if self.handles.len() < MOST_HANDLES
            && hold::has_file(socket)
            && let Some(handle) = Handle::of(socket)?
        {
            self.handles.insert(cookie, handle);
        }
        Ok(())
    }

    /// The key of a port for the host's programs.
    pub(super) fn host_key(&self, name: config::Port) -> PortKey {
        host_key(self.kernel.netns, name)
    }
}

/// The key of a port of a network for the host's programs.
pub(super) fn host_key(netns: u64, (transport, port): config::Port) -> PortKey {
    PortKey { netns, port, protocol: transport.number(), ..PortKey::default() }
}

/// The key of a socket of a control group, in the network of that cookie.
fn bind_key(netns: u64, cgroup: u64, bound: &Bound) -> BindKey {
    // The lower half tells networks apart: cookies count up from 1.
    let [a, b, c, d, ..] = netns.to_le_bytes();
    BindKey {
        cgroup,
        netns: u32::from_le_bytes([a, b, c, d]),
        addr: Addr::bound(bound.address.ip(), bound.only_v6),
        port: bound.address.port(),
        protocol: bound.transport.number(),
        ..BindKey::default()
    }
}
