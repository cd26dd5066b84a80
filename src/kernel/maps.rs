//! Handles on the maps that the programs use.

use std::{borrow::Borrow, net::IpAddr, os::fd::AsRawFd, path::Path};

use aya::maps::{Array, HashMap, HashOfMaps, Map, MapData, MapError, RingBuf, SkStorage, SockHash, SockMap};

use super::{
    KernelError,
    kept::Kept,
    raw::{
        BindKey, Counts, ENDPOINTS, Endpoint, Listener, Member, PodPortKey, PortEntry, PortKey,
        ReplicaAddrKey, ReplicaKey, SLOTS, ServedKey, Table, Tag,
    },
};

/// Maps that there are once on a host: `bpf/sameport.h` tells what each is for.
pub struct HostMaps {
    pods: HashMap<MapData, u64, u32>,
    cgroups: HashMap<MapData, u64, Member>,
    replicas: HashMap<MapData, ReplicaKey, u64>,
    supervisors: HashMap<MapData, u64, u32>,
    local: HashMap<MapData, ServedKey, u32>,
    served: HashMap<MapData, ServedKey, u64>,
    slots: HashMap<MapData, BindKey, u64>,
    listeners: SockHash<MapData, BindKey>,
    exclusive: HashMap<MapData, PortKey, u64>,
    users: HashMap<MapData, PortKey, u32>,
    tags: SkStorage<MapData, Tag>,
    events: HashOfMaps<MapData, u64, RingBuf<MapData>>,
    counts: HashOfMaps<MapData, u64, Array<MapData, Counts>>,
    large_counts: HashOfMaps<MapData, u64, Array<MapData, Counts>>,
}

impl HostMaps {
    /// Those that are kept.
    ///
    /// # Errors
    /// When one is missing, or has another layout.
    pub fn of(kept: &Kept) -> Result<Self, KernelError> {
        Ok(Self {
            pods: typed("sp_pods", kept.map("sp_pods")?)?,
            cgroups: typed("sp_cgroups", kept.map("sp_cgroups")?)?,
            replicas: typed("sp_replicas", kept.map("sp_replicas")?)?,
            supervisors: typed("sp_supervisors", kept.map("sp_supervisors")?)?,
            local: typed("sp_local", kept.map("sp_local")?)?,
            served: typed("sp_served", kept.map("sp_served")?)?,
            slots: typed("sp_slots", kept.map("sp_slots")?)?,
            listeners: typed("sp_listeners", kept.map("sp_listeners")?)?,
            exclusive: typed("sp_exclusive", kept.map("sp_exclusive")?)?,
            users: typed("sp_users", kept.map("sp_users")?)?,
            tags: typed("sp_tags", kept.map("sp_tags")?)?,
            events: typed("sp_pod_events", kept.map("sp_pod_events")?)?,
            counts: typed("sp_pod_counts", kept.map("sp_pod_counts")?)?,
            large_counts: typed("sp_large_counts", kept.map("sp_large_counts")?)?,
        })
    }

    /// What processes of a control group open and ask is a supervisor's.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn add_supervisor(&mut self, cgroup: u64) -> Result<(), KernelError> {
        self.supervisors.insert(cgroup, 1, 0).map_err(KernelError::bpf("enter the supervisor"))
    }

    /// Makes a network one of ours, with the maps that its programs write.
    ///
    /// # Errors
    /// When there are too many.
    pub fn add_pod(&mut self, netns: u64, maps: &PodMaps) -> Result<(), KernelError> {
        let fail = || KernelError::bpf("enter a pod");
        self.events.insert(netns, &maps.notices, 0).map_err(fail())?;
        let counts = if maps.endpoints() > ENDPOINTS { &mut self.large_counts } else { &mut self.counts };
        counts.insert(netns, &maps.counts, 0).map_err(fail())?;
        self.pods.insert(netns, 1, 0).map_err(fail())
    }

    /// Whether a network is one of ours.
    #[must_use]
    pub fn has_pod(&self, netns: u64) -> bool {
        self.pods.get(&netns, 0).is_ok()
    }

    /// The map that counts in a network, if there is one.
    #[must_use]
    pub fn counts_of(&self, netns: u64) -> Option<Array<MapData, Counts>> {
        self.counts.get(&netns, 0).or_else(|_| self.large_counts.get(&netns, 0)).ok()
    }

    /// Lets go of a network, and of all that was entered for it.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn remove_pod(&mut self, netns: u64) -> Result<(), KernelError> {
        // From now on its ports are shared no more. It may not be there, like what follows.
        let _ = self.pods.remove(&netns);
        let _ = self.events.remove(&netns);
        let _ = self.counts.remove(&netns);
        let _ = self.large_counts.remove(&netns);
        clear(&mut self.exclusive, |key| key.netns == netns)?;
        clear(&mut self.users, |key| key.netns == netns)?;
        clear(&mut self.local, |key| key.netns == netns)?;
        clear(&mut self.served, |key| key.netns == netns)?;
        clear(&mut self.replicas, |key| key.netns == netns)?;
        let gone = self.cgroups.iter().filter_map(Result::ok).filter(|(_, member)| member.netns == netns);
        for (cgroup, _) in gone.collect::<Vec<_>>() {
            let _ = self.cgroups.remove(&cgroup);
        }
        Ok(())
    }

    /// A control group is a replica's.
    ///
    /// # Errors
    /// When there are too many.
    pub fn add_replica(&mut self, cgroup: u64, member: Member) -> Result<(), KernelError> {
        let fail = || KernelError::bpf("enter a replica");
        self.replicas.insert(ReplicaKey::from(member), cgroup, 0).map_err(fail())?;
        self.cgroups.insert(cgroup, member, 0).map_err(fail())
    }

    /// A control group is a replica's no more.
    pub fn remove_replica(&mut self, cgroup: u64, member: Member) {
        let _ = self.cgroups.remove(&cgroup);
        let key = ReplicaKey::from(member);
        // Another one may have its slot by now.
        if self.replicas.get(&key, 0).is_ok_and(|current| current == cgroup) {
            let _ = self.replicas.remove(&key);
        }
    }

    /// Sets which addresses are a pod's own, beside loopback.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn set_local(&mut self, netns: u64, addresses: &[IpAddr]) -> Result<(), KernelError> {
        let keys: Vec<_> = addresses
            .iter()
            .map(|address| ServedKey { netns, addr: (*address).into(), ..ServedKey::default() })
            .collect();
        clear(&mut self.local, |key| key.netns == netns && !keys.contains(key))?;
        keys.iter()
            .try_for_each(|key| self.local.insert(key, 1, 0))
            .map_err(KernelError::bpf("enter an address"))
    }

    /// Notes that a service listens at an address.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn add_served(&mut self, key: ServedKey, service: u32) -> Result<(), KernelError> {
        let known = self.served.get(&key, 0).unwrap_or(0);
        let all = known | 1 << (service % 64);
        if all == known {
            return Ok(());
        }
        self.served.insert(key, all, 0).map_err(KernelError::bpf("enter a listener"))
    }

    /// Enters a socket among those of its replica, for what the replica sends to itself. Those of TCP are entered by the
    /// programs as soon as they listen, unless they were there before.
    ///
    /// Returns its slot; none if the replica has too many there.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn list(&mut self, socket: &impl AsRawFd, key: BindKey) -> Result<Option<u8>, KernelError> {
        const ONLY_NEW: u64 = 1;
        for slot in 0..SLOTS {
            match self.listeners.insert(BindKey { slot, ..key }, socket.as_raw_fd(), ONLY_NEW) {
                Ok(()) => {
                    let used = self.slots.get(&key, 0).unwrap_or(0);
                    let fail = KernelError::bpf("enter a listener");
                    self.slots.insert(key, used | 1 << slot, 0).map_err(fail)?;
                    return Ok(Some(slot));
                }
                Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => {
                }
                Err(error) => return Err(KernelError::bpf("enter a listener")(error)),
            }
        }
        Ok(None)
    }

    /// Whether a replica has any listener there.
    #[must_use]
    pub fn is_listed(&self, key: &BindKey) -> bool {
        self.slots.get(key, 0).is_ok_and(|used| used != 0)
    }

    /// A socket is closed.
    pub fn unlist(&mut self, key: BindKey, slot: u8) {
        let _ = self.listeners.remove(&BindKey { slot, ..key });
        let Ok(used) = self.slots.get(&key, 0) else { return };
        let left = used & !(1 << slot);
        let _ = if left == 0 { self.slots.remove(&key) } else { self.slots.insert(key, left, 0) };
    }

    /// Sets which of 64 ports only one replica can hold at a time, as bits; the key has the first of them by 64.
    ///
    /// # Errors
    /// When there are too many.
    pub fn set_exclusive(&mut self, key: PortKey, bits: u64) -> Result<(), KernelError> {
        if bits != 0 {
            return self.exclusive.insert(key, bits, 0).map_err(KernelError::bpf("enter exclusive ports"));
        }
        let _ = self.exclusive.remove(&key);
        Ok(())
    }

    /// Enters the user who shares a port.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn set_user(&mut self, key: PortKey, user: Option<u32>) -> Result<(), KernelError> {
        let Some(user) = user else {
            let _ = self.users.remove(&key);
            return Ok(());
        };
        self.users.insert(key, user, 0).map_err(KernelError::bpf("enter who shares a port"))
    }

    /// The user who shares a port.
    #[must_use]
    pub fn user(&self, key: &PortKey) -> Option<u32> {
        self.users.get(key, 0).ok()
    }

    /// Has the connections of a listener counted at an endpoint.
    ///
    /// # Errors
    /// When the kernel does not do it: the listener was just closed.
    pub fn tag(&mut self, socket: &impl AsRawFd, endpoint: u32) -> Result<(), KernelError> {
        let tag = Tag { endpoint, ..Tag::default() };
        self.tags.insert(socket, tag, 0).map_err(KernelError::bpf("enter a listener"))
    }
}

impl From<Member> for ReplicaKey {
    fn from(Member { netns, service, slot }: Member) -> Self {
        Self { netns, service, slot }
    }
}

/// Maps of one pod: `bpf/pod.h` tells what each is for.
pub struct PodMaps {
    pub ports: HashMap<MapData, PodPortKey, PortEntry>,
    pub tables: Array<MapData, Table>,
    pub active: Array<MapData, u32>,
    pub endpoints: Array<MapData, Endpoint>,
    pub counts: Array<MapData, Counts>,
    pub sockets: SockMap<MapData>,
    pub known: HashMap<MapData, u64, Listener>,
    pub replica_addr: HashMap<MapData, ReplicaAddrKey, u32>,
    pub notices: RingBuf<MapData>,
}

impl PodMaps {
    /// Those that are pinned in a folder, of the pod in that network.
    ///
    /// # Errors
    /// When one is missing, or has another layout.
    pub fn open(folder: &Path, netns: u64) -> Result<Self, KernelError> {
        let mut pod: Array<_, u64> = pinned(folder, "sp_pod")?;
        pod.set(0, netns, 0).map_err(KernelError::bpf("enter a pod"))?;
        Ok(Self {
            ports: pinned(folder, "sp_ports")?,
            tables: pinned(folder, "sp_wrr_tables")?,
            active: pinned(folder, "sp_active")?,
            endpoints: pinned(folder, "sp_endpoints")?,
            counts: pinned(folder, "sp_counts")?,
            sockets: pinned(folder, "sp_sockets")?,
            known: pinned(folder, "sp_known")?,
            replica_addr: pinned(folder, "sp_replica_addr")?,
            notices: pinned(folder, "sp_events")?,
        })
    }

    /// How many ports there is room for.
    #[must_use]
    pub fn room_for_ports(&self) -> u32 {
        self.active.len()
    }

    /// How many endpoints there is room for.
    #[must_use]
    pub fn endpoints(&self) -> u32 {
        self.counts.len()
    }
}

/// A map that is pinned under its name.
///
/// # Errors
/// When there is none, or it has another layout: it is of another version.
pub fn pinned<T: TryFrom<Map, Error = MapError>>(folder: &Path, name: &str) -> Result<T, KernelError> {
    let fail = || KernelError::bpf(format!("use the BPF map {name}"));
    typed(name, MapData::from_pin(folder.join(name)).map_err(fail())?)
}

fn typed<T: TryFrom<Map, Error = MapError>>(name: &str, map: MapData) -> Result<T, KernelError> {
    let fail = || KernelError::bpf(format!("use the BPF map {name}"));
    Map::from_map_data(map).map_err(fail())?.try_into().map_err(fail())
}

/// Removes the entries of some keys.
fn clear<K: aya::Pod, V: aya::Pod>(
    map: &mut HashMap<MapData, K, V>,
    is_gone: impl Fn(&K) -> bool,
) -> Result<(), KernelError> {
    let keys: Result<Vec<K>, _> = map.keys().filter(|key| key.as_ref().map_or(true, &is_gone)).collect();
    for key in keys.map_err(KernelError::bpf("read a BPF map"))? {
        // The programs may have removed it.
        let _ = map.remove(&key);
    }
    Ok(())
}

/// What was counted at an endpoint.
///
/// # Errors
/// When the map cannot be read.
pub fn counts<T: Borrow<MapData>>(map: &Array<T, Counts>, endpoint: u32) -> Result<Counts, KernelError> {
    map.get(&endpoint, 0).map_err(KernelError::bpf("read what was counted"))
}
