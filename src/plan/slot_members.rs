//! Who is in a slot: the one whose place it is, and the one that is to take it.

use std::net::Ipv4Addr;

use crate::{
    engine::Role,
    spec::{Service, Slot},
};

use super::{Container, Desired, Observed, Planner, Target};

/// The containers of a slot.
#[derive(Clone, Debug, Default)]
pub(super) struct SlotMembers<'a> {
    /// Whose place it is.
    pub current: Option<&'a Container>,
    /// Who takes it once it has proved itself.
    pub replacement: Option<&'a Container>,
    /// Who has given up the place, and finishes its connections.
    pub set_aside: Vec<&'a Container>,
    /// Whom nothing wants.
    pub surplus: Vec<&'a Container>,
}

impl Container {
    /// Whether it has given up its slot, and finishes its connections.
    #[must_use]
    pub fn is_set_aside(&self) -> bool {
        self.id.is_set_aside_name(&self.name)
    }
}

impl Desired {
    /// What an action on one of our containers is about: its pod, or its place in its slot.
    #[must_use]
    pub fn target_of(&self, container: &Container) -> Target {
        match &container.labels.role {
            Role::Sandbox => Target::Sandbox(container.labels.pod.clone()),
            Role::PreDeploy { service } => Target::PreDeploy(service.clone()),
            Role::Replica { service, slot } if container.is_set_aside() => {
                Target::SetAside(service.clone(), *slot, container.id.clone())
            }
            Role::Replica { service, slot } if self.is_replacement(container) => {
                Target::Replacement(service.clone(), *slot)
            }
            Role::Replica { service, slot } => Target::Replica(service.clone(), *slot),
        }
    }

    /// Whether a container is to take the place of another one. Its name tells, which it changes when it does: labels
    /// cannot be changed.
    #[must_use]
    pub fn is_replacement(&self, container: &Container) -> bool {
        let Role::Replica { service, slot } = &container.labels.role else { return false };
        let Some(service) = self.project.services.get(service) else { return false };
        container.name == self.project.replacement_name(service, *slot)
    }

    /// The address by which a replica is reached alone; none of one that has given up its slot.
    #[must_use]
    pub fn own_address(&self, service: &Service, slot: Slot, container: &Container) -> Option<Ipv4Addr> {
        match self.is_replacement(container) {
            _ if container.is_set_aside() => None,
            true => self.project.replacement_address(service, slot),
            false => self.project.own_address(service, slot),
        }
    }
}

impl<'a> Planner<'a> {
    /// Who is in a slot.
    pub(super) fn slot_members(&self, service: &Service, slot: Slot) -> SlotMembers<'a> {
        let observed: &'a Observed = self.observed;
        let (replacements, others): (Vec<_>, Vec<_>) = observed
            .replicas(&service.name, slot)
            .into_iter()
            .partition(|container| self.desired.is_replacement(container));
        let mut others = others.into_iter();
        let mut replacements = replacements.into_iter();
        SlotMembers {
            current: others.next(),
            replacement: replacements.next(),
            set_aside: observed.set_aside(&service.name, slot),
            surplus: others.chain(replacements).collect(),
        }
    }
}
