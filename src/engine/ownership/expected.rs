//! What a project's file and its remembered versions say of names.

use std::collections::{BTreeMap, BTreeSet};

use crate::spec::{PodName, Project, Service, ServiceName, Slot, expand};

/// By these names is known what was made before there were nonces, beside the usual ones. Without them what is called
/// as usual is still known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Values of `container_name`.
    pub(super) containers: BTreeMap<ServiceName, BTreeSet<String>>,
    /// Whether a pod is on the host's network.
    on_host: BTreeMap<PodName, bool>,
    /// Networks that the project makes.
    pub(super) networks: BTreeSet<String>,
    /// Volumes that the project makes; with slot templates.
    pub(super) volumes: BTreeSet<String>,
}

impl Expected {
    /// What a file says.
    #[must_use]
    pub fn of(project: &Project) -> Self {
        let mut expected = Self::default();
        expected.note(project);
        expected
    }

    /// Takes in what a file says, too.
    pub fn note(&mut self, project: &Project) {
        project.services.values().for_each(|service| self.note_service(service));
        for (name, pod) in &project.pods {
            self.on_host.insert(name.clone(), !pod.has_sandbox());
        }
        let networks = project.networks.values().filter(|network| !network.external);
        self.networks.extend(networks.map(|network| network.name.clone()));
        let volumes = project.volumes.values().filter(|volume| !volume.external);
        self.volumes.extend(volumes.map(|volume| volume.name.clone()));
    }

    /// Takes in what a version of a service says.
    pub fn note_service(&mut self, service: &Service) {
        if let Some(name) = &service.container_name {
            self.containers.entry(service.name.clone()).or_default().insert(name.clone());
        }
    }

    /// Names that replicas of a service may have beside the usual one.
    pub(super) fn container_names(&self, service: &ServiceName, slot: Slot) -> impl Iterator<Item = &str> {
        // A fixed name leaves room for one replica only.
        let named = self.containers.get(service).filter(|_| slot == Slot::FIRST);
        named.into_iter().flatten().map(String::as_str)
    }

    /// Whether a pod is on the host's network, where the file tells.
    pub(super) fn is_on_host(&self, pod: &PodName) -> Option<bool> {
        self.on_host.get(pod).copied()
    }

    /// Whether the project makes a network of that name.
    pub(super) fn has_network(&self, name: &str) -> bool {
        self.networks.contains(name)
    }

    /// Whether the project makes a volume of that name, for whatever slot.
    pub(super) fn has_volume(&self, name: &str) -> bool {
        self.volumes
            .iter()
            .any(|template| template == name || slots_in(name).any(|slot| expand(template, slot) == name))
    }
}

/// The numbers in a name that could be those of slots.
fn slots_in(name: &str) -> impl Iterator<Item = Slot> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| Slot::new(digits.parse().ok()?))
}
