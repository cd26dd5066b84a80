//! Brings the kernel's view of one pod up to date: which sockets its replicas listen on, and which of them get what.

mod kernel;
mod listeners;
mod notices;
mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    pace::Allowance,
    port::Port,
    project::{InKernel, Life},
    wish::{self, OtherUser, PodReport, PodWish, Rules, Stranger, Waiting},
};
use crate::{
    engine::ContainerId,
    kernel::{
        KernelError, Netns,
        former::Former,
        host::Host,
        netns::AddressWatch,
        processes::Cgroup,
        quiet,
        raw::{BindKey, CLOSED_V4, CLOSED_V6, DECLARED, Member, PodPortKey},
        sockets::{Bound, Diagnosis, Row, Transport},
        source_ports,
    },
    spec::{Balance, PortSet, Protocol, ServiceName},
};

use listeners::Met;

pub use kernel::PodKernel;
pub use notices::Notices;

/// More declared ports than these are left to the kernel.
const MOST_DECLARED: usize = 1024;
/// A socket is looked at no sooner.
const YOUNG: Duration = Duration::from_millis(10);
/// So many ports that nobody has declared are kept from being source ports.
const MOST_RESERVED: usize = 1024;
/// Looks so soon again while there are sockets that were not looked at yet.
const SOON: Duration = Duration::from_millis(5);
/// In thousandths of a processor, what a replica may use for its listeners in the long run; and how much at once.
const SHARE: u32 = 10;
const AT_ONCE: Duration = Duration::from_millis(100);
/// One look at new sockets takes no longer; the next one goes on.
const BUDGET: Duration = Duration::from_millis(20);

/// A pod, as far as the kernel is told of it.
pub struct Pod {
    netns: Netns,
    diagnosis: Diagnosis,
    kernel: PodKernel,
    /// What a release of another layout has left of it.
    former: Option<Arc<Former>>,
    declared: BTreeSet<wish::Port>,
    exclusive: PortSet,
    ports: BTreeMap<wish::Port, Port>,
    residents: BTreeMap<Life, Resident>,
    /// What is known of each socket, by cookie.
    sockets: BTreeMap<u64, Socket>,
    /// Sockets, by cookie, whose owner was looked for among all groups.
    sought: BTreeSet<u64>,
    /// By port: who wanted it last, and may not.
    other_users: BTreeMap<u16, OtherUser>,
    /// By replica: ports that another one holds alone, and that it wanted.
    exclusive_conflicts: BTreeMap<ContainerId, BTreeSet<wish::Port>>,
    /// The same of control groups that we were not told of yet: a replica may ask before.
    early_conflicts: Vec<(u64, wish::Port)>,
    /// What was counted at each endpoint at the last look.
    counted: BTreeMap<u32, u64>,
    addresses: AddressWatch,
    /// Whether they are to be looked at anew.
    addresses_changed: bool,
    /// Whose listeners could not wait for the next look; none: it is not known whose they are.
    payers: BTreeSet<Option<Life>>,
    /// What they may use for that of whom it is not known who they are.
    unknown_allowance: Allowance,
    /// Ports that are no source ports of the network any more; none before that was seen to.
    reserved: Option<BTreeSet<u16>>,
    /// Whether there are sockets that were not looked at yet.
    behind: bool,
    /// When a look finds out something, of whatever nobody tells.
    next_look: Option<Instant>,
    /// Whether it was looked at what there is.
    has_looked: bool,
    /// When each socket was seen first, by cookie.
    first_seen: BTreeMap<u64, Instant>,
}

/// A replica that runs in the pod.
struct Resident {
    service: ServiceName,
    address: Ipv4Addr,
    weight: u32,
    cgroup: Cgroup,
    /// As the host's programs know it.
    member: Member,
    /// Whether it is in the supervisor's own group, as a process that tries out what this host can do is: what comes from
    /// there is never a replica's.
    is_ours: bool,
    /// Its group's id, and those of groups below it.
    ids: BTreeSet<u64>,
    /// What looks at its listeners may use.
    allowance: Allowance,
}

/// What is known of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Socket {
    /// A replica's, among which we choose.
    Entered(Entered),
    /// A replica's, which has its port for itself alone: it is exclusive, or was opened before we came.
    Alone { life: Life, port: wish::Port },
    /// A replica's, for which there is no room: the kernel chooses without us.
    LeftAlone { life: Life },
    /// Not one that serves anybody, such as a client's.
    Ignored,
    /// Nobody's that is known. It may be that of a replica which has just been started, so it is asked again.
    Unknown { since: Instant, stranger: Stranger, listed: Option<(BindKey, u8)> },
    /// One that could not be looked at, or that the kernel did not take.
    Refused { tries: u32, next: Instant },
}

/// A listener among which we choose.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entered {
    life: Life,
    port: wish::Port,
    group: usize,
    index: u32,
    /// Where we have entered it for what its replica sends to itself.
    listed: Option<(BindKey, u8)>,
}

impl Pod {
    /// Enters a pod: from now on every port that is opened in it is shared, and those that are known to be wanted are
    /// closed until there is somebody to choose among.
    ///
    /// # Errors
    /// When its network is gone, or we may not.
    pub fn open(kernel: &mut InKernel, wish: &PodWish) -> Result<Self, KernelError> {
        let netns = Netns::of(wish.pid)?;
        if netns.inode != wish.netns {
            return Err(KernelError::Gone { what: "the pod's network".to_owned() });
        }
        let diagnosis = Diagnosis::of(&netns)?;
        let declared = u32::try_from(steered(wish).count()).unwrap_or(u32::MAX);
        let has_udp = steered(wish).any(|(transport, _)| transport == Transport::Udp);
        let in_pod = PodKernel::open(kernel, diagnosis.cookie, declared, has_udp)?;
        let mut pod = Self {
            former: Former::open(kernel.pins.path(), diagnosis.cookie)?.map(Arc::new),
            addresses: AddressWatch::of(&netns)?,
            netns,
            diagnosis,
            kernel: in_pod,
            declared: BTreeSet::new(),
            exclusive: PortSet::default(),
            ports: BTreeMap::new(),
            residents: BTreeMap::new(),
            sockets: BTreeMap::new(),
            sought: BTreeSet::new(),
            other_users: BTreeMap::new(),
            exclusive_conflicts: BTreeMap::new(),
            early_conflicts: Vec::new(),
            reserved: None,
            counted: BTreeMap::new(),
            addresses_changed: false,
            payers: BTreeSet::new(),
            unknown_allowance: Allowance::new(SHARE, AT_ONCE, Instant::now()),
            behind: false,
            next_look: None,
            has_looked: false,
            first_seen: BTreeMap::new(),
        };
        pod.look_at_addresses(&mut kernel.host)?;
        pod.adopt(kernel, wish)?;
        pod.kernel.attach(&pod.netns)?;
        if let Some(former) = &pod.former {
            former.detach()?;
        }
        Ok(pod)
    }

    /// Closes what nobody listens on; what serves already goes on. What a supervisor before us has closed stays so until the
    /// choice among its listeners is ours: it may have been killed before it was.
    fn adopt(&mut self, kernel: &mut InKernel, wish: &PodWish) -> Result<(), KernelError> {
        self.declare(&mut kernel.host, wish)?;
        for key in self.kernel.former_ports() {
            if let Some(transport) = Transport::from_number(key.protocol) {
                self.port((transport, key.port))?;
            }
        }
        let rows = self.diagnosis.rows()?;
        let (former, declared) = (self.former.clone(), self.declared.clone());
        for (name, port) in &mut self.ports {
            if let Some(entry) = self.kernel.former_port(&port.key) {
                // It stays as it is until its listeners were looked at.
                port.flags = entry.flags;
                continue;
            }
            let listens = |v4: bool| {
                rows.iter().any(|row| {
                    key(&row.bound) == *name && if v4 { row.bound.takes_v4() } else { row.bound.takes_v6() }
                })
            };
            let was_closed = |v4: bool| former.as_ref().is_some_and(|former| former.was_closed(*name, v4));
            let closed = |v4: bool| declared.contains(name) && (!listens(v4) || was_closed(v4));
            port.flags = flags(declared.contains(name), closed(true), closed(false));
            port.write_entry(&mut self.kernel)?;
        }
        Ok(())
    }

    /// Takes note of which ports are known to be wanted, and which are exclusive.
    fn declare(&mut self, host: &mut Host, wish: &PodWish) -> Result<(), KernelError> {
        let declared: BTreeSet<_> = steered(wish).collect();
        if declared != self.declared {
            for name in &declared {
                self.port(*name)?;
            }
            self.declared = declared;
        }
        if wish.exclusive != self.exclusive {
            let (before, now) = (words(&self.exclusive), words(&wish.exclusive));
            for (transport, word) in before.keys().chain(now.keys()) {
                let bits = now.get(&(*transport, *word)).copied().unwrap_or(0);
                host.maps.set_exclusive(self.host_key((*transport, *word)), bits)?;
            }
            self.exclusive = wish.exclusive.clone();
        }
        Ok(())
    }

    fn is_declared(&self, port: wish::Port) -> bool {
        self.declared.contains(&port)
    }

    /// The network that this is about.
    pub fn netns(&self) -> u64 {
        self.netns.inode
    }

    /// By which the programs know the network.
    pub fn cookie(&self) -> u64 {
        self.diagnosis.cookie
    }

    /// Descriptors that can be read when something is told: by the programs, and of the network's addresses.
    pub fn wakers(&self) -> (&(impl AsFd + use<>), &AddressWatch) {
        (self.kernel.notices(), &self.addresses)
    }

    /// Lets go of everything.
    ///
    /// # Errors
    /// When the kernel does not let something go.
    pub fn close(self, kernel: &mut InKernel) -> Result<(), KernelError> {
        let netns = self.diagnosis.cookie;
        // Descriptors of its maps would keep them.
        drop(self);
        let removed = [kernel.host.maps.remove_pod(netns), kernel.pins.remove_pod(netns)];
        removed.into_iter().collect()
    }

    /// Brings everything up to date, and tells how it stands.
    ///
    /// # Errors
    /// When the kernel does not do something; the next try goes on from there.
    pub fn update(&mut self, kernel: &mut InKernel, wish: &PodWish) -> Result<PodReport, KernelError> {
        self.settle(kernel, wish)?;
        self.declare(&mut kernel.host, wish)?;
        if self.addresses_changed || self.addresses.has_changed() {
            self.look_at_addresses(&mut kernel.host)?;
        }
        let totals = self.totals()?;
        let rows = self.diagnosis.rows()?;
        self.forget_closed(kernel, &rows)?;
        let mut error = None;
        let mut unowned = Vec::new();
        let begun = Instant::now();
        // Whatever was there when we came is taken over at once.
        let is_first = !std::mem::replace(&mut self.has_looked, true);
        let now = Instant::now();
        let there: BTreeSet<u64> = rows.iter().map(|row| row.cookie).collect();
        self.first_seen.retain(|cookie, _| there.contains(cookie));
        self.behind = false;
        self.next_look = None;
        // Declared ports first.
        let (first, others): (Vec<_>, Vec<_>) =
            rows.iter().partition(|row| self.declared.contains(&key(&row.bound)));
        let mut rows_by_turn: Vec<_> = first.into_iter().chain(others).collect();
        if self.former.is_some() {
            // Whoever gets connections goes first, so that there is somebody to give them to all the time.
            rows_by_turn.sort_by_key(|row| !self.is_in_rotation(row));
        }
        for row in rows_by_turn {
            // A descriptor of ours keeps a socket open, and so its port taken, also when its program closes it at once to see
            // whether the port is free.
            let since = *self.first_seen.entry(row.cookie).or_insert(now);
            if !is_first && !self.sockets.contains_key(&row.cookie) && now.duration_since(since) < YOUNG {
                self.look_again(since + YOUNG);
                continue;
            }
            let is_late = !is_first && begun.elapsed() > BUDGET;
            if is_late && !self.sockets.contains_key(&row.cookie) {
                self.behind = true;
                self.look_again(now + SOON);
                break;
            }
            // One that cannot be entered must not keep out the others.
            match self.meet(kernel, wish, row) {
                Ok(Met::Known) => {}
                Ok(Met::Unowned) => unowned.push(row),
                Err(why) => error = Some(why),
            }
        }
        if let Err(why) = self.meet_strangers(kernel, &unowned) {
            error = Some(why);
        }
        if !self.behind {
            self.let_go_of_the_dead(kernel)?;
        }
        self.write(kernel, wish)?;
        self.close_all_but_served()?;
        self.reserve_ports(wish);
        let waiting = self.attend(kernel, wish, &rows)?;
        self.let_go_of_former()?;
        let report = self.report(wish, &totals, &rows, waiting, error);
        self.counted = totals;
        report
    }

    /// Keeps ports that replicas listen on, or are known to want, from being used as source ports.
    fn reserve_ports(&mut self, wish: &PodWish) {
        let alone = self.sockets.values().filter_map(|socket| match socket {
            Socket::Alone { port, .. } => Some(port.1),
            _ => None,
        });
        let declared: BTreeSet<u16> = wish.declared.iter().map(|(_, port)| *port).collect();
        let others: BTreeSet<u16> = self.ports.keys().map(|(_, port)| *port).chain(alone).collect();
        let known = self.reserved.clone().unwrap_or_default();
        // A replica that listens on ever other ports must not take all source ports away.
        let room = MOST_RESERVED.saturating_sub(known.difference(&declared).count());
        let new: BTreeSet<u16> = others.difference(&known).copied().take(room).collect();
        let ports = &(&known | &declared) | &new;
        if self.reserved.as_ref() == Some(&ports) {
            return;
        }
        let ports = self.reserved.insert(ports);
        if let Err(error) = source_ports::reserve(&self.netns, ports) {
            tracing::warn!(%error, "source ports of a pod stay as they are");
        }
    }

    /// Lets go of what a release of another layout has left, once nothing of it is in use.
    fn let_go_of_former(&mut self) -> Result<(), KernelError> {
        let Some(former) = &self.former else { return Ok(()) };
        if !self.behind && former.is_idle()? {
            // What it has counted so far stays in the totals only as long as it is there: they begin anew.
            self.former = None;
            for part in self.ports.values_mut().flat_map(|port| port.endpoints.values_mut()) {
                part.former = None;
            }
        }
        Ok(())
    }

    /// Whether something of a release of another layout is in use.
    pub fn has_former(&self) -> bool {
        self.former.is_some()
    }

    /// When a look finds out something, of whatever nobody tells.
    pub fn next_look(&self) -> Option<Instant> {
        self.next_look
    }

    fn look_again(&mut self, at: Instant) {
        self.next_look = Some(self.next_look.map_or(at, |next| next.min(at)));
    }

    /// Takes note of who lives in the pod.
    fn settle(&mut self, kernel: &mut InKernel, wish: &PodWish) -> Result<(), KernelError> {
        let own = Cgroup::of(std::process::id())?.id;
        let wanted: BTreeMap<Life, _> = wish
            .replicas
            .iter()
            .map(|replica| (Life { id: replica.id.clone(), pid: replica.pid }, replica))
            .collect();
        let gone: Vec<_> = self.residents.keys().filter(|life| !wanted.contains_key(life)).cloned().collect();
        for life in gone {
            if let Some(resident) = self.residents.remove(&life) {
                kernel.host.maps.remove_replica(resident.cgroup.id, resident.member);
                self.exclusive_conflicts.remove(&life.id);
            }
        }
        for (life, replica) in wanted {
            let service = self.kernel.service(&replica.service)?;
            if let Some(resident) = self.residents.get_mut(&life) {
                // Of two in one slot, the one that serves is whom neighbours ask for.
                if resident.weight == 0 && replica.weight > 0 && !resident.is_ours {
                    kernel.host.maps.add_replica(resident.cgroup.id, resident.member)?;
                }
                resident.weight = replica.weight;
                resident.address = replica.address;
                continue;
            }
            // It may have ended just now: then it is no longer wanted soon.
            let Ok(cgroup) = Cgroup::of(replica.pid) else { continue };
            let member = Member { netns: self.kernel.netns, service, slot: replica.slot };
            let is_ours = cgroup.id == own;
            if !is_ours {
                kernel.host.maps.add_replica(cgroup.id, member)?;
            }
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
                member,
                is_ours,
                allowance: Allowance::new(SHARE, AT_ONCE, Instant::now()),
            };
            for (_, port) in self.early_conflicts.extract_if(.., |(group, _)| resident.ids.contains(group)) {
                self.exclusive_conflicts.entry(life.id.clone()).or_default().insert(port);
            }
            self.residents.insert(life, resident);
        }
        Ok(())
    }

    fn write(&mut self, kernel: &mut InKernel, wish: &PodWish) -> Result<(), KernelError> {
        let names: Vec<_> = self.ports.keys().copied().collect();
        for name in names {
            if let Some(port) = self.ports.get_mut(&name) {
                // Where connections wait has to be known before they are sent there.
                port.hold(&mut self.kernel, &mut kernel.host, &self.netns, rules(wish, port).hold)?;
            }
            self.write_port_by(name, |port| rules(wish, port))?;
        }
        Ok(())
    }

    /// Writes a port by the rules that it has.
    fn write_port(&mut self, name: wish::Port) -> Result<(), KernelError> {
        self.write_port_by(name, Port::rules)
    }

    fn write_port_by(&mut self, name: wish::Port, rules: impl Fn(&Port) -> Rules) -> Result<(), KernelError> {
        let Some(port) = self.ports.get_mut(&name) else { return Ok(()) };
        let rules = rules(port);
        let residents = &self.residents;
        port.write(&mut self.kernel, &rules, |life| {
            residents.get(life).map(|resident| (resident.address, resident.weight))
        })
    }

    fn attend(
        &mut self,
        kernel: &mut InKernel,
        wish: &PodWish,
        rows: &[Row],
    ) -> Result<BTreeMap<u16, Waiting>, KernelError> {
        // Between the look at `rows` and a new table more may have come. As long as a table stays, those who come are
        // seen by the next look.
        let mut anew = false;
        for port in self.ports.values_mut() {
            anew |= port.take_written() && port.groups.iter().flatten().any(|group| group.hold.is_some());
        }
        let later = if anew { Some(self.diagnosis.rows()?) } else { None };
        let rows = later.as_deref().unwrap_or(rows);
        let mut waiting = BTreeMap::new();
        for ((_, number), port) in &mut self.ports {
            let count = |cookie| rows.iter().find(|row| row.cookie == cookie).map_or(0, |row| row.waiting);
            let hold = rules(wish, port).hold;
            let connections = port.attend(&mut self.kernel, &mut kernel.host, &self.netns, hold, count)?;
            if port.can_wait() > 0 {
                waiting.insert(*number, Waiting { connections, most: u64::from(port.can_wait()) });
            }
        }
        Ok(waiting)
    }

    /// Closes declared ports to packets of a family in which nobody listens.
    fn close_all_but_served(&mut self) -> Result<(), KernelError> {
        // Who has a port for himself alone is in nobody's way.
        let alone: BTreeSet<_> = self
            .sockets
            .values()
            .filter_map(|socket| if let Socket::Alone { port, .. } = socket { Some(*port) } else { None })
            .collect();
        for (name, port) in &mut self.ports {
            let takes =
                |family: fn(&Bound) -> bool| port.groups.iter().flatten().any(|group| family(&group.bound));
            let closed = |family: fn(&Bound) -> bool| {
                self.declared.contains(name) && !alone.contains(name) && !takes(family)
            };
            port.flags =
                flags(self.declared.contains(name), closed(Bound::takes_v4), closed(Bound::takes_v6));
            port.write_entry(&mut self.kernel)?;
        }
        Ok(())
    }
}

/// Ports that are closed until replicas are ready, and always have room: the declared ones that replicas share.
fn steered(wish: &PodWish) -> impl Iterator<Item = wish::Port> {
    wish.declared.iter().copied().filter(|port| !is_exclusive(wish, *port)).take(MOST_DECLARED)
}

fn is_exclusive(wish: &PodWish, (transport, port): wish::Port) -> bool {
    wish.exclusive.contains(port, transport.into())
}

/// A set of ports as bits, 64 to a word, by their number by 64.
fn words(ports: &PortSet) -> BTreeMap<wish::Port, u64> {
    let mut words = BTreeMap::new();
    for range in ports.ranges() {
        let transport = match range.protocol {
            Protocol::Tcp => Transport::Tcp,
            Protocol::Udp => Transport::Udp,
            Protocol::Sctp => continue,
        };
        for port in range.first..=range.last {
            *words.entry((transport, port / 64)).or_default() |= 1 << (port % 64);
        }
    }
    words
}

fn flags(declared: bool, closed_v4: bool, closed_v6: bool) -> u32 {
    let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
    flag(declared, DECLARED) | flag(closed_v4, CLOSED_V4) | flag(closed_v6, CLOSED_V6)
}

fn key(bound: &Bound) -> wish::Port {
    (bound.transport, bound.address.port())
}

fn pod_key((transport, port): wish::Port) -> PodPortKey {
    PodPortKey { port, protocol: transport.number(), unused: 0 }
}

fn rules(wish: &PodWish, port: &Port) -> Rules {
    let none = Rules { balance: Balance::default(), hold: Duration::ZERO };
    port.service.as_ref().and_then(|service| wish.rules.get(service)).copied().unwrap_or(none)
}
