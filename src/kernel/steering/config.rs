//! What is wanted of the kernel, and what it shows. Plain data: whoever decides needs no kernel to be tested.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    engine::ContainerId,
    kernel::{Counters, processes::Pulse, sockets::Transport},
    spec::{Balance, PodName, PortSet, Protocol, Service, ServiceName},
};

/// All pods of a project that there are; one that is not named is let go.
pub type SteeringConfigs = BTreeMap<PodName, SteeringConfig>;

/// A port of a pod.
pub type Port = (Transport, u16);

impl From<Transport> for Protocol {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::Tcp,
            Transport::Udp => Self::Udp,
        }
    }
}

/// What is wanted of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SteeringConfig {
    /// A process in its network, by which we get there: the sandbox's.
    pub pid: u32,
    /// Inode of its network namespace; another one is another pod.
    pub netns: u64,
    /// Ports that are known to be wanted: nobody is let in before we choose among their listeners.
    pub declared: BTreeSet<Port>,
    /// Ports that only one replica can hold at a time, of TCP and UDP.
    pub exclusive: PortSet,
    /// What its services want.
    pub rules: BTreeMap<ServiceName, Rules>,
    /// The replicas that run.
    pub replicas: Vec<ReplicaConfig>,
    /// The users as whom replicas of its services are about to begin, as far as that is certain. They get the ports of their
    /// services before they ask.
    pub coming: BTreeMap<ServiceName, u32>,
}

/// What a service wants of its ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// How a replica is chosen.
    pub balance: Balance,
    /// How long a connection waits while no replica is ready; zero: it is refused.
    pub hold: Duration,
    /// Whether ports that nobody has declared are for those who are ready alone, as declared ones are. Not before a replica has been
    /// ready for the first time: until then programs may have to be reached there to get ready.
    pub gates_undeclared: bool,
}

/// What is wanted of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaConfig {
    /// Its container.
    pub id: ContainerId,
    /// Its first process: another one is another life.
    pub pid: u32,
    /// Its service, whose rules are those of the ports that it listens on.
    pub service: ServiceName,
    /// Its slot: of what only listens on loopback, services of one pod reach that of their own slot first.
    pub slot: u32,
    /// By which it is reached alone, within the pod.
    pub address: Ipv4Addr,
    /// How much it shall get, compared with the others; 0: nothing new.
    pub weight: u32,
}

/// What the kernel shows of all pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// By name.
    pub pods: BTreeMap<PodName, PodReport>,
}

/// What the kernel shows of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodReport {
    /// Inode of the network namespace that this is about.
    pub netns: u64,
    /// Why its ports are not shared, or what cannot be done; none: all is well.
    pub error: Option<String>,
    /// Its replicas that run.
    pub replicas: BTreeMap<ContainerId, ReplicaReport>,
    /// Connections that wait until a replica is ready, by port.
    pub waiting: BTreeMap<u16, Waiting>,
    /// Sockets among those of the replicas that are nobody's: they get nothing.
    pub foreign_listeners: BTreeSet<ForeignListener>,
    /// Users who wanted, a short time ago, a port that another user shared. It is given to them, one after the other; until it is
    /// theirs they get `EADDRINUSE`.
    pub other_users: BTreeMap<u16, OtherUser>,
    /// The same by replica, as far as it is known which one it was.
    pub port_requests: BTreeMap<ContainerId, OtherUser>,
    /// Users to whom a port could not be given, since some of its sockets are out of reach.
    pub refused_users: BTreeMap<u16, OtherUser>,
    /// By replica: ports that are exclusive, that another replica holds, and that it wanted.
    pub exclusive_conflicts: BTreeMap<ContainerId, BTreeSet<Port>>,
    /// Who has tried to attach a program that chooses among the listeners of a port, or to detach ours, and at which port
    /// first; none: a process that is no replica's. It had no effect.
    pub ignored_programs: BTreeMap<Option<ContainerId>, Port>,
    /// By replica: how many listeners it has beyond those that there is room for. The kernel spreads their connections
    /// without regard to readiness. Who has had some stays here, with 0.
    pub unsteered: BTreeMap<ContainerId, u64>,
    /// How many files the supervisor may open, if these are too few for connections to wait at all ports.
    pub too_few_files: Option<u64>,
    /// Connections that came while nobody could take them, and that could not wait: they were refused.
    pub refused: u64,
    /// What the kernel itself has counted there; none where it cannot be read.
    pub counters: Option<Counters>,
}

/// What the kernel shows of a replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaReport {
    /// Its first process.
    pub pid: u32,
    /// By which it is reached alone now. It is another one for a moment after it has taken the place of another replica.
    pub address: Option<Ipv4Addr>,
    /// The weight that is in force.
    pub weight: u32,
    /// Ports that it listens on.
    pub ports: BTreeMap<Port, Traffic>,
    /// What its processes do, as long as connections wait for it, or it has some and gets no more.
    pub pulse: Option<Pulse>,
}

impl ReplicaReport {
    /// Whether it listens on any port.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.ports.values().any(|traffic| traffic.listens)
    }

    /// Whether it listens on that port.
    #[must_use]
    pub fn listens_on(&self, port: &Port) -> bool {
        self.ports.get(port).is_some_and(|traffic| traffic.listens)
    }
}

/// Of which family packets may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv4 or IPv6.
    Any,
}

/// What goes on at a replica's listeners on one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections that are open now. Of UDP, while the replica gets no new flows: its sockets for one client each.
    pub live: u64,
    /// Those of them that the replica itself has not ended yet: what the choice by least connections goes by, beside those
    /// that are being opened.
    pub unfinished: u64,
    /// Connections so far; of UDP, flows.
    pub total: u64,
    /// Connections that it has not accepted yet.
    pub queue: u64,
    /// Connections that were reset so far: by a reset of either side, or because the client was heard of no
    /// more. Those to the replica's own address do not count: a probe goes when it has waited for long enough.
    pub reset: u64,
    /// Handshakes that the queues of its listeners had no room for.
    pub overflowed: u64,
    /// Connections that it has accepted so far. It may be some fewer than it says here, if connections of others have
    /// moved here.
    pub accepted: u64,
    /// Whether it listens. Who does no longer may still have connections to finish.
    pub listens: bool,
    /// An address that it listens at, if IPv4 from outside of its pod reaches it nowhere: a loopback address, or one of IPv6
    /// alone, and that rather.
    pub only_at: Option<IpAddr>,
    /// Of UDP, while the replica gets no new flows: for how long no datagram has come to it, in whole seconds, up to
    /// [`crate::spec::Service::UDP_IDLE`]. None: none ever came.
    pub udp_idle: Option<Duration>,
    /// Whether the choice among its listeners is ours. If not, the program opened the port for itself alone.
    pub shared: bool,
}

impl Traffic {
    /// Whether it listens where packets of that family from outside of its pod arrive.
    #[must_use]
    pub fn is_reached_by(&self, family: Family) -> bool {
        let is_open = |at: IpAddr| family == Family::Any && at.is_ipv6() && !at.is_loopback();
        self.listens && self.only_at.is_none_or(is_open)
    }

    /// Whether there may be flows of datagrams that go on.
    #[must_use]
    pub fn has_flows(&self) -> bool {
        self.udp_idle.is_some_and(|idle| idle < Service::UDP_IDLE)
    }
}

/// Connections that wait until a replica is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How many.
    pub connections: u64,
    /// How many can; more are refused.
    pub most: u64,
}

/// A socket on a port of the replicas' that is nobody's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ForeignListener {
    /// On which port.
    pub port: u16,
    /// None: it is in a group of the replicas', and gets nothing. Else it listens on an address of its own, and the kernel
    /// gives it what is sent to that.
    #[serde(default)]
    pub takes: Option<SocketAddr>,
    /// Its process, if it is still there.
    pub pid: Option<u32>,
    /// The process's name.
    pub command: String,
}

/// A replica wanted a port that another user shares: the kernel lets only sockets of one user share a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherUser {
    /// The port.
    pub port: u16,
    /// Who wanted it.
    pub user: u32,
    /// Who has it.
    pub owner: u32,
}
