//! Brings the kernel's view of one pod up to date: which sockets its replicas listen on, and which of them get what.

mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use socket2::SockRef;

use super::{
    port::{Door, Part, Port},
    project::{InKernel, Life},
    wish::{self, OtherUser, PodReport, PodWish, Rules, Stranger, Waiting},
};
use crate::{
    kernel::{
        KernelError, Netns,
        processes::{self, Cgroup},
        quiet,
        raw::{ENDPOINTS, GateKey, Notice, PortKey},
        sockets::{Bound, Diagnosis, Row, Transport},
    },
    spec::{Balance, ServiceName},
};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// A pod, as far as the kernel is told of it.
pub struct Pod {
    netns: Netns,
    diagnosis: Diagnosis,
    number: u32,
    ports: BTreeMap<wish::Port, Port>,
    residents: BTreeMap<Life, Resident>,
    /// What is known of each socket, by cookie.
    sockets: BTreeMap<u64, Socket>,
    /// Sockets, by cookie, whose owner was looked for among all groups.
    sought: BTreeSet<u64>,
    shut: BTreeSet<GateKey>,
    /// By port: who wanted it last, and may not.
    other_users: BTreeMap<u16, OtherUser>,
    /// What was counted at each endpoint at the last look.
    counted: BTreeMap<u32, u64>,
}

/// A replica that runs in the pod.
struct Resident {
    service: ServiceName,
    address: Ipv4Addr,
    weight: u32,
    cgroup: Cgroup,
    /// Its group's id, and those of groups below it.
    ids: BTreeSet<u64>,
}

/// What is known of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Socket {
    /// A replica's, among which we choose.
    Entered { life: Life, port: wish::Port, door: usize, index: u32 },
    /// A replica's, which has its port for itself alone: it was opened before we came.
    Alone { life: Life, port: wish::Port },
    /// Not one that serves anybody, such as a client's.
    Ignored,
    /// Nobody's that is known. It may be that of a replica which has just been started, so it is asked again.
    Unknown { since: Instant, stranger: Stranger },
}

impl Pod {
    /// Enters a pod: from now on every port that is opened in it is shared, and those that are known to be wanted are
    /// shut until there is somebody to choose among.
    ///
    /// # Errors
    /// When its network is gone, or we may not.
    pub fn open(kernel: &mut InKernel, wish: &PodWish) -> Result<Self, KernelError> {
        let netns = Netns::of(wish.pid)?;
        if netns.inode != wish.netns {
            return Err(KernelError::Gone { what: "the pod's network".to_owned() });
        }
        let diagnosis = Diagnosis::of(&netns)?;
        let number = kernel.take_pod(diagnosis.cookie)?;
        let mut pod = Self {
            netns,
            diagnosis,
            number,
            ports: BTreeMap::new(),
            residents: BTreeMap::new(),
            sockets: BTreeMap::new(),
            sought: BTreeSet::new(),
            shut: BTreeSet::new(),
            other_users: BTreeMap::new(),
            counted: BTreeMap::new(),
        };
        pod.adopt(kernel, wish)?;
        kernel.programs().guard(kernel.pins(), number, &pod.netns)?;
        Ok(pod)
    }

    /// Shuts what nobody listens on; what serves already goes on.
    fn adopt(&mut self, kernel: &mut InKernel, wish: &PodWish) -> Result<(), KernelError> {
        let rows = self.diagnosis.rows()?;
        self.shut_all_but(kernel, wish, |port, v4| {
            rows.iter().any(|row| {
                key(&row.bound) == port && if v4 { row.bound.takes_v4() } else { row.bound.takes_v6() }
            })
        })
    }

    /// The network that this is about.
    pub fn netns(&self) -> u64 {
        self.netns.inode
    }

    /// By which the programs know the network.
    pub fn cookie(&self) -> u64 {
        self.diagnosis.cookie
    }

    /// Lets go of everything.
    ///
    /// # Errors
    /// When the kernel does not let something go.
    pub fn close(self, kernel: &mut InKernel) -> Result<(), KernelError> {
        for resident in self.residents.values() {
            kernel.write_home(resident.cgroup.id, None)?;
        }
        kernel.drop_pod(self.diagnosis.cookie, self.number)
    }

    /// Takes note of what a program has told.
    pub fn notice(&mut self, kernel: &InKernel, notice: &Notice) {
        let (Ok(port), Ok(protocol)) = (u16::try_from(notice.port), u8::try_from(notice.protocol)) else {
            return;
        };
        let key = PortKey { netns: self.diagnosis.cookie, port, protocol, ..PortKey::default() };
        if let Some(owner) = kernel.user(&key) {
            self.other_users.insert(port, OtherUser { port, user: notice.user, owner });
        }
        // Where nobody else has the port any more, our own listener makes room for the new user.
        if let Some(transport) = Transport::from_number(protocol)
            && let Some(port) = self.ports.get_mut(&(transport, port))
            && !(0..port.doors.len()).any(|door| port.is_inhabited(door))
        {
            for door in port.doors.iter_mut().flatten() {
                if let Some(hold) = &door.hold
                    && let Err(error) = hold.belong_to(notice.user)
                {
                    tracing::warn!(%error, "a port stays with the user who had it");
                }
                door.user = notice.user;
            }
        }
    }

    /// Brings everything up to date, and tells how it stands.
    ///
    /// # Errors
    /// When the kernel does not do something; the next try goes on from there.
    pub fn update(&mut self, kernel: &mut InKernel, wish: &PodWish) -> Result<PodReport, KernelError> {
        self.settle(kernel, wish)?;
        let totals = self.totals(kernel)?;
        let rows = self.diagnosis.rows()?;
        self.forget_closed(kernel, &rows)?;
        let mut error = None;
        for row in &rows {
            // One that cannot be entered must not keep out the others.
            if let Err(why) = self.meet(kernel, row) {
                error = Some(why);
            }
        }
        self.let_go_of_the_dead(kernel)?;
        self.write(kernel, wish)?;
        self.shut_all_but_served(kernel, wish)?;
        let waiting = self.attend(kernel, wish)?;
        let report = self.report(kernel, wish, &totals, &rows, waiting, error);
        self.counted = totals;
        report
    }

    /// Takes note of who lives in the pod.
    fn settle(&mut self, kernel: &mut InKernel, wish: &PodWish) -> Result<(), KernelError> {
        let wanted: BTreeMap<Life, _> = wish
            .replicas
            .iter()
            .map(|replica| (Life { id: replica.id.clone(), pid: replica.pid }, replica))
            .collect();
        let gone: Vec<_> = self.residents.keys().filter(|life| !wanted.contains_key(life)).cloned().collect();
        for life in gone {
            if let Some(resident) = self.residents.remove(&life) {
                kernel.write_home(resident.cgroup.id, None)?;
            }
        }
        for (life, replica) in wanted {
            if let Some(resident) = self.residents.get_mut(&life) {
                resident.weight = replica.weight;
                if resident.address != replica.address {
                    kernel.write_home(resident.cgroup.id, Some(replica.address))?;
                    resident.address = replica.address;
                }
                continue;
            }
            // It may have ended just now: then it is no longer wanted soon.
            let Ok(cgroup) = Cgroup::of(replica.pid) else { continue };
            kernel.write_home(cgroup.id, Some(replica.address))?;
            // A supervisor before us may have been killed while this one was about to end.
            if let Err(error) = quiet::lift(&cgroup) {
                tracing::warn!(%error, pid = replica.pid, "some of its connections may get nothing");
            }
            let resident = Resident {
                service: replica.service.clone(),
                address: replica.address,
                weight: replica.weight,
                ids: cgroup.ids().into_iter().collect(),
                cgroup,
            };
            self.residents.insert(life, resident);
        }
        Ok(())
    }

    fn forget_closed(&mut self, kernel: &mut InKernel, rows: &[Row]) -> Result<(), KernelError> {
        let there: BTreeSet<u64> = rows.iter().map(|row| row.cookie).collect();
        self.sought.retain(|cookie| there.contains(cookie));
        let closed: Vec<u64> =
            self.sockets.keys().filter(|cookie| !there.contains(cookie)).copied().collect();
        for cookie in closed {
            let Some(Socket::Entered { life, port, door, index }) = self.sockets.remove(&cookie) else {
                continue;
            };
            let part = self.ports.get_mut(&port).and_then(|port| port.endpoints.get_mut(&life));
            if let Some(listeners) = part.and_then(|part| part.listeners.get_mut(door)) {
                listeners.retain(|(listener, _)| *listener != cookie);
            }
            // Nothing points to it any more before its place can be another's.
            self.write_port(kernel, port)?;
            kernel.forget(cookie, index);
        }
        Ok(())
    }

    /// Finds out what a socket is, if that is not known.
    fn meet(&mut self, kernel: &mut InKernel, row: &Row) -> Result<(), KernelError> {
        let ours = |port: &Port| {
            let mut holds = port.doors.iter().flatten().filter_map(|door| door.hold.as_ref());
            holds.any(|hold| hold.cookie == row.cookie)
        };
        let seen = self.sockets.get(&row.cookie);
        let (is_new, is_known) =
            (seen.is_none(), seen.is_some_and(|socket| !matches!(socket, Socket::Unknown { .. })));
        if is_known || self.ports.get(&key(&row.bound)).is_some_and(ours) {
            return Ok(());
        }
        let Some(life) = self.owner(row) else {
            let port = self.ports.get(&key(&row.bound)).filter(|port| port.doors.iter().any(Option::is_some));
            if let (Some(port), true) = (port, is_new) {
                let holder = processes::holder(row.inode);
                let (pid, command) = holder.map_or((None, String::new()), |(pid, name)| (Some(pid), name));
                let takes = port.door(&row.bound).is_none().then_some(row.bound.address);
                let stranger = Stranger { port: row.bound.address.port(), takes, pid, command };
                self.sockets.insert(row.cookie, Socket::Unknown { since: Instant::now(), stranger });
            }
            return Ok(());
        };
        let Some(resident) = self.residents.get(&life) else { return Ok(()) };
        let processes = resident.cgroup.processes();
        // Closed again, or passed on to somebody else: the next look tells.
        let Some(socket) = processes::duplicate(&processes, row.inode)? else { return Ok(()) };
        let shares = SockRef::from(&socket)
            .reuse_port()
            .map_err(KernelError::io("look at a listener of a replica"))?;
        let port = key(&row.bound);
        let known = match (shares, row.bound.transport) {
            (true, _) => self.enter(kernel, row, life, &socket)?,
            (false, Transport::Tcp) => Socket::Alone { life, port },
            (false, Transport::Udp) => Socket::Ignored,
        };
        self.sockets.insert(row.cookie, known);
        Ok(())
    }

    /// Whose a socket is.
    fn owner(&mut self, row: &Row) -> Option<Life> {
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
            for resident in self.residents.values_mut() {
                resident.ids = resident.cgroup.ids().into_iter().collect();
            }
            find(&self.residents)
        })
    }

    fn enter(
        &mut self,
        kernel: &mut InKernel,
        row: &Row,
        life: Life,
        socket: &OwnedFd,
    ) -> Result<Socket, KernelError> {
        let name = key(&row.bound);
        let Some(resident) = self.residents.get(&life) else { return Ok(Socket::Ignored) };
        let port_key = PortKey {
            netns: self.diagnosis.cookie,
            port: row.bound.address.port(),
            protocol: row.bound.transport.number(),
            ..PortKey::default()
        };
        let port = match self.ports.entry(name) {
            std::collections::btree_map::Entry::Occupied(port) => port.into_mut(),
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(Port::new(kernel.take_port(port_key)?, port_key, resident.service.clone()))
            }
        };
        let inherited = kernel.left_behind(row.cookie);
        let door = match (port.door(&row.bound), &inherited) {
            (Some(door), _) => door,
            (None, Some(listener)) if port.doors.get(listener.door as usize).is_some_and(Option::is_none) => {
                listener.door as usize
            }
            (None, _) => port.free_door()?,
        };
        if let Some(place @ None) = port.doors.get_mut(door) {
            let number = u32::try_from(door).unwrap_or(0);
            let chooser = match port.choosers.get_mut(door) {
                // The group was empty for a moment: loading it anew would take longer than that.
                Some(Some(chooser)) => chooser,
                Some(none) => {
                    none.insert(kernel.programs().chooser(row.bound.transport, port.number, number)?)
                }
                None => return Ok(Socket::Ignored),
            };
            chooser.attach(socket.as_fd())?;
            *place = Some(Door { bound: row.bound, user: row.user, hold: None });
        }
        kernel.write_user(port_key, row.user)?;
        self.other_users.retain(|port, other| *port != port_key.port || other.user != row.user);
        let number = match (port.endpoints.get(&life), &inherited) {
            (Some(part), _) => part.number,
            (None, Some(listener)) => listener.endpoint,
            (None, None) => kernel.take_endpoint()?,
        };
        let index = match inherited {
            Some(listener) => {
                kernel.inherit(row.cookie);
                listener.index
            }
            None => {
                let index = kernel.take_place()?;
                kernel
                    .enter(socket, row.cookie, index, number, port.number, door)
                    .inspect_err(|_| kernel.give_back_place(index))?;
                index
            }
        };
        let part = port.endpoints.entry(life.clone()).or_insert_with(|| Part::new(number));
        if let Some(listeners) = part.listeners.get_mut(door) {
            listeners.push((row.cookie, index));
        }
        Ok(Socket::Entered { life, port: name, door, index })
    }

    /// Lets go of parts of replicas that are no more, of groups that nobody is in, and of what a supervisor before us
    /// has left.
    fn let_go_of_the_dead(&mut self, kernel: &mut InKernel) -> Result<(), KernelError> {
        for port in self.ports.values_mut() {
            for endpoint in kernel.bury(port.number) {
                if endpoint < ENDPOINTS && !port.endpoints.values().any(|part| part.number == endpoint) {
                    kernel.retire(endpoint)?;
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
                kernel.retire(number)?;
            }
            for door in 0..port.doors.len() {
                let is_empty = !port.is_inhabited(door);
                if let Some(place) = port.doors.get_mut(door)
                    && is_empty
                    && place.as_ref().is_some_and(|door| door.hold.is_none())
                {
                    *place = None;
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, kernel: &mut InKernel, wish: &PodWish) -> Result<(), KernelError> {
        let names: Vec<_> = self.ports.keys().copied().collect();
        for name in names {
            if let Some(port) = self.ports.get_mut(&name) {
                // Where connections wait has to be known before they are sent there.
                port.hold(kernel, &self.netns, rules(wish, port).hold)?;
            }
            self.write_port_by(kernel, name, |port| rules(wish, port))?;
        }
        Ok(())
    }

    /// Writes a port by the rules that it has.
    fn write_port(&mut self, kernel: &mut InKernel, name: wish::Port) -> Result<(), KernelError> {
        self.write_port_by(kernel, name, Port::rules)
    }

    fn write_port_by(
        &mut self,
        kernel: &mut InKernel,
        name: wish::Port,
        rules: impl Fn(&Port) -> Rules,
    ) -> Result<(), KernelError> {
        let Some(port) = self.ports.get_mut(&name) else { return Ok(()) };
        let rules = rules(port);
        let residents = &self.residents;
        port.write(kernel, &rules, |life| {
            residents.get(life).map(|resident| (resident.address, resident.weight))
        })
    }

    fn attend(
        &mut self,
        kernel: &mut InKernel,
        wish: &PodWish,
    ) -> Result<BTreeMap<u16, Waiting>, KernelError> {
        // Asked anew: between the first look and the last table more may have come.
        let holding =
            self.ports.values().any(|port| port.doors.iter().flatten().any(|door| door.hold.is_some()));
        let rows = if holding { self.diagnosis.rows()? } else { Vec::new() };
        let mut waiting = BTreeMap::new();
        for ((_, number), port) in &mut self.ports {
            let count = |cookie| rows.iter().find(|row| row.cookie == cookie).map_or(0, |row| row.waiting);
            let connections = port.attend(kernel, &self.netns, rules(wish, port).hold, count)?;
            if port.can_wait() > 0 {
                waiting.insert(*number, Waiting { connections, most: u64::from(port.can_wait()) });
            }
        }
        Ok(waiting)
    }

    fn shut_all_but_served(&mut self, kernel: &mut InKernel, wish: &PodWish) -> Result<(), KernelError> {
        let doors = self.ports.iter().flat_map(|(name, port)| {
            port.doors.iter().flatten().map(move |door| (*name, door.bound.takes_v4(), door.bound.takes_v6()))
        });
        // Who has a port for himself alone is in nobody's way.
        let alone = self.sockets.values().filter_map(|socket| match socket {
            Socket::Alone { port, .. } => Some((*port, true, true)),
            _ => None,
        });
        let open: Vec<_> = doors.chain(alone).collect();
        self.shut_all_but(kernel, wish, |port, v4| {
            open.iter()
                .any(|(name, takes_v4, takes_v6)| *name == port && if v4 { *takes_v4 } else { *takes_v6 })
        })
    }

    fn shut_all_but(
        &mut self,
        kernel: &mut InKernel,
        wish: &PodWish,
        is_open: impl Fn(wish::Port, bool) -> bool,
    ) -> Result<(), KernelError> {
        let mut wanted = BTreeSet::new();
        for (transport, port) in &wish.declared {
            for (family, v4) in [(AF_INET, true), (AF_INET6, false)] {
                if !is_open((*transport, *port), v4) {
                    let protocol = transport.number();
                    wanted.insert(GateKey { pod: self.number, port: *port, protocol, family });
                }
            }
        }
        for key in wanted.difference(&self.shut) {
            kernel.write_gate(*key, true)?;
        }
        for key in self.shut.difference(&wanted) {
            kernel.write_gate(*key, false)?;
        }
        self.shut = wanted;
        Ok(())
    }
}

fn key(bound: &Bound) -> wish::Port {
    (bound.transport, bound.address.port())
}

fn rules(wish: &PodWish, port: &Port) -> Rules {
    let none = Rules { balance: Balance::default(), hold: Duration::ZERO };
    wish.rules.get(&port.service).copied().unwrap_or(none)
}
