//! A port of a pod: its groups of listeners, the replicas' parts in it, and the table by which the kernel chooses.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use super::{
    hold::{self, Hold},
    project::{InKernel, Life},
    wish::Rules,
};
use crate::{
    kernel::{
        KernelError, Netns,
        programs::Chooser,
        raw::{DOORS, ENDPOINTS, Endpoint, OwnKey, PortKey, Table},
        sockets::Bound,
        wheel::wheel,
    },
    spec::ServiceName,
};

/// A port of a pod.
pub struct Port {
    /// Its number among the project's.
    pub number: u32,
    /// By which the programs know it.
    pub key: PortKey,
    /// Whose rules are its own: the service that was the first to listen on it.
    pub service: ServiceName,
    /// Its groups, by the number that the programs know them by.
    pub doors: [Option<Door>; DOORS],
    /// The programs that choose in each of them, once they were loaded.
    pub choosers: [Option<Chooser>; DOORS],
    /// Parts of replicas in it.
    pub endpoints: BTreeMap<Life, Part>,
    /// The rules that it was written by last.
    rules: Rules,
    /// What the kernel goes by; none before it was written for the first time.
    table: Option<Box<Table>>,
    /// Whether a table was written since [`Port::take_written`].
    written: bool,
    /// The endpoint of those who wait, as the kernel has it.
    hold_endpoint: Endpoint,
}

/// A group: all sockets that listen on one address.
pub struct Door {
    /// Which address.
    pub bound: Bound,
    /// Who opened it.
    pub user: u32,
    /// Our own listener, for connections that wait.
    pub hold: Option<Hold>,
}

/// A replica's part in a port.
pub struct Part {
    /// Its number among the project's endpoints.
    pub number: u32,
    /// Its listeners, by group: socket cookies and places in the array of sockets.
    pub listeners: [Vec<(u64, u32)>; DOORS],
    /// What the kernel has of it; none before it was written.
    written: Option<Box<Endpoint>>,
    /// The address under which it is entered, to be reached alone.
    own: Option<Ipv4Addr>,
}

impl Part {
    /// A part without listeners.
    pub fn new(number: u32) -> Self {
        Self { number, listeners: Default::default(), written: None, own: None }
    }

    /// Whether it listens.
    pub fn listens(&self) -> bool {
        self.listeners.iter().any(|door| !door.is_empty())
    }

    fn endpoint(&self) -> Endpoint {
        let mut endpoint = Endpoint::EMPTY;
        for (door, listeners) in endpoint.doors.iter_mut().zip(&self.listeners) {
            for (place, (_, index)) in door.listeners.iter_mut().zip(listeners) {
                *place = u16::try_from(*index).unwrap_or(0);
                door.count += 1;
            }
        }
        endpoint
    }
}

impl Port {
    /// A port that nobody listens on.
    pub fn new(number: u32, key: PortKey, service: ServiceName) -> Self {
        Self {
            number,
            key,
            service,
            doors: Default::default(),
            choosers: Default::default(),
            endpoints: BTreeMap::new(),
            rules: Rules::default(),
            table: None,
            written: false,
            hold_endpoint: Endpoint::EMPTY,
        }
    }

    /// The group that listens there, if it is known.
    pub fn door(&self, bound: &Bound) -> Option<usize> {
        self.doors.iter().position(|door| door.as_ref().is_some_and(|door| door.bound == *bound))
    }

    /// A number for one more group.
    ///
    /// # Errors
    /// When it is listened on at too many addresses.
    pub fn free_door(&self) -> Result<usize, KernelError> {
        let full = KernelError::Full { what: "addresses that a port is listened on", most: DOORS };
        self.doors.iter().position(Option::is_none).ok_or(full)
    }

    /// Whether any replica listens in a group.
    pub fn is_inhabited(&self, door: usize) -> bool {
        self.endpoints.values().any(|part| part.listeners.get(door).is_some_and(|list| !list.is_empty()))
    }

    /// The rules that it was written by last.
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// The endpoint of connections that wait.
    pub fn hold_number(&self) -> u32 {
        ENDPOINTS + self.number
    }

    /// Tells the kernel where replicas listen, and which of them get how much.
    ///
    /// # Errors
    /// When it does not take it.
    pub fn write(
        &mut self,
        kernel: &mut InKernel,
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
            let reached_by_v4 = part.listeners.iter().zip(&self.doors).any(|(list, door)| {
                !list.is_empty() && door.as_ref().is_some_and(|door| door.bound.takes_v4())
            });
            let own = wanted.map(|(address, _)| address).filter(|_| reached_by_v4);
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
        let key = |address: Ipv4Addr| OwnKey { port: self.number, address: address.to_bits() };
        for (_, old, _) in &moves {
            if let Some(old) = old {
                kernel.write_own(key(*old), None)?;
            }
        }
        for (number, _, new) in moves {
            if let Some(new) = new {
                kernel.write_own(key(new), Some(number))?;
            }
        }
        weights.sort_unstable();
        let weights: Vec<_> = weights.into_iter().map(|(_, number, weight)| (number, weight)).collect();
        let with_weight = |number: &u16| {
            let weight = weights.iter().find(|(other, _)| other == number).map_or(0, |(_, weight)| *weight);
            u32::from(*number) | weight.min(0xffff) << 16
        };
        let wheel: Vec<u32> = wheel(&weights).iter().map(with_weight).collect();
        self.write_table(kernel, rules, &wheel)
    }

    fn write_table(
        &mut self,
        kernel: &mut InKernel,
        rules: &Rules,
        wheel: &[u32],
    ) -> Result<(), KernelError> {
        let endpoint = self.write_holds(kernel)?;
        let mut table = Table {
            policy: rules.balance.number(),
            size: u32::try_from(wheel.len()).unwrap_or(0),
            hold: if endpoint == Endpoint::EMPTY { 0 } else { hold::MOST },
            ..Table::EMPTY
        };
        table.wheel.iter_mut().zip(wheel).for_each(|(place, endpoint)| *place = *endpoint);
        if self.table.as_deref() != Some(&table) {
            kernel.write_table(self.number, &table)?;
            self.table = Some(Box::new(table));
            self.written = true;
        }
        Ok(())
    }

    /// Whether the kernel goes by another table than when this was asked last.
    pub fn take_written(&mut self) -> bool {
        std::mem::take(&mut self.written)
    }

    /// Writes where connections wait.
    fn write_holds(&mut self, kernel: &mut InKernel) -> Result<Endpoint, KernelError> {
        let mut endpoint = Endpoint::EMPTY;
        for (place, door) in endpoint.doors.iter_mut().zip(&self.doors) {
            if let Some(hold) = door.as_ref().and_then(|door| door.hold.as_ref()) {
                place.count = 1;
                place.listeners[0] = u16::try_from(hold.index).unwrap_or(0);
            }
        }
        if self.hold_endpoint != endpoint {
            kernel.write_endpoint(self.hold_number(), &endpoint)?;
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

    /// Sees to it that connections can wait in every group, or in none if they shall not.
    ///
    /// # Errors
    /// When a listener of ours cannot be opened.
    pub fn hold(&mut self, kernel: &mut InKernel, netns: &Netns, limit: Duration) -> Result<(), KernelError> {
        for at in 0..DOORS {
            let inhabited = self.is_inhabited(at);
            let Some(door) = self.door_mut(at) else { continue };
            if limit.is_zero() {
                if let Some(hold) = door.hold.take() {
                    kernel.forget(hold.cookie, hold.index);
                }
            } else if door.hold.is_none() && inhabited && door.bound.can_hold() {
                let (bound, user) = (door.bound, door.user);
                let hold = self.open_hold(kernel, netns, at, &bound, user)?;
                self.set_hold(at, hold);
                kernel.write_user(self.key, user)?;
            }
        }
        Ok(())
    }

    fn door_mut(&mut self, at: usize) -> Option<&mut Door> {
        self.doors.get_mut(at).and_then(Option::as_mut)
    }

    fn set_hold(&mut self, at: usize, hold: Hold) -> Option<Hold> {
        self.door_mut(at).and_then(|door| door.hold.replace(hold))
    }

    /// Opens a listener for those who wait, in the group of a door.
    fn open_hold(
        &self,
        kernel: &mut InKernel,
        netns: &Netns,
        at: usize,
        bound: &Bound,
        user: u32,
    ) -> Result<Hold, KernelError> {
        let index = kernel.take_place()?;
        Hold::open(netns, bound, user, index)
            .and_then(|hold| {
                kernel.enter(hold.socket(), hold.cookie, index, self.hold_number(), self.number, at)?;
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
        kernel: &mut InKernel,
        netns: &Netns,
        limit: Duration,
        waiting: impl Fn(u64) -> u32,
    ) -> Result<u64, KernelError> {
        let served = self.is_served();
        let mut left = 0;
        for at in 0..DOORS {
            let Some(door) = self.door_mut(at) else { continue };
            let (bound, user) = (door.bound, door.user);
            let Some(hold) = &mut door.hold else { continue };
            let count = waiting(hold.cookie);
            if count == 0 || !served {
                hold.expire(count as usize, limit, Instant::now());
                left += u64::from(count);
                continue;
            }
            // When it closes, the kernel hands everybody on. The replicas may have ended since it was looked: then they
            // go on waiting behind the next one, and nobody who comes in the meantime is refused.
            let next = self.open_hold(kernel, netns, at, &bound, user)?;
            let last = self.set_hold(at, next);
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
