//! What a project has in the kernel: its maps and the places in them that are in use.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd},
};

use aya::Ebpf;

use super::numbers::Numbers;
use crate::{
    engine::ContainerId,
    kernel::{
        KernelError, Netns, Pins, layout,
        maps::{Maps, counts},
        programs::{Programs, flows_name},
        raw::{
            Counts, DOORS, ENDPOINTS, Endpoint, GateKey, LISTENERS, Listener, Notice, OwnKey, PODS, PORTS,
            PortKey, Table, Tag,
        },
    },
};

/// One life of a replica: its container, and the process that runs in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life {
    /// Its container.
    pub id: ContainerId,
    /// Its first process.
    pub pid: u32,
}

/// What a project has in the kernel.
pub struct InKernel {
    pins: Pins,
    maps: Maps,
    programs: Programs,
    /// Only as long as this lives are programs of the hooks ours to look at; they run without it.
    _hooks: Ebpf,
    pod_numbers: Numbers,
    port_numbers: Numbers,
    endpoint_numbers: Numbers,
    places: Numbers,
    /// Listeners that a supervisor before us entered, by cookie, and that were not seen yet.
    left_behind: BTreeMap<u64, Listener>,
    /// Endpoints of replicas that are no more, with connections that are still open.
    lingering: Vec<u32>,
}

impl InKernel {
    /// Takes over what is pinned for the project, or begins.
    ///
    /// # Errors
    /// When the kernel cannot do it, or we may not, or a map has another layout.
    pub fn open(pins: Pins) -> Result<Self, KernelError> {
        layout::check_maps(pins.path())?;
        let mut programs = Programs::new(pins.path());
        let mut hooks = programs.hook(&pins)?;
        let maps = Maps::new(&mut hooks, pins.path())?;
        let mut kernel = Self {
            pins,
            maps,
            programs,
            _hooks: hooks,
            pod_numbers: Numbers::new("pods", PODS),
            port_numbers: Numbers::new("ports that replicas listen on", PORTS),
            endpoint_numbers: Numbers::new("replicas on ports", ENDPOINTS),
            places: Numbers::new("listeners", LISTENERS),
            left_behind: BTreeMap::new(),
            lingering: Vec::new(),
        };
        kernel.recall()?;
        Ok(kernel)
    }

    /// Reads which places are in use.
    fn recall(&mut self) -> Result<(), KernelError> {
        let fail = || KernelError::bpf("read what a supervisor before has left");
        for entry in self.maps.pods.iter() {
            let (_, number) = entry.map_err(fail())?;
            self.pod_numbers.mark(number);
        }
        for entry in self.maps.ports.iter() {
            let (_, number) = entry.map_err(fail())?;
            self.port_numbers.mark(number);
        }
        for entry in self.maps.known.iter() {
            let (cookie, listener) = entry.map_err(fail())?;
            self.places.mark(listener.index);
            if listener.endpoint < ENDPOINTS {
                self.endpoint_numbers.mark(listener.endpoint);
            }
            self.left_behind.insert(cookie, listener);
        }
        for endpoint in 0..ENDPOINTS {
            if self.counts(endpoint)?.live > 0 && self.endpoint_numbers.mark(endpoint) {
                self.lingering.push(endpoint);
            }
        }
        Ok(())
    }

    /// A loader of programs for this project.
    pub fn programs(&mut self) -> &mut Programs {
        &mut self.programs
    }

    /// Puts a pod's gate into its network, in place of one that is there.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn guard(&mut self, pod: u32, netns: &Netns) -> Result<(), KernelError> {
        self.programs.guard(&self.pins, pod, netns)
    }

    /// The project's pins.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// A descriptor that can be read when there are notices.
    pub fn notices(&self) -> &(impl AsFd + use<>) {
        &self.maps.notices
    }

    /// The next notice.
    pub fn next_notice(&mut self) -> Option<Notice> {
        self.maps.notices.next().and_then(|bytes| Notice::parse(&bytes))
    }

    /// The number of the pod with that network, which from now on is one of ours.
    ///
    /// # Errors
    /// When there are too many.
    pub fn take_pod(&mut self, netns: u64) -> Result<u32, KernelError> {
        if let Ok(number) = self.maps.pods.get(&netns, 0) {
            return Ok(number);
        }
        let number = self.pod_numbers.take()?;
        self.maps.pods.insert(netns, number, 0).map_err(KernelError::bpf("enter a pod"))?;
        Ok(number)
    }

    /// Networks that a supervisor before us has entered.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn pods(&self) -> Result<Vec<(u64, u32)>, KernelError> {
        self.maps.pods.iter().collect::<Result<_, _>>().map_err(KernelError::bpf("list pods"))
    }

    /// Lets a pod go: its ports are no longer shared, and nothing is chosen there.
    ///
    /// # Errors
    /// When the kernel does not let something go.
    pub fn drop_pod(&mut self, netns: u64, number: u32) -> Result<(), KernelError> {
        let fail = || KernelError::bpf("let go of a pod");
        self.maps.pods.remove(&netns).map_err(fail())?;
        self.pod_numbers.give_back(number);
        let ports: Vec<(PortKey, u32)> =
            self.maps.ports.iter().collect::<Result<Vec<_>, _>>().map_err(fail())?;
        for (key, port) in ports.into_iter().filter(|(key, _)| key.netns == netns) {
            self.drop_port(key, port)?;
        }
        for key in self.shut_ports(number)? {
            self.write_gate(key, false)?;
        }
        self.pins.release(&format!("link_gate_{number}"))
    }

    fn drop_port(&mut self, key: PortKey, port: u32) -> Result<(), KernelError> {
        let fail = || KernelError::bpf("let go of a port");
        self.write_table(port, &Table::EMPTY)?;
        let known: Vec<(u64, Listener)> =
            self.maps.known.iter().collect::<Result<Vec<_>, _>>().map_err(fail())?;
        for (cookie, listener) in known.into_iter().filter(|(_, listener)| listener.port == port) {
            self.left_behind.remove(&cookie);
            self.forget(cookie, listener.index);
            self.retire(listener.endpoint)?;
        }
        let own: Vec<OwnKey> = self.maps.own.keys().collect::<Result<Vec<_>, _>>().map_err(fail())?;
        for key in own.into_iter().filter(|key| key.port == port) {
            self.write_own(key, None)?;
        }
        if self.maps.users.get(&key, 0).is_ok() {
            self.maps.users.remove(&key).map_err(fail())?;
        }
        for door in (0_u32..).take(DOORS) {
            self.pins.release(&flows_name(port, door))?;
        }
        self.maps.ports.remove(&key).map_err(fail())?;
        self.port_numbers.give_back(port);
        Ok(())
    }

    /// The number of a port; whether it is new.
    ///
    /// # Errors
    /// When there are too many.
    pub fn take_port(&mut self, key: PortKey) -> Result<u32, KernelError> {
        if let Ok(number) = self.maps.ports.get(&key, 0) {
            return Ok(number);
        }
        let number = self.port_numbers.take()?;
        self.write_table(number, &Table::EMPTY)?;
        self.maps.ports.insert(key, number, 0).map_err(KernelError::bpf("enter a port"))?;
        Ok(number)
    }

    /// A number for a replica's part in a port, with all counts at zero.
    ///
    /// # Errors
    /// When there are too many.
    pub fn take_endpoint(&mut self) -> Result<u32, KernelError> {
        self.free_lingering()?;
        let number = self.endpoint_numbers.take()?;
        self.maps.counts.set(number, Counts::default(), 0).map_err(KernelError::bpf("begin to count"))?;
        Ok(number)
    }

    /// An endpoint's replica is no more. Its number is free once its connections have ended.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn retire(&mut self, endpoint: u32) -> Result<(), KernelError> {
        if endpoint < ENDPOINTS {
            self.write_endpoint(endpoint, &Endpoint::EMPTY)?;
            if !self.lingering.contains(&endpoint) {
                self.lingering.push(endpoint);
            }
            self.free_lingering()?;
        }
        Ok(())
    }

    fn free_lingering(&mut self) -> Result<(), KernelError> {
        let mut left = Vec::new();
        for endpoint in std::mem::take(&mut self.lingering) {
            if self.counts(endpoint)?.live > 0 {
                left.push(endpoint);
            } else {
                self.endpoint_numbers.give_back(endpoint);
            }
        }
        self.lingering = left;
        Ok(())
    }

    /// A place in the array of sockets.
    ///
    /// # Errors
    /// When there are too many.
    pub fn take_place(&mut self) -> Result<u32, KernelError> {
        self.places.take()
    }

    /// Takes a place back that was not used.
    pub fn give_back_place(&mut self, index: u32) {
        self.places.give_back(index);
    }

    /// Enters a listener, so that it can be chosen and its connections are counted.
    ///
    /// # Errors
    /// When the kernel does not take it: it shares its port with nobody, or was just closed.
    pub fn enter(
        &mut self,
        socket: &impl AsRawFd,
        cookie: u64,
        index: u32,
        endpoint: u32,
        port: u32,
        door: usize,
    ) -> Result<(), KernelError> {
        let fail = || KernelError::bpf("enter a listener");
        let listener = Listener { index, endpoint, port, door: u32::try_from(door).unwrap_or(0) };
        // Once it can be chosen, its connections are to be counted from the first one on.
        self.maps.tags.insert(socket, Tag { endpoint, ..Tag::default() }, 0).map_err(fail())?;
        self.maps.known.insert(cookie, listener, 0).map_err(fail())?;
        self.maps.sockets.set(index, socket, 0).map_err(fail()).inspect_err(|_| {
            // Nobody refers to it.
            let _ = self.maps.known.remove(&cookie);
        })
    }

    /// What a supervisor before us entered a listener as.
    pub fn left_behind(&self, cookie: u64) -> Option<Listener> {
        self.left_behind.get(&cookie).copied()
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

    /// Lets go of a listener. The kernel has taken a closed one out of the array already; one that is entered is
    /// taken out now.
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
        let turn = (self.maps.turns.get(&port, 0).map_err(fail())? & 1) ^ 1;
        self.maps.tables.set(2 * port + turn, table, 0).map_err(fail())?;
        self.maps.turns.set(port, turn, 0).map_err(fail())
    }

    /// Enters a replica under its own address, or takes it out.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn write_own(&mut self, key: OwnKey, endpoint: Option<u32>) -> Result<(), KernelError> {
        match endpoint {
            Some(endpoint) => {
                self.maps.own.insert(key, endpoint, 0).map_err(KernelError::bpf("enter an address"))
            }
            None => {
                // There may be none.
                let _ = self.maps.own.remove(&key);
                Ok(())
            }
        }
    }

    /// Enters the address of a replica for its control group, or takes it out.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn write_home(&mut self, cgroup: u64, address: Option<Ipv4Addr>) -> Result<(), KernelError> {
        match address {
            Some(address) => self
                .maps
                .homes
                .insert(cgroup, address.to_bits(), 0)
                .map_err(KernelError::bpf("enter a replica")),
            None => {
                // There may be none.
                let _ = self.maps.homes.remove(&cgroup);
                Ok(())
            }
        }
    }

    /// Enters the user who shares a port.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn write_user(&mut self, key: PortKey, user: u32) -> Result<(), KernelError> {
        self.maps.users.insert(key, user, 0).map_err(KernelError::bpf("enter who shares a port"))
    }

    /// The user who shares a port.
    pub fn user(&self, key: &PortKey) -> Option<u32> {
        self.maps.users.get(key, 0).ok()
    }

    /// Ports of a pod that are shut.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn shut_ports(&self, pod: u32) -> Result<BTreeSet<GateKey>, KernelError> {
        let all = self.maps.shut.keys().collect::<Result<Vec<_>, _>>();
        let all = all.map_err(KernelError::bpf("list the ports that are shut"))?;
        Ok(all.into_iter().filter(|key| key.pod == pod).collect())
    }

    /// Shuts a port for one family of packets, or opens it.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn write_gate(&mut self, key: GateKey, shut: bool) -> Result<(), KernelError> {
        if shut {
            return self.maps.shut.insert(key, 1, 0).map_err(KernelError::bpf("shut a port"));
        }
        // It may be open.
        let _ = self.maps.shut.remove(&key);
        Ok(())
    }
}
