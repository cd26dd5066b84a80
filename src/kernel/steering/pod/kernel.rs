//! What a pod has in the kernel: its maps, and the places in them that are in use.

use std::{
    collections::BTreeMap,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::symlink,
    },
    path::PathBuf,
    time::Duration,
};

use super::pins;
use crate::{
    kernel::{
        KernelError, Netns, folders,
        kept::Kept,
        maps::{PodMaps, counts},
        programs::{PodPrograms, Programs, Room},
        raw::{
            Counts, ENDPOINTS, ENDPOINTS_OF_LARGE, Endpoint, LISTENERS, Listener, Notice, PodPortKey,
            PortEntry, ReplicaAddrKey, SERVICES, Table,
        },
        sockets::Transport,
        steering::{ids::Ids, project::InKernel},
    },
    spec::ServiceName,
};

/// Ports of a pod that nobody has declared, for which there is room in any case; some of them are kept for services to come.
const UNDECLARED: u32 = 56;
/// Of a pod with more declared ports there may be more replicas' parts in them than others have room for.
const FEW_PORTS: u32 = 16;
/// Flows of datagrams that are known of a pod which has declared a UDP port, and of any other.
const FLOWS: [u32; 2] = [65_536, 4096];

/// How the links that name services begin; the service's number follows.
const SERVICE: &str = "service_";

/// Connections that are open already end unseen where the host's maps know nothing of the pod: those that counted them are
/// gone.
fn forget_connections(maps: &mut PodMaps) -> Result<(), KernelError> {
    for endpoint in 0..maps.endpoints() {
        let counts = counts(&maps.counts, endpoint)?;
        if (counts.live, counts.unfinished, counts.expected) != (0, 0, 0) {
            let none = Counts { live: 0, unfinished: 0, expected: 0, ..counts };
            maps.counts.set(endpoint, none, 0).map_err(KernelError::bpf("forget connections"))?;
        }
    }
    Ok(())
}

/// A pod's maps and programs.
pub struct PodKernel {
    /// Cookie of its network.
    pub netns: u64,
    /// Where its maps are pinned.
    pub(super) folder: PathBuf,
    maps: PodMaps,
    pub(super) kept: Kept,
    programs: PodPrograms,
    pub(super) services: BTreeMap<String, u32>,
    port_ids: Ids,
    endpoint_ids: Ids,
    places: Ids,
    /// Ports that a supervisor before us entered.
    ports: BTreeMap<PodPortKey, PortEntry>,
    /// Listeners that a supervisor before us entered, by cookie, and that were not seen yet.
    left_behind: BTreeMap<u64, Listener>,
    /// Whether the host's maps knew nothing of the pod: if anything is left behind, they were made anew since.
    is_unknown: bool,
    /// Endpoints of replicas that are no more, with connections that are still open.
    lingering: Vec<u32>,
}

impl PodKernel {
    /// Takes over what is pinned for a pod, or begins.
    ///
    /// # Errors
    /// When the kernel cannot do it, or there are too many pods.
    pub fn open(
        kernel: &mut InKernel,
        netns: u64,
        declared: u32,
        has_udp: bool,
    ) -> Result<Self, KernelError> {
        // What is missing among what all share is had back first.
        kernel.look()?;
        let folder = kernel.pins.pod(netns);
        folders::make(kernel.pins.root(), &folder)?;
        let endpoints = if declared > FEW_PORTS { ENDPOINTS_OF_LARGE } else { ENDPOINTS };
        let found = pins::make_whole(kernel, &folder, netns)?;
        let room = Room {
            ports: (declared + UNDECLARED).next_multiple_of(64),
            endpoints: found.endpoints.unwrap_or(endpoints),
            flows: FLOWS[usize::from(!has_udp)],
        };
        let programs = kernel.load_pod(&folder, room)?;
        let kept = pins::keep(kernel, &folder)?;
        let mut maps = PodMaps::open(&folder, netns)?;
        let is_unknown = !kernel.host.maps.has_pod(netns);
        if is_unknown {
            forget_connections(&mut maps)?;
        }
        kernel.host.maps.add_pod(netns, &maps)?;
        let mut pod = Self {
            netns,
            services: services(&folder)?,
            kept,
            folder,
            programs,
            port_ids: Ids::new("ports that replicas listen on", maps.room_for_ports()),
            endpoint_ids: Ids::new("replicas on ports", maps.endpoints()),
            places: Ids::new("listeners", LISTENERS),
            maps,
            ports: BTreeMap::new(),
            left_behind: BTreeMap::new(),
            is_unknown,
            lingering: Vec::new(),
        };
        if found.only_counts {
            pod.leave_counts()?;
        }
        pod.restore()?;
        Ok(pod)
    }

    /// Reads which places are in use.
    fn restore(&mut self) -> Result<(), KernelError> {
        let fail = || KernelError::bpf("read what a supervisor before has left");
        for entry in self.maps.ports.iter() {
            let (key, port) = entry.map_err(fail())?;
            self.port_ids.mark(port.number);
            self.endpoint_ids.mark(port.hold);
            self.ports.insert(key, port);
        }
        for entry in self.maps.known.iter() {
            let (cookie, listener) = entry.map_err(fail())?;
            self.places.mark(listener.index);
            self.endpoint_ids.mark(listener.endpoint);
            self.left_behind.insert(cookie, listener);
        }
        for endpoint in 0..self.maps.endpoints() {
            if self.counts(endpoint)?.live > 0 && self.endpoint_ids.mark(endpoint) {
                self.lingering.push(endpoint);
            }
        }
        Ok(())
    }

    /// Takes no endpoint at which anything was counted: it is not known which listeners and connections count there.
    fn leave_counts(&mut self) -> Result<(), KernelError> {
        for endpoint in 0..self.maps.endpoints() {
            if self.counts(endpoint)? != Counts::default() {
                self.endpoint_ids.mark(endpoint);
            }
        }
        Ok(())
    }

    /// Gives the choice in the pod's network to this release's programs.
    ///
    /// # Errors
    /// When the kernel does not do it.
    pub fn attach(&mut self, netns: &Netns) -> Result<(), KernelError> {
        self.programs.attach(netns)?;
        self.kept.keep(&Programs::lookup_name())
    }

    /// Has connections of a socket's group that are to move on go where we say.
    ///
    /// # Errors
    /// When the socket is in no group.
    pub fn attach_to_group(&mut self, socket: impl AsFd) -> Result<(), KernelError> {
        self.programs.attach_to_group(socket)
    }

    /// A descriptor that can be read when there are notices.
    pub fn notices(&self) -> &(impl AsFd + use<>) {
        &self.maps.notices
    }

    /// The next notice.
    pub fn next_notice(&mut self) -> Option<Notice> {
        self.maps.notices.next().and_then(|bytes| Notice::parse(&bytes))
    }

    /// The number of a service in this pod, which stays the same as long as the pod is there.
    ///
    /// # Errors
    /// When there are too many.
    pub fn service(&mut self, name: &ServiceName) -> Result<u32, KernelError> {
        if let Some(number) = self.services.get(name.as_str()) {
            return Ok(*number);
        }
        let full = KernelError::Full { what: "services in a pod", most: SERVICES as usize };
        let free = (0..SERVICES).find(|number| !self.services.values().any(|used| used == number));
        let number = free.ok_or(full)?;
        let path = self.folder.join(name_of(number));
        symlink(name.as_str(), &path).map_err(KernelError::io(format!("make {}", path.display())))?;
        self.services.insert(name.as_str().to_owned(), number);
        Ok(number)
    }

    /// A port as a supervisor before us entered it.
    pub fn previous_port(&self, key: &PodPortKey) -> Option<PortEntry> {
        self.ports.get(key).copied()
    }

    /// Ports that a supervisor before us entered.
    pub fn previous_ports(&self) -> Vec<PodPortKey> {
        self.ports.keys().copied().collect()
    }

    /// How many more ports there is room for.
    pub fn free_ports(&self) -> usize {
        self.port_ids.free()
    }

    /// A number for a port, and the endpoint of connections that wait there.
    ///
    /// # Errors
    /// When there are too many.
    pub fn take_port(&mut self, key: &PodPortKey) -> Result<(u32, u32), KernelError> {
        if let Some(port) = self.ports.get(key) {
            return Ok((port.number, port.hold));
        }
        let hold = self.take_endpoint(Transport::Tcp)?;
        let number = self.port_ids.take().inspect_err(|_| self.endpoint_ids.give_back(hold))?;
        self.write_table(number, &Table::EMPTY)?;
        self.write_endpoint(hold, &Endpoint::EMPTY)?;
        Ok((number, hold))
    }

    /// Lets a port go: the kernel looks for its listeners as it does without us.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn drop_port(&mut self, key: &PodPortKey, number: u32, hold: u32) -> Result<(), KernelError> {
        let _ = self.maps.ports.remove(key);
        self.ports.remove(key);
        self.port_ids.give_back(number);
        self.retire(hold)
    }

    /// Writes where a port is listened on. From then on its connections are ours to give.
    ///
    /// # Errors
    /// When there are too many ports.
    pub fn write_port(&mut self, key: &PodPortKey, port: &PortEntry) -> Result<(), KernelError> {
        self.maps.ports.insert(key, port, 0).map_err(KernelError::bpf("enter a port"))?;
        self.ports.insert(*key, *port);
        Ok(())
    }

    /// A number for a replica's part in a port, with all counts at zero.
    ///
    /// # Errors
    /// When there are too many.
    pub fn take_endpoint(&mut self, transport: Transport) -> Result<u32, KernelError> {
        self.free_lingering()?;
        let number = self.endpoint_ids.take()?;
        // Flows of datagrams to whoever had the number before must not come to this one. Programs tell them apart by the
        // time, in ms, of which they keep 16 bits.
        let begun = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let begun = Duration::try_from(begun).unwrap_or_default().as_millis();
        let reset = match transport {
            Transport::Udp => u64::try_from(begun).unwrap_or(0),
            Transport::Tcp => 0,
        };
        let counts = Counts { reset, ..Counts::default() };
        self.maps.counts.set(number, counts, 0).map_err(KernelError::bpf("begin to count"))?;
        Ok(number)
    }

    /// An endpoint's replica is no more. Its number is free once its connections have ended.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn retire(&mut self, endpoint: u32) -> Result<(), KernelError> {
        self.write_endpoint(endpoint, &Endpoint::EMPTY)?;
        if !self.lingering.contains(&endpoint) {
            self.lingering.push(endpoint);
        }
        self.free_lingering()
    }

    fn free_lingering(&mut self) -> Result<(), KernelError> {
        let mut left = Vec::new();
        for endpoint in std::mem::take(&mut self.lingering) {
            if self.counts(endpoint)?.live > 0 {
                left.push(endpoint);
            } else {
                self.endpoint_ids.give_back(endpoint);
            }
        }
        self.lingering = left;
        Ok(())
    }

    /// A place in the map of sockets.
    ///
    /// # Errors
    /// When there are too many.
    pub fn take_place(&mut self) -> Result<u32, KernelError> {
        self.places.take()
    }

    /// How many more listeners there is room for.
    pub fn free_places(&self) -> usize {
        self.places.free()
    }

    /// Takes a place back that was not used.
    pub fn give_back_place(&mut self, index: u32) {
        self.places.give_back(index);
    }

    /// Enters a listener, so that it can be chosen.
    ///
    /// # Errors
    /// When the kernel does not take it: it was just closed.
    pub fn enter(
        &mut self,
        socket: &impl AsRawFd,
        cookie: u64,
        listener: Listener,
    ) -> Result<(), KernelError> {
        let fail = || KernelError::bpf("enter a listener");
        self.maps.known.insert(cookie, listener, 0).map_err(fail())?;
        self.maps.sockets.set(listener.index, socket, 0).map_err(fail()).inspect_err(|_| {
            // Nobody refers to it.
            let _ = self.maps.known.remove(&cookie);
        })
    }

    /// Enters a socket of our own that no replica's connections are counted at.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn enter_own(&mut self, socket: &impl AsRawFd, index: u32) -> Result<(), KernelError> {
        self.maps.sockets.set(index, socket, 0).map_err(KernelError::bpf("enter a listener of our own"))
    }

    /// What a supervisor before us entered a listener as.
    pub fn left_behind(&self, cookie: u64) -> Option<Listener> {
        self.left_behind.get(&cookie).copied()
    }

    /// Whether the host's maps have to be told again of what is left behind.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.is_unknown
    }

    /// A listener of a supervisor before us is ours from now on.
    pub fn inherit(&mut self, cookie: u64) {
        self.left_behind.remove(&cookie);
    }

    /// Lets go of all listeners of a port that a supervisor before us entered and that are no more. Returns whose they
    /// were.
    pub fn bury(&mut self, port: u32) -> Vec<u32> {
        let dead = self.left_behind.iter().filter(|(_, listener)| listener.port == port);
        let dead: Vec<_> = dead.map(|(cookie, listener)| (*cookie, *listener)).collect();
        for (cookie, listener) in &dead {
            self.left_behind.remove(cookie);
            self.forget(*cookie, listener.index);
        }
        dead.into_iter().map(|(_, listener)| listener.endpoint).collect()
    }

    /// Lets go of a listener. The kernel has taken a closed one out of the map already; one that is entered is taken out
    /// now.
    pub fn forget(&mut self, cookie: u64, index: u32) {
        // Both fail only when there is nothing (any more).
        let _ = self.maps.known.remove(&cookie);
        let _ = self.maps.sockets.clear_index(&index);
        self.places.give_back(index);
    }

    /// What was counted at an endpoint.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn counts(&self, endpoint: u32) -> Result<Counts, KernelError> {
        counts(&self.maps.counts, endpoint)
    }

    /// Writes how a replica is reached.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn write_endpoint(&mut self, number: u32, endpoint: &Endpoint) -> Result<(), KernelError> {
        self.maps.endpoints.set(number, endpoint, 0).map_err(KernelError::bpf("tell where a replica listens"))
    }

    /// Writes a table where nobody reads, and has everybody read it from then on.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn write_table(&mut self, port: u32, table: &Table) -> Result<(), KernelError> {
        let fail = || KernelError::bpf("tell who gets the connections of a port");
        let other = (self.maps.active.get(&port, 0).map_err(fail())? & 1) ^ 1;
        self.maps.tables.set(2 * port + other, table, 0).map_err(fail())?;
        self.maps.active.set(port, other, 0).map_err(fail())
    }

    /// Enters a replica under its own address, or takes it out.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn write_replica_addr(
        &mut self,
        key: ReplicaAddrKey,
        endpoint: Option<u32>,
    ) -> Result<(), KernelError> {
        match endpoint {
            Some(endpoint) => {
                self.maps.replica_addr.insert(key, endpoint, 0).map_err(KernelError::bpf("enter an address"))
            }
            None => {
                // There may be none.
                let _ = self.maps.replica_addr.remove(&key);
                Ok(())
            }
        }
    }
}

/// The name of the link that names a service.
pub(super) fn name_of(service: u32) -> String {
    format!("{SERVICE}{service}")
}

/// The numbers of services that a supervisor before us has given out.
fn services(folder: &std::path::Path) -> Result<BTreeMap<String, u32>, KernelError> {
    let fail = || KernelError::io(format!("read {}", folder.display()));
    let mut services = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(fail())? {
        let entry = entry.map_err(fail())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(number) = name.strip_prefix(SERVICE).and_then(|number| number.parse().ok()) {
            match fs::read_link(entry.path()) {
                Ok(service) => {
                    services.insert(service.to_string_lossy().into_owned(), number);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(fail()(error)),
            }
        }
    }
    Ok(services)
}
