//! Networks and volumes of a project.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The key of an entry under the top-level `networks:`.
pub type NetworkKey = String;
/// The key of an entry under the top-level `volumes:`.
pub type VolumeKey = String;

/// A network of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its name on the engine, such as `<project>_default`.
    pub name: String,
    /// Whether it must exist already and is never made or removed by us.
    pub external: bool,
    /// Such as `bridge`; `None` is the engine's own choice.
    pub driver: Option<String>,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// Whether it is cut off from outside.
    pub internal: bool,
    /// Whether containers of others may join by hand.
    pub attachable: bool,
    /// Whether it has IPv6.
    pub enable_ipv6: bool,
    /// Address pools: subnet, gateway, ip range.
    pub ipam: Vec<IpamPool>,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
}

impl Network {
    /// A network with the engine's defaults for everything.
    #[must_use]
    pub fn new(name: String) -> Self {
        Self {
            name,
            external: false,
            driver: None,
            driver_opts: BTreeMap::new(),
            internal: false,
            attachable: false,
            enable_ipv6: false,
            ipam: Vec::new(),
            labels: BTreeMap::new(),
        }
    }
}

/// One pool of a network's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamPool {
    /// In CIDR form.
    pub subnet: Option<String>,
    /// The bridge's own address.
    pub gateway: Option<String>,
    /// Part of the subnet that containers get addresses from.
    pub ip_range: Option<String>,
}

/// A pod's place in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAttachment {
    /// Extra DNS names; the names of the pod's services are always among them.
    pub aliases: Vec<String>,
    /// A fixed IPv4 address.
    pub ipv4_address: Option<String>,
    /// A fixed IPv6 address.
    pub ipv6_address: Option<String>,
    /// The network with the highest one gives the default route.
    pub priority: i64,
}

/// A volume of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name on the engine, such as `<project>_data`. May hold a slot template.
    pub name: String,
    /// Whether it must exist already and is never made or removed by us.
    pub external: bool,
    /// Such as `local`; `None` is the engine's own choice.
    pub driver: Option<String>,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
}

impl Volume {
    /// A volume with the engine's defaults for everything.
    #[must_use]
    pub fn new(name: String) -> Self {
        Self { name, external: false, driver: None, driver_opts: BTreeMap::new(), labels: BTreeMap::new() }
    }
}
