//! Brings the kernel's view of one pod up to date: which sockets its replicas listen on, and which of them get what.

mod listeners;
mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use super::{
    port::Port,
    project::{InKernel, Life},
    wish::{self, OtherUser, PodReport, PodWish, Rules, Stranger, Waiting},
};
use crate::{
    kernel::{
        KernelError, Netns,
        processes::Cgroup,
        quiet,
        raw::{GateKey, Notice, PortKey},
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
        let shut = kernel.shut_ports(number)?;
        let mut pod = Self {
            netns,
            diagnosis,
            number,
            ports: BTreeMap::new(),
            residents: BTreeMap::new(),
            sockets: BTreeMap::new(),
            sought: BTreeSet::new(),
            shut,
            other_users: BTreeMap::new(),
            counted: BTreeMap::new(),
        };
        pod.adopt(kernel, wish)?;
        kernel.guard(number, &pod.netns)?;
        Ok(pod)
    }

    /// Shuts what nobody listens on; what serves already goes on. What a supervisor before us has shut stays so until the
    /// choice among its listeners is ours: it may have been killed before it was.
    fn adopt(&mut self, kernel: &mut InKernel, wish: &PodWish) -> Result<(), KernelError> {
        let rows = self.diagnosis.rows()?;
        let (pod, shut) = (self.number, self.shut.clone());
        self.shut_all_but(kernel, wish, |port, v4| {
            let listens = rows.iter().any(|row| {
                key(&row.bound) == port && if v4 { row.bound.takes_v4() } else { row.bound.takes_v6() }
            });
            listens && !shut.contains(&gate(pod, port, v4))
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
        let waiting = self.attend(kernel, wish, &rows)?;
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
        rows: &[Row],
    ) -> Result<BTreeMap<u16, Waiting>, KernelError> {
        // Between the look at `rows` and a new table more may have come. As long as a table stays, those who come are
        // seen by the next look.
        let mut anew = false;
        for port in self.ports.values_mut() {
            anew |= port.take_written() && port.doors.iter().flatten().any(|door| door.hold.is_some());
        }
        let later = if anew { Some(self.diagnosis.rows()?) } else { None };
        let rows = later.as_deref().unwrap_or(rows);
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
        for port in &wish.declared {
            for v4 in [true, false] {
                if !is_open(*port, v4) {
                    wanted.insert(gate(self.number, *port, v4));
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

/// The gate of a port, for packets of IPv4 or of IPv6.
fn gate(pod: u32, (transport, port): wish::Port, v4: bool) -> GateKey {
    GateKey { pod, port, protocol: transport.number(), family: if v4 { AF_INET } else { AF_INET6 } }
}

fn key(bound: &Bound) -> wish::Port {
    (bound.transport, bound.address.port())
}

fn rules(wish: &PodWish, port: &Port) -> Rules {
    let none = Rules { balance: Balance::default(), hold: Duration::ZERO };
    wish.rules.get(&port.service).copied().unwrap_or(none)
}
