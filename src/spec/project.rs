//! A project: one Compose file's worth of services.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    Ipc, Network, NetworkKey, Pod, PodName, PortSet, Probe, ProjectName, Protocol, Service, ServiceName,
    Services, Sharing, Slot, Volume, VolumeKey,
};

/// The second byte of the addresses of single replicas of a pod's first service.
const OWN_FIRST: u8 = 77;
/// The bit of the third byte that successors have.
const REPLACEMENTS: u8 = 0x80;
/// How many services of a pod have such addresses.
const OWN_NETWORKS: u8 = 32;

/// All that one supervisor keeps alive.
///
/// Holds, once `compose` made it: every service's pod is in `pods`, every pod has a service, every
/// network of a pod and every named volume of a service is in `networks` and `volumes`, and `depends_on` has no
/// cycle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// Its name.
    pub name: ProjectName,
    /// By name.
    pub services: Services,
    /// By name.
    pub pods: BTreeMap<PodName, Pod>,
    /// By key; only those that a pod uses.
    pub networks: BTreeMap<NetworkKey, Network>,
    /// By key; only those that a service uses.
    pub volumes: BTreeMap<VolumeKey, Volume>,
}

impl Project {
    /// A project without services.
    #[must_use]
    pub fn empty(name: ProjectName) -> Self {
        Self {
            name,
            services: Services::default(),
            pods: BTreeMap::new(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
        }
    }

    /// Whether the kernel may share a pod's ports: no service of it is against it, and they are its own.
    #[must_use]
    pub fn wants_kernel(&self, pod: &PodName) -> bool {
        let has_own_ports = self.pods.get(pod).is_some_and(Pod::has_sandbox);
        has_own_ports && self.services_of(pod).all(|service| service.sharing != Sharing::Application)
    }

    /// Whether a service of the pod is for nothing if the kernel does not share its ports.
    #[must_use]
    pub fn needs_kernel(&self, pod: &PodName) -> bool {
        self.services_of(pod).any(|service| service.sharing == Sharing::Kernel)
    }

    /// Ports of a pod that only one of its replicas can hold at a time: those of all of its services, without those that
    /// one of them declares as shared. The pod has one set of ports, so they cannot be exclusive for one service and
    /// shared for another.
    #[must_use]
    pub fn exclusive_ports(&self, pod: &PodName) -> PortSet {
        let of = |ports: fn(&Service) -> &PortSet| -> PortSet {
            self.services_of(pod).flat_map(|service| ports(service).ranges()).collect()
        };
        of(|service| &service.exclusive_ports).without(&of(|service| &service.shared_ports))
    }

    /// The first and the last address that a replica can have of its own in a pod.
    pub const OWN_ADDRESSES: (Ipv4Addr, Ipv4Addr) =
        (Ipv4Addr::new(127, OWN_FIRST, 0, 0), Ipv4Addr::new(127, OWN_FIRST + OWN_NETWORKS - 1, 255, 255));

    /// The address on which a replica is reached alone, from inside its pod: 127.77.0.1 is the first one of a pod's
    /// first service, 127.78.0.1 of its second. None beyond the 32nd service.
    #[must_use]
    pub fn own_address(&self, service: &Service, slot: Slot) -> Option<Ipv4Addr> {
        let place = self.services_of(&service.pod).position(|other| other.name == service.name)?;
        let place = u8::try_from(place).ok().filter(|place| *place < OWN_NETWORKS)?;
        let [high, low] = u16::try_from(slot.number()).ok()?.to_be_bytes();
        Some(Ipv4Addr::new(127, OWN_FIRST + place, high, low))
    }

    /// The address of a replica that is to take the place of the one in its slot, as long as both are there.
    #[must_use]
    pub fn replacement_address(&self, service: &Service, slot: Slot) -> Option<Ipv4Addr> {
        // Slots are far fewer than would fill the upper half.
        let [a, b, high, low] = self.own_address(service, slot)?.octets();
        (high < REPLACEMENTS).then_some(Ipv4Addr::new(a, b, high | REPLACEMENTS, low))
    }

    /// The port on which replicas of a service are probed: the one that the file names, or the only TCP port that its
    /// service publishes, or else the only one that its pod exposes.
    #[must_use]
    pub fn probe_port(&self, service: &Service, probe: &Probe) -> Option<u16> {
        let only = |ports: BTreeSet<u16>| if ports.len() == 1 { ports.first().copied() } else { None };
        let tcp = |(port, protocol): (u16, Protocol)| (protocol == Protocol::Tcp).then_some(port);
        let pod = self.pods.get(&service.pod)?;
        probe
            .port
            .or_else(|| only(pod.published_by(&service.name).filter_map(tcp).collect()))
            .or_else(|| only(pod.expose.iter().copied().filter_map(tcp).collect()))
    }

    /// Whether the file declares a port of that protocol for a service: published by it, or exposed by its pod.
    #[must_use]
    pub fn serves(&self, service: &Service, protocol: Protocol) -> bool {
        self.pods.get(&service.pod).is_some_and(|pod| {
            let mut ports = pod.published_by(&service.name).chain(pod.expose.iter().copied());
            ports.any(|(_, of)| of == protocol)
        })
    }

    /// The name of the container in `slot` of `service`.
    #[must_use]
    pub fn replica_name(&self, service: &Service, slot: Slot) -> String {
        match &service.container_name {
            Some(name) => name.clone(),
            None => format!("{}-{}-{slot}", self.name, service.name),
        }
    }

    /// The name of a container that is to take the place of the one in `slot`, as long as both are there.
    #[must_use]
    pub fn replacement_name(&self, service: &Service, slot: Slot) -> String {
        format!("{}-next", self.replica_name(service, slot))
    }

    /// The engine's name of the volume that replicas in a slot have at a path, one after the other, where neither the file nor
    /// the image names one: the project's and the service's, the slot, the last part of the path, and some of its hash.
    #[must_use]
    pub fn slot_volume(&self, service: &Service, slot: Slot, target: &str) -> String {
        let last = target.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let last: String =
            last.chars().filter(|c| c.is_ascii_alphanumeric() || "_-".contains(*c)).take(32).collect();
        let hash: String = Sha256::digest(target).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        format!("{}_{}-{slot}_{last}-{hash}", self.name, service.name)
    }

    /// Whether that is the name of a [`Self::slot_volume`] of a slot, whatever the path.
    #[must_use]
    pub fn is_slot_volume(&self, service: &ServiceName, slot: Slot, name: &str) -> bool {
        let of_slot = format!("{}_{service}-{slot}_", self.name);
        let hash = name.strip_prefix(&of_slot).and_then(|rest| Some(rest.rsplit_once('-')?.1));
        hash.is_some_and(|hash| hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
            && !self.volumes.values().any(|volume| volume.name == name)
    }

    /// The name of the container that holds the namespaces of `pod`.
    #[must_use]
    pub fn sandbox_name(&self, pod: &PodName) -> String {
        format!("{}-{pod}-sandbox", self.name)
    }

    /// The name of the container of the job before a new version of `service`.
    #[must_use]
    pub fn pre_deploy_name(&self, service: &ServiceName) -> String {
        format!("{}-{service}-before", self.name)
    }

    /// In which IPC namespace replicas of a service are.
    #[must_use]
    pub fn ipc(&self, service: &Service) -> Ipc {
        let default = if self.has_own_name(&service.pod) { Ipc::Pod } else { Ipc::Own };
        service.container.ipc.unwrap_or(default)
    }

    /// Whether a pod is named in the file, and not after a service whose network others join.
    fn has_own_name(&self, pod: &PodName) -> bool {
        self.services.keys().all(|service| PodName::from(service) != *pod)
    }

    /// The services whose replicas are in `pod`.
    pub fn services_of<'a>(&'a self, pod: &PodName) -> impl Iterator<Item = &'a Service> + Clone + use<'a> {
        self.services.of(pod)
    }
}
