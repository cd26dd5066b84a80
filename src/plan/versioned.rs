//! A project together with the versions of its parts.

use std::{collections::BTreeMap, ops::Deref, sync::Arc};

use crate::spec::{Generation, PodName, Project, ServiceName};

/// A project and the generation of each of its services and pods, computed once. A plan compares generations
/// for every container, and it is made at every event. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Versioned(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    project: Project,
    services: BTreeMap<ServiceName, Generation>,
    pods: BTreeMap<PodName, Generation>,
}

impl Versioned {
    /// Whether a service of the project has that version.
    pub(crate) fn is_service(&self, name: &ServiceName, generation: &Generation) -> bool {
        self.0.services.get(name) == Some(generation)
    }

    /// The version of a service of the project.
    pub(super) fn service_generation(&self, name: &ServiceName) -> Option<&Generation> {
        self.0.services.get(name)
    }

    /// Whether a pod of the project has that version.
    pub(super) fn is_pod(&self, name: &PodName, generation: &Generation) -> bool {
        self.0.pods.get(name) == Some(generation)
    }
}

impl From<Project> for Versioned {
    fn from(project: Project) -> Self {
        let services = project.services.iter().map(|(name, s)| (name.clone(), s.generation())).collect();
        let pods = project.pods.iter().map(|(name, p)| (name.clone(), p.generation())).collect();
        Self(Arc::new(Parts { project, services, pods }))
    }
}

impl Deref for Versioned {
    type Target = Project;

    fn deref(&self) -> &Project {
        &self.0.project
    }
}
