//! Handles on the maps that a project's programs share.

use std::{borrow::Borrow, path::Path};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError, ReusePortSockArray, RingBuf, SkStorage},
};

use super::{
    KernelError,
    raw::{Counts, Endpoint, GateKey, Listener, OwnKey, PortKey, Table, Tag},
};

/// The maps of `bpf/sameport.h`, which tells what each is for.
pub struct Maps {
    pub pods: HashMap<MapData, u64, u32>,
    pub ports: HashMap<MapData, PortKey, u32>,
    pub tables: Array<MapData, Table>,
    pub turns: Array<MapData, u32>,
    pub endpoints: Array<MapData, Endpoint>,
    pub counts: Array<MapData, Counts>,
    pub sockets: ReusePortSockArray<MapData>,
    pub known: HashMap<MapData, u64, Listener>,
    pub tags: SkStorage<MapData, Tag>,
    pub own: HashMap<MapData, OwnKey, u32>,
    pub homes: HashMap<MapData, u64, u32>,
    pub shut: HashMap<MapData, GateKey, u32>,
    pub users: HashMap<MapData, PortKey, u32>,
    pub notices: RingBuf<MapData>,
}

impl Maps {
    /// Takes them out of what was loaded and out of the folder of pins.
    ///
    /// # Errors
    /// When one is missing, or has another layout: it is of another version.
    pub fn new(hooks: &mut Ebpf, pins: &Path) -> Result<Self, KernelError> {
        let mut find = |name: &'static str| -> Result<Map, KernelError> {
            let fail = KernelError::bpf(format!("use the BPF map {name}"));
            match hooks.take_map(name) {
                Some(map) => Ok(map),
                // Only other programs name it.
                None => MapData::from_pin(pins.join(name)).and_then(Map::from_map_data).map_err(fail),
            }
        };
        Ok(Self {
            pods: typed(find("sameport_pods")?)?,
            ports: typed(find("sameport_ports")?)?,
            tables: typed(find("sameport_tables")?)?,
            turns: typed(find("sameport_turns")?)?,
            endpoints: typed(find("sameport_ends")?)?,
            counts: typed(find("sameport_counts")?)?,
            sockets: typed(find("sameport_socks")?)?,
            known: typed(find("sameport_known")?)?,
            tags: typed(find("sameport_tags")?)?,
            own: typed(find("sameport_own")?)?,
            homes: typed(find("sameport_homes")?)?,
            shut: typed(find("sameport_shut")?)?,
            users: typed(find("sameport_users")?)?,
            notices: typed(find("sameport_events")?)?,
        })
    }
}

fn typed<T: TryFrom<Map, Error = MapError>>(map: Map) -> Result<T, KernelError> {
    map.try_into().map_err(KernelError::bpf("use a BPF map of another version of sameport"))
}

/// What was counted at an endpoint.
///
/// # Errors
/// When the map cannot be read.
pub fn counts<T: Borrow<MapData>>(map: &Array<T, Counts>, endpoint: u32) -> Result<Counts, KernelError> {
    map.get(&endpoint, 0).map_err(KernelError::bpf("read what was counted"))
}
