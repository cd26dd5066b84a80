//! A project: one Compose file's worth of services.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Network, NetworkKey, Pod, PodName, ProjectName, Service, ServiceName, Slot, Volume, VolumeKey};

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
    pub services: BTreeMap<ServiceName, Service>,
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
            services: BTreeMap::new(),
            pods: BTreeMap::new(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
        }
    }

    /// The name of the container in `slot` of `service`.
    #[must_use]
    pub fn replica_name(&self, service: &Service, slot: Slot) -> String {
        match &service.container_name {
            Some(name) => name.clone(),
            None => format!("{}-{}-{slot}", self.name, service.name),
        }
    }

    /// The name of the container that holds the namespaces of `pod`.
    #[must_use]
    pub fn sandbox_name(&self, pod: &PodName) -> String {
        format!("{}-{pod}-sandbox", self.name)
    }

    /// The services whose replicas are in `pod`.
    pub fn services_of<'a>(&'a self, pod: &'a PodName) -> impl Iterator<Item = &'a Service> {
        self.services.values().filter(move |s| &s.pod == pod)
    }
}
