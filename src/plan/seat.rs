//! Who is in a slot: the one whose place it is, and the one that is to take it.

use std::net::Ipv4Addr;

use crate::{
    engine::Role,
    spec::{Service, Slot},
};

use super::{Container, Desired, Observed, Planner, Target};

/// The containers of a slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Seats<'a> {
    /// Whose place it is.
    pub incumbent: Option<&'a Container>,
    /// Who takes it once it has proved itself.
    pub successor: Option<&'a Container>,
    /// Whom nothing wants.
    pub surplus: Vec<&'a Container>,
}

impl Desired {
    /// What an action on one of our containers is about: its pod, or its place in its slot.
    #[must_use]
    pub fn target_of(&self, container: &Container) -> Target {
        match &container.labels.role {
            Role::Sandbox => Target::Sandbox(container.labels.pod.clone()),
            Role::Before { service } => Target::Before(service.clone()),
            Role::Replica { service, slot } if self.is_successor(container) => {
                Target::Successor(service.clone(), *slot)
            }
            Role::Replica { service, slot } => Target::Replica(service.clone(), *slot),
        }
    }

    /// Whether a container is to take the place of another one. Its name tells, which it changes when it does: labels
    /// cannot be changed.
    #[must_use]
    pub fn is_successor(&self, container: &Container) -> bool {
        let Role::Replica { service, slot } = &container.labels.role else { return false };
        let Some(service) = self.project.services.get(service) else { return false };
        container.name == self.project.successor_name(service, *slot)
    }

    /// The address by which a replica is reached alone.
    #[must_use]
    pub fn own_address(&self, service: &Service, slot: Slot, container: &Container) -> Option<Ipv4Addr> {
        match self.is_successor(container) {
            true => self.project.successor_address(service, slot),
            false => self.project.own_address(service, slot),
        }
    }
}

impl<'a> Planner<'a> {
    /// Who is in a slot.
    pub(super) fn seats(&self, service: &Service, slot: Slot) -> Seats<'a> {
        let observed: &'a Observed = self.observed;
        let (successors, others): (Vec<_>, Vec<_>) = observed
            .replicas(&service.name, slot)
            .into_iter()
            .partition(|container| self.desired.is_successor(container));
        let mut others = others.into_iter();
        let mut successors = successors.into_iter();
        Seats {
            incumbent: others.next(),
            successor: successors.next(),
            surplus: others.chain(successors).collect(),
        }
    }
}
