//! Networks and volumes: there before what uses them.

use crate::spec::{MountSource, Pod, PodNetwork, Service, Slot};

use super::{Action, Goal, Owner, Planner};

impl Planner<'_> {
    /// Makes what pods and replicas that shall run need and is not there.
    pub(super) fn resources(&mut self) {
        let desired = self.desired;
        for (service, replicas) in running(desired) {
            if let Some(pod) = desired.project.pods.get(&service.pod) {
                for (key, name) in self.missing_networks(pod) {
                    self.act_once(Action::EnsureNetwork { key, name });
                }
            }
            for slot in Slot::first(replicas) {
                for name in self.missing_volumes(service, slot) {
                    self.act_once(Action::EnsureVolume { name, slot });
                }
            }
        }
    }

    fn act_once(&mut self, action: Action) {
        if !self.plan.actions.iter().any(|a| a.target() == action.target()) {
            self.act(action);
        }
    }

    /// Networks that the pod is in and the engine does not have: key and name.
    pub(super) fn missing_networks(&self, pod: &Pod) -> Vec<(String, String)> {
        let PodNetwork::Networks(attachments) = &pod.network else { return Vec::new() };
        attachments
            .keys()
            .filter_map(|key| Some((key.clone(), self.desired.project.networks.get(key)?.name.clone())))
            .filter(|(_, name)| !self.observed.networks.contains_key(name))
            .collect()
    }

    /// Named volumes that the replica mounts and the engine does not have.
    pub(super) fn missing_volumes(&self, service: &Service, slot: Slot) -> Vec<String> {
        let mut missing = Vec::new();
        for mount in &service.container.mounts {
            if let MountSource::Volume { name, .. } = &mount.source {
                let name = crate::spec::expand(name, slot);
                if !self.observed.volumes.contains_key(&name) && !missing.contains(&name) {
                    missing.push(name);
                }
            }
        }
        missing
    }
}

impl Planner<'_> {
    /// Removes the volumes of a slot that nobody has any more, if its next replica is to begin with new ones. Returns whether
    /// there were any.
    pub(super) fn removes_slot_volumes(&mut self, service: &Service, slot: Slot) -> bool {
        if !self.desired.renew_volumes.contains(&(service.name.clone(), slot)) {
            return false;
        }
        let observed = self.observed;
        let is_of_slot = |name: &str| self.desired.project.is_slot_volume(&service.name, slot, name);
        let owned = observed.volumes.iter().filter(|(name, owner)| **owner == Owner::Us && is_of_slot(name));
        let names: Vec<_> = owned.map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.act_once(Action::RemoveVolume(name.clone())));
        !names.is_empty()
    }
}

/// The services that shall run, each with its number of replicas.
pub(super) fn running(desired: &super::Desired) -> impl Iterator<Item = (&Service, u32)> {
    desired.goals.iter().filter_map(|(name, goal)| match goal {
        Goal::Run { replicas } => Some((desired.project.services.get(name)?, *replicas)),
        Goal::Stop => None,
    })
}
