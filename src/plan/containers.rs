//! Our containers, by id, and by what they are for.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    sync::OnceLock,
};

use super::Container;
use crate::{
    engine::{ContainerId, Role},
    spec::{PodName, ServiceName, Slot},
};

/// Containers by id: a map, which also finds those of a slot or pod without a look at all of them.
#[derive(Debug, Default)]
pub struct Containers {
    by_id: BTreeMap<ContainerId, Container>,
    /// Made when it is asked for, and again after any change.
    index: OnceLock<Index>,
}

#[derive(Debug, Default)]
struct Index {
    sandboxes: BTreeMap<PodName, Vec<ContainerId>>,
    jobs: BTreeMap<ServiceName, Vec<ContainerId>>,
    replicas: BTreeMap<ServiceName, Vec<(Slot, ContainerId)>>,
}

impl Containers {
    /// The sandboxes of a pod.
    pub fn sandboxes(&self, pod: &PodName) -> impl Iterator<Item = &Container> {
        self.known(self.index().sandboxes.get(pod))
    }

    /// The jobs before a new version of a service.
    pub fn jobs(&self, service: &ServiceName) -> impl Iterator<Item = &Container> {
        self.known(self.index().jobs.get(service))
    }

    /// The replicas of a service, with their slots, by id.
    pub fn replicas<'a>(
        &'a self,
        service: &ServiceName,
    ) -> impl Iterator<Item = (Slot, &'a Container)> + Clone + use<'a> {
        let of_service = self.index().replicas.get(service).into_iter().flatten();
        of_service.filter_map(|(slot, id)| Some((*slot, self.by_id.get(id)?)))
    }

    fn known<'a>(&'a self, ids: Option<&'a Vec<ContainerId>>) -> impl Iterator<Item = &'a Container> {
        ids.into_iter().flatten().filter_map(|id| self.by_id.get(id))
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| {
            let mut index = Index::default();
            for (id, container) in &self.by_id {
                let (labels, id) = (&container.labels, id.clone());
                match &labels.role {
                    Role::Sandbox => index.sandboxes.entry(labels.pod.clone()).or_default().push(id),
                    Role::PreDeploy { service } => index.jobs.entry(service.clone()).or_default().push(id),
                    Role::Replica { service, slot } => {
                        index.replicas.entry(service.clone()).or_default().push((*slot, id));
                    }
                }
            }
            index
        })
    }
}

impl Deref for Containers {
    type Target = BTreeMap<ContainerId, Container>;

    fn deref(&self) -> &Self::Target {
        &self.by_id
    }
}

impl DerefMut for Containers {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.index = OnceLock::new();
        &mut self.by_id
    }
}

impl Clone for Containers {
    fn clone(&self) -> Self {
        self.by_id.clone().into()
    }
}

impl PartialEq for Containers {
    fn eq(&self, other: &Self) -> bool {
        self.by_id == other.by_id
    }
}

impl Eq for Containers {}

impl From<BTreeMap<ContainerId, Container>> for Containers {
    fn from(by_id: BTreeMap<ContainerId, Container>) -> Self {
        Self { by_id, index: OnceLock::new() }
    }
}

impl FromIterator<(ContainerId, Container)> for Containers {
    fn from_iter<I: IntoIterator<Item = (ContainerId, Container)>>(containers: I) -> Self {
        containers.into_iter().collect::<BTreeMap<_, _>>().into()
    }
}

impl<'a> IntoIterator for &'a Containers {
    type Item = (&'a ContainerId, &'a Container);
    type IntoIter = std::collections::btree_map::Iter<'a, ContainerId, Container>;

    fn into_iter(self) -> Self::IntoIter {
        self.by_id.iter()
    }
}

impl<const N: usize> From<[(ContainerId, Container); N]> for Containers {
    fn from(containers: [(ContainerId, Container); N]) -> Self {
        BTreeMap::from(containers).into()
    }
}
