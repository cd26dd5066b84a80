//! A port of a pod: its groups of listeners, the replicas' parts in it, and the table by which the kernel chooses.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use super::{
    config::Rules,
    hold::{self, Hold},
    pod::PodKernel,
    project::Life,
    silence::Silence,
};
use crate::{
    kernel::{
        KernelError, Netns,
        host::Host,
        raw::{
            Endpoint, GROUPS, GroupOfEndpoint, LISTENERS_OF_ENDPOINT, Listener, PodPortKey, PortEntry,
            PortKey, ReplicaAddrKey, Table,
        },
        sockets::Bound,
        wrr::wrr_table,
    },
    spec::ServiceName,
};

/// A port of a pod.
pub struct Port {
    /// Its number among the pod's.
    pub number: u32,
    /// The endpoint of connections that wait.
    pub hold: u32,
    /// By which the pod's programs know it.
    pub key: PodPortKey,
    /// By which the host's programs know it.
    pub host_key: PortKey,
    /// Whose rules are its own: the service that was the first to listen on it.
    pub service: Option<ServiceName>,
    /// Its groups, by the number that the programs know them by.
    pub groups: [Option<Group>; GROUPS],
    /// Parts of replicas in it.
    pub endpoints: BTreeMap<Life, Part>,
    /// `CLOSED_V4`, `CLOSED_V6`, `DECLARED` and `SILENT`.
    pub flags: u32,
    /// Since when nobody listens on it, where somebody is to.
    pub unheard_since: Option<Instant>,
    /// Since when nobody listens on it.
    pub empty_since: Option<Instant>,
    /// The rules that it was written by last.
    rules: Rules,
    /// The weights that it was written by last, and the places that they give.
    weights: Vec<(u16, u32)>,
    places: Vec<u32>,
    /// What the kernel goes by; none before it was written for the first time.
    table: Option<Box<Table>>,
    entry: Option<PortEntry>,
    /// Whether a table was written since [`Port::take_written`].
    written: bool,
    /// The endpoint of those who wait, as the kernel has it.
    hold_endpoint: Endpoint,
}

/// A group: all sockets that listen on one address.
pub struct Group {
    /// Which address.
    pub bound: Bound,
    /// Who opened it.
    pub user: u32,
    /// Our own listener, for connections that wait.
    pub hold: Option<Hold>,
}

/// A replica's part in a port.
pub struct Part {
    /// Its number among the pod's endpoints.
    pub number: u32,
    /// Its listeners, by group: socket cookies and places in the map of sockets.
    pub listeners: [Vec<(u64, u32)>; GROUPS],
    /// Connections that a release of another layout has counted: see [`crate::kernel::previous_layout`].
    pub previous_layout: Option<u32>,
    /// What the kernel has of it; none before it was written.
    written: Option<Box<Endpoint>>,
    /// The address under which it is entered, to be reached alone.
    own: Option<Ipv4Addr>,
}

impl Part {
    /// A part without listeners.
    pub fn new(number: u32) -> Self {
        Self { number, listeners: Default::default(), previous_layout: None, written: None, own: None }
    }

    /// Whether it listens.
    pub fn listens(&self) -> bool {
        self.listeners.iter().any(|group| !group.is_empty())
    }

    fn endpoint(&self) -> Endpoint {
        let mut endpoint = Endpoint::EMPTY;
        let mut next = 0;
        for (at, (group, listeners)) in endpoint.groups.iter_mut().zip(&self.listeners).enumerate() {
            let room = LISTENERS_OF_ENDPOINT.saturating_sub(next);
            let listeners = listeners.get(..listeners.len().min(room)).unwrap_or_default();
            if listeners.is_empty() {
                continue;
            }
            endpoint.present |= 1 << at;
            *group = GroupOfEndpoint { first: small(next), count: small(listeners.len()) };
            for (place, (_, index)) in endpoint.listeners.iter_mut().skip(next).zip(listeners) {
                *place = u16::try_from(*index).unwrap_or(0);
            }
            next += listeners.len();
        }
        endpoint
    }
}

fn small(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

impl Port {
    /// A port that nobody listens on.
    pub fn new(number: u32, hold: u32, key: PodPortKey, netns: u64) -> Self {
        Self {
            number,
            hold,
            key,
            host_key: PortKey { netns, port: key.port, protocol: key.protocol, ..PortKey::default() },
            service: None,
            groups: Default::default(),
            endpoints: BTreeMap::new(),
            flags: 0,
            unheard_since: None,
            empty_since: None,
            rules: Rules::default(),
            weights: Vec::new(),
            places: Vec::new(),
            table: None,
            entry: None,
            written: false,
            hold_endpoint: Endpoint::EMPTY,
        }
    }

    /// The group that listens there, if it is known.
    pub fn group(&self, bound: &Bound) -> Option<usize> {
        self.groups.iter().position(|group| group.as_ref().is_some_and(|group| group.bound == *bound))
    }

    /// A number for one more group.
    ///
    /// # Errors
    /// When it is listened on at too many addresses.
    pub fn free_group(&self) -> Result<usize, KernelError> {
        let full = KernelError::Full { what: "addresses that a port is listened on", most: GROUPS };
        self.groups.iter().position(Option::is_none).ok_or(full)
    }

    /// Whether any replica listens in a group.
    pub fn is_inhabited(&self, group: usize) -> bool {
        self.endpoints.values().any(|part| part.listeners.get(group).is_some_and(|list| !list.is_empty()))
    }

    /// Where a replica listens on it.
    pub fn bounds_of<'a>(&'a self, part: &'a Part) -> impl Iterator<Item = &'a Bound> {
        let groups = self.groups.iter().zip(&part.listeners);
        groups
            .filter(|(_, listeners)| !listeners.is_empty())
            .filter_map(|(group, _)| Some(&group.as_ref()?.bound))
    }

    /// The place of the socket that is given to whoever comes now, if nobody listens, for no longer than `hold` so far.
    pub fn silent(&mut self, is_listened_on: bool, hold: Duration, silence: Option<&Silence>) -> Option<u32> {
        if is_listened_on || hold.is_zero() {
            self.unheard_since = None;
            return None;
        }
        let since = *self.unheard_since.get_or_insert_with(Instant::now);
        silence.filter(|_| since.elapsed() < hold).map(|silence| silence.index)
    }

    /// Whether nobody listens on it.
    pub fn is_empty(&self) -> bool {
        !self.endpoints.values().any(Part::listens)
    }

    /// The rules that it was written by last.
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// Tells the kernel where replicas listen, and which of them get how much.
    ///
    /// # Errors
    /// When it does not take it.
    pub fn write(
        &mut self,
        kernel: &mut PodKernel,
        rules: &Rules,
        wanted: impl Fn(&Life) -> Option<(Ipv4Addr, u32)>,
    ) -> Result<(), KernelError> {
        self.rules = *rules;
        let mut weights = Vec::new();
        let mut moves = Vec::new();
        for (life, part) in &mut self.endpoints {
            let wanted = wanted(life);
            let endpoint = part.endpoint();
            if part.written.as_deref() != Some(&endpoint) {
                kernel.write_endpoint(part.number, &endpoint)?;
                part.written = Some(Box::new(endpoint));
            }
            let own = wanted.map(|(address, _)| address).filter(|_| part.listens());
            if part.own != own {
                moves.push((part.number, part.own, own));
                part.own = own;
            }
            if part.listens() {
                let (address, weight) = wanted.unwrap_or((Ipv4Addr::UNSPECIFIED, 0));
                weights.push((address, u16::try_from(part.number).unwrap_or(0), weight));
            }
        }
        // One may move to where another one was: all go first.
        let key = |address: Ipv4Addr| ReplicaAddrKey { port: self.number, addr: address.to_bits() };
        for (_, old, _) in &moves {
            if let Some(old) = old {
                kernel.write_replica_addr(key(*old), None)?;
            }
        }
        for (number, _, new) in moves {
            if let Some(new) = new {
                kernel.write_replica_addr(key(new), Some(number))?;
            }
        }
        weights.sort_unstable();
        let weights: Vec<_> = weights.into_iter().map(|(_, number, weight)| (number, weight)).collect();
        if self.weights != weights {
            let with_weight = |number: &u16| {
                let weight =
                    weights.iter().find(|(other, _)| other == number).map_or(0, |(_, weight)| *weight);
                u32::from(*number) | weight.min(0xffff) << 16
            };
            self.places = wrr_table(&weights).iter().map(with_weight).collect();
            self.weights = weights;
        }
        self.write_table(kernel, rules)?;
        self.write_entry(kernel)
    }

    fn write_table(&mut self, kernel: &mut PodKernel, rules: &Rules) -> Result<(), KernelError> {
        let endpoint = self.write_holds(kernel)?;
        let mut table = Table {
            policy: rules.balance.number(),
            size: u32::try_from(self.places.len()).unwrap_or(0),
            hold: if endpoint == Endpoint::EMPTY { 0 } else { hold::MOST },
            ..Table::EMPTY
        };
        table.places.iter_mut().zip(&self.places).for_each(|(place, endpoint)| *place = *endpoint);
        if self.table.as_deref() != Some(&table) {
            kernel.write_table(self.number, &table)?;
            self.table = Some(Box::new(table));
            self.written = true;
        }
        Ok(())
    }

    /// Tells the kernel at which addresses it is listened on, and which of them are closed.
    ///
    /// # Errors
    /// When it does not take it.
    pub fn write_entry(&mut self, kernel: &mut PodKernel) -> Result<(), KernelError> {
        let mut entry =
            PortEntry { number: self.number, flags: self.flags, hold: self.hold, ..PortEntry::default() };
        for (at, group) in self.groups.iter().enumerate() {
            let Some(Group { bound, .. }) = group else { continue };
            let (bit, address) = (1 << at, bound.address.ip().to_canonical());
            if address.is_unspecified() {
                entry.any_v4 |= if bound.takes_v4() { bit } else { 0 };
                entry.any_v6 |= if bound.takes_v6() { bit } else { 0 };
            } else {
                *(if address.is_ipv4() { &mut entry.exact_v4 } else { &mut entry.exact_v6 }) |= bit;
                if let Some(place) = entry.addrs.get_mut(at) {
                    *place = address.into();
                }
            }
        }
        if self.entry != Some(entry) {
            kernel.write_port(&self.key, &entry)?;
            self.entry = Some(entry);
        }
        Ok(())
    }

    /// Whether the kernel goes by another table than when this was asked last.
    pub fn take_written(&mut self) -> bool {
        std::mem::take(&mut self.written)
    }

    /// Writes where connections wait.
    fn write_holds(&mut self, kernel: &mut PodKernel) -> Result<Endpoint, KernelError> {
        let mut holds = Part::new(self.hold);
        for (place, group) in holds.listeners.iter_mut().zip(&self.groups) {
            if let Some(hold) = group.as_ref().and_then(|group| group.hold.as_ref()) {
                place.push((hold.cookie, hold.index));
            }
        }
        let endpoint = holds.endpoint();
        if self.hold_endpoint != endpoint {
            kernel.write_endpoint(self.hold, &endpoint)?;
            self.hold_endpoint = endpoint;
        }
        Ok(endpoint)
    }

    /// Whether a new connection would find a replica.
    pub fn is_served(&self) -> bool {
        self.table.as_ref().is_some_and(|table| table.size > 0)
    }

    /// How many connections can wait.
    pub fn can_wait(&self) -> u32 {
        self.table.as_ref().map_or(0, |table| table.hold)
    }

    /// Sees to it that connections can wait in every group, or in none if they shall not. Returns whether they can; if not,
    /// we may open too few files.
    ///
    /// # Errors
    /// When a listener of ours cannot be opened.
    pub fn hold(
        &mut self,
        kernel: &mut PodKernel,
        host: &mut Host,
        netns: &Netns,
        limit: Duration,
    ) -> Result<bool, KernelError> {
        let mut can_wait = true;
        for at in 0..GROUPS {
            let inhabited = self.is_inhabited(at);
            let Some(group) = self.group_mut(at) else { continue };
            let is_in_the_way = group.hold.as_ref().is_some_and(Hold::is_in_the_way);
            if limit.is_zero() || is_in_the_way {
                if let Some(hold) = group.hold.take() {
                    kernel.forget(hold.cookie, hold.index);
                }
                can_wait &= !is_in_the_way;
            } else if group.hold.is_none() && inhabited && group.bound.can_hold() {
                let (bound, user) = (group.bound, group.user);
                if !hold::has_file(netns.file()) {
                    can_wait = false;
                    continue;
                }
                let hold = self.open_hold(kernel, host, netns, at, &bound, user)?;
                self.set_hold(at, hold);
                host.maps.set_user(self.host_key, Some(user))?;
            }
        }
        Ok(can_wait)
    }

    fn group_mut(&mut self, at: usize) -> Option<&mut Group> {
        self.groups.get_mut(at).and_then(Option::as_mut)
    }

    fn set_hold(&mut self, at: usize, hold: Hold) -> Option<Hold> {
        self.group_mut(at).and_then(|group| group.hold.replace(hold))
    }

    /// Opens a listener for those who wait, in a group.
    fn open_hold(
        &self,
        kernel: &mut PodKernel,
        host: &mut Host,
        netns: &Netns,
        at: usize,
        bound: &Bound,
        user: u32,
    ) -> Result<Hold, KernelError> {
        let index = kernel.take_place()?;
        let listener =
            Listener { index, endpoint: self.hold, port: self.number, group: u32::try_from(at).unwrap_or(0) };
        Hold::open(netns, bound, user, index)
            .and_then(|hold| {
                host.maps.tag(hold.socket(), self.hold)?;
                kernel.enter(hold.socket(), hold.cookie, listener)?;
                Ok(hold)
            })
            .inspect_err(|_| kernel.give_back_place(index))
    }

    /// Hands waiting connections on if there is somebody to take them, else refuses those that have waited too long.
    /// `waiting` tells how many there are behind a listener of ours, by its cookie. Returns how many wait still.
    ///
    /// # Errors
    /// When the kernel does not do it.
    pub fn attend(
        &mut self,
        kernel: &mut PodKernel,
        host: &mut Host,
        netns: &Netns,
        limit: Duration,
        waiting: impl Fn(u64) -> u32,
    ) -> Result<u64, KernelError> {
        let served = self.is_served();
        let mut left = 0;
        for at in 0..GROUPS {
            let Some(group) = self.group_mut(at) else { continue };
            let (bound, user) = (group.bound, group.user);
            let Some(hold) = &mut group.hold else { continue };
            let count = waiting(hold.cookie);
            if count == 0 || !served {
                hold.expire(count as usize, limit, Instant::now());
                left += u64::from(count);
                continue;
            }
            // When it closes, the kernel hands everybody on. The replicas may have ended since it was looked: then they
            // go on waiting behind the next one, and nobody who comes in the meantime is refused.
            let last = if hold::has_file(netns.file()) {
                let next = self.open_hold(kernel, host, netns, at, &bound, user)?;
                self.set_hold(at, next)
            } else {
                self.group_mut(at).and_then(|group| group.hold.take())
            };
            self.write_holds(kernel)?;
            if let Some(last) = last {
                let (cookie, index) = (last.cookie, last.index);
                drop(last);
                kernel.forget(cookie, index);
            }
        }
        Ok(left)
    }
}
