//! Brings the kernel's view of one pod up to date: which sockets its replicas listen on, and which of them get what.

mod declared;
mod handover;
mod kernel;
mod listeners;
mod lost_addresses;
mod notices;
mod pins;
mod ports;
mod report;
mod residents;
mod room;
mod sockets;

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    config::{self, OtherUser, PodReport, SteeringConfig},
    hold,
    pace::Allowance,
    port::Port,
    project::{InKernel, Life},
    silence::Silence,
    turns::Turns,
};
use crate::{
    engine::ContainerId,
    kernel::{
        KernelError, Netns,
        netns::AddressWatch,
        previous_layout::PreviousLayout,
        processes::{Handle, Search},
        sockets::{Diagnosis, Transport},
    },
    spec::PortSet,
};

use declared::{is_exclusive, steered};
use lost_addresses::LostAddresses;
use ports::{flags, key, pod_key, rules};
use residents::Resident;
use sockets::{Entered, Socket};

pub use kernel::PodKernel;
pub use sockets::NextLook;

/// A pod, as far as the kernel is told of it.
pub struct Pod {
    netns: Netns,
    diagnosis: Diagnosis,
    kernel: PodKernel,
    /// What a release of another layout has left of it.
    previous_layout: Option<Arc<PreviousLayout>>,
    /// For ports that nobody listens on yet; none if it could not be opened.
    silence: Option<Silence>,
    declared: BTreeSet<config::Port>,
    exclusive: PortSet,
    ports: BTreeMap<config::Port, Port>,
    residents: BTreeMap<Life, Resident>,
    /// What is known of each socket, by cookie.
    sockets: BTreeMap<u64, Socket>,
    /// Sockets, by cookie, whose owner was looked for among all groups.
    sought: BTreeSet<u64>,
    /// By port: who of another user wanted it last, and when.
    other_users: BTreeMap<u16, (OtherUser, Instant)>,
    /// By replica: the port of another user that it wanted last.
    port_requests: BTreeMap<ContainerId, OtherUser>,
    /// The same of control groups that we were not told of yet.
    early_requests: Vec<(u64, OtherUser)>,
    /// By port: to whom it could not be given.
    refused_users: BTreeMap<u16, OtherUser>,
    /// Users who want ports, and those whose turn it is.
    turns: BTreeMap<config::Port, Turns>,
    /// When there is something to do for those.
    turns_due: NextLook,
    /// The listeners that are entered, by cookie, as far as there are descriptors for that.
    handles: BTreeMap<u64, Handle>,
    /// Searches for sockets that are to be given to another user.
    givers: BTreeMap<Life, Search>,
    /// How long that has taken so far.
    searched: Duration,
    /// By replica: ports that another one holds alone, and that it wanted.
    exclusive_conflicts: BTreeMap<ContainerId, BTreeSet<config::Port>>,
    /// The same of control groups that we were not told of yet: a replica may ask before.
    early_conflicts: Vec<(u64, config::Port)>,
    /// By control group: the port at which it first tried to choose who gets connections, and when.
    choosers: BTreeMap<u64, (config::Port, Instant)>,
    /// Replicas that have, or had, more listeners than there was room for.
    crowded: BTreeSet<ContainerId>,
    /// How many listeners on undeclared ports each replica has for itself alone, while new ones are looked at.
    unshared: BTreeMap<Life, usize>,
    /// Whether connections cannot wait at some ports because we may open too few files.
    is_short_of_files: bool,
    /// What was counted at each endpoint at the last look.
    counted: BTreeMap<u32, u64>,
    addresses: AddressWatch,
    /// Whether they are to be looked at anew.
    addresses_changed: bool,
    lost_addresses: LostAddresses,
    /// When it was told, since the last look, that a control group listens on a declared port.
    told: BTreeMap<(u64, config::Port), Instant>,
    /// Whose listeners do not wait for the next look; none: it is not known whose they are.
    payers: BTreeSet<Option<Life>>,
    /// Whose did not wait for this one.
    paying: BTreeSet<Option<Life>>,
    /// What they may use for that of whom it is not known who they are.
    unknown_allowance: Allowance,
    /// Ports that are no source ports of the network any more; none before that was seen to.
    reserved: Option<BTreeSet<u16>>,
    /// Whether there are sockets that were not looked at yet.
    is_behind: bool,
    /// The processor time of this thread up to which new sockets are looked at; none: until there are no more.
    deadline: Option<Duration>,
    /// Whether groups of replicas were looked for in this look.
    refreshed_groups: bool,
    /// Inodes of the sockets that are looked at.
    wanted: BTreeSet<u64>,
    /// Those whose descriptors are too many to be looked at at once.
    searches: BTreeMap<Life, Search>,
    next_look: NextLook,
    /// Whether it was looked at what there is.
    has_looked: bool,
    /// When each socket was seen first, by cookie.
    first_seen: BTreeMap<u64, Instant>,
}

impl Pod {
    /// Enters a pod: from now on every port that is opened in it is shared, and those that are known to be wanted are
    /// closed until there is somebody to choose among.
    ///
    /// # Errors
    /// When its network is gone, or we may not.
    pub fn open(kernel: &mut InKernel, config: &SteeringConfig) -> Result<Self, KernelError> {
        let netns = Netns::of(config.pid)?;
        if netns.inode != config.netns {
            return Err(KernelError::Gone { what: "the pod's network".to_owned() });
        }
        let diagnosis = Diagnosis::of(&netns)?;
        let declared = u32::try_from(steered(config).count()).unwrap_or(u32::MAX);
        let has_udp = steered(config).any(|(transport, _)| transport == Transport::Udp);
        let in_pod = PodKernel::open(kernel, diagnosis.cookie, declared, has_udp)?;
        let mut pod = Self {
            previous_layout: PreviousLayout::open(kernel.pins.path(), diagnosis.cookie)?.map(Arc::new),
            addresses: AddressWatch::of(&netns)?,
            netns,
            diagnosis,
            kernel: in_pod,
            silence: None,
            declared: BTreeSet::new(),
            exclusive: PortSet::default(),
            ports: BTreeMap::new(),
            residents: BTreeMap::new(),
            sockets: BTreeMap::new(),
            sought: BTreeSet::new(),
            other_users: BTreeMap::new(),
            port_requests: BTreeMap::new(),
            early_requests: Vec::new(),
            refused_users: BTreeMap::new(),
            turns: BTreeMap::new(),
            turns_due: NextLook::default(),
            handles: BTreeMap::new(),
            givers: BTreeMap::new(),
            searched: Duration::ZERO,
            exclusive_conflicts: BTreeMap::new(),
            early_conflicts: Vec::new(),
            choosers: BTreeMap::new(),
            crowded: BTreeSet::new(),
            unshared: BTreeMap::new(),
            is_short_of_files: false,
            reserved: None,
            counted: BTreeMap::new(),
            addresses_changed: false,
            lost_addresses: LostAddresses::default(),
            told: BTreeMap::new(),
            payers: BTreeSet::new(),
            paying: BTreeSet::new(),
            unknown_allowance: residents::allowance(),
            is_behind: false,
            deadline: None,
            refreshed_groups: false,
            searches: BTreeMap::new(),
            wanted: BTreeSet::new(),
            next_look: NextLook::default(),
            has_looked: false,
            first_seen: BTreeMap::new(),
        };
        pod.look_at_addresses(&mut kernel.host)?;
        pod.open_silence();
        pod.adopt(kernel, config)?;
        pod.kernel.attach(&pod.netns)?;
        if let Some(previous_layout) = &pod.previous_layout {
            previous_layout.detach()?;
        }
        Ok(pod)
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
    pub fn update(
        &mut self,
        kernel: &mut InKernel,
        config: &SteeringConfig,
    ) -> Result<PodReport, KernelError> {
        self.paying = std::mem::take(&mut self.payers);
        let ceiling = hold::ceiling();
        self.handles.retain(|_, handle| hold::number(handle.file()) < ceiling);
        self.settle(kernel, config)?;
        self.declare(&mut kernel.host, config)?;
        if self.addresses_changed || self.addresses.has_changed() {
            self.look_at_addresses(&mut kernel.host)?;
        }
        self.end_connections_of_lost_addresses();
        let totals = self.totals()?;
        let rows = self.diagnosis.rows()?;
        self.forget_closed(kernel, &rows)?;
        self.see_arrivals(&rows);
        self.expect(&kernel.host, config);
        let error = self.meet_all(kernel, config, &rows);
        self.let_go_of_the_dead(kernel)?;
        self.write(kernel, config)?;
        self.close_all_but_served(config)?;
        self.reserve_ports(config);
        let waiting = self.attend(kernel, config, &rows)?;
        self.release_previous()?;
        let connected = self.connected_udp()?;
        let report = self.report(config, &totals, &rows, &connected, waiting, error);
        self.counted = totals;
        report
    }

    /// Lets go of what a release of another layout has left, once nothing of it is in use.
    fn release_previous(&mut self) -> Result<(), KernelError> {
        let Some(previous_layout) = &self.previous_layout else { return Ok(()) };
        if !self.is_behind && previous_layout.is_idle()? {
            // What it has counted so far stays in the totals only as long as it is there: they begin anew.
            self.previous_layout = None;
            for part in self.ports.values_mut().flat_map(|port| port.endpoints.values_mut()) {
                part.previous_layout = None;
            }
        }
        Ok(())
    }

    /// Whether something of a release of another layout is in use.
    pub fn has_previous(&self) -> bool {
        self.previous_layout.is_some()
    }

    /// When a look finds out something, of whatever nobody tells.
    pub fn take_next_look(&mut self) -> NextLook {
        std::mem::take(&mut self.next_look).or(std::mem::take(&mut self.turns_due))
    }
}
