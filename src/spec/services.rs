//! The services of a project, by name and by pod.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    sync::OnceLock,
};

use serde::{Deserialize, Serialize};

use super::{PodName, Service, ServiceName};

/// Services by name: a map, which also finds those of a pod without a look at all of them.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Services {
    by_name: BTreeMap<ServiceName, Service>,
    /// The names of each pod's, made when they are asked for, and again after any change.
    #[serde(skip)]
    by_pod: OnceLock<BTreeMap<PodName, Vec<ServiceName>>>,
}

impl Services {
    /// Those of a pod, by name.
    pub fn of<'a>(&'a self, pod: &PodName) -> impl Iterator<Item = &'a Service> + Clone + use<'a> {
        let by_pod = self.by_pod.get_or_init(|| {
            let mut by_pod = BTreeMap::<_, Vec<_>>::new();
            for service in self.by_name.values() {
                by_pod.entry(service.pod.clone()).or_default().push(service.name.clone());
            }
            by_pod
        });
        by_pod.get(pod).into_iter().flatten().filter_map(|name| self.by_name.get(name))
    }
}

impl Deref for Services {
    type Target = BTreeMap<ServiceName, Service>;

    fn deref(&self) -> &Self::Target {
        &self.by_name
    }
}

/// Whoever may change a service may move it to another pod.
impl DerefMut for Services {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.by_pod = OnceLock::new();
        &mut self.by_name
    }
}

impl Clone for Services {
    fn clone(&self) -> Self {
        self.by_name.clone().into()
    }
}

impl PartialEq for Services {
    fn eq(&self, other: &Self) -> bool {
        self.by_name == other.by_name
    }
}

impl Eq for Services {}

impl From<BTreeMap<ServiceName, Service>> for Services {
    fn from(by_name: BTreeMap<ServiceName, Service>) -> Self {
        Self { by_name, by_pod: OnceLock::new() }
    }
}

impl FromIterator<(ServiceName, Service)> for Services {
    fn from_iter<I: IntoIterator<Item = (ServiceName, Service)>>(services: I) -> Self {
        services.into_iter().collect::<BTreeMap<_, _>>().into()
    }
}

impl<'a> IntoIterator for &'a Services {
    type Item = (&'a ServiceName, &'a Service);
    type IntoIter = std::collections::btree_map::Iter<'a, ServiceName, Service>;

    fn into_iter(self) -> Self::IntoIter {
        self.by_name.iter()
    }
}

impl IntoIterator for Services {
    type Item = (ServiceName, Service);
    type IntoIter = std::collections::btree_map::IntoIter<ServiceName, Service>;

    fn into_iter(self) -> Self::IntoIter {
        self.by_name.into_iter()
    }
}
