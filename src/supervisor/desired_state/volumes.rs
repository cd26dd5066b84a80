//! Slots whose next replica gets new anonymous volumes (`up -V`).

use std::collections::BTreeSet;

use crate::{
    plan::Observed,
    spec::{ServiceName, Slot},
};

use super::DesiredState;

impl DesiredState {
    /// Requests new volumes for the slots that are about to get another replica: those without a replica of the desired
    /// version.
    pub(super) fn renew_volumes(&mut self, services: &BTreeSet<ServiceName>, observed: &Observed) {
        let mut state = self.state.clone();
        for name in services {
            for slot in Slot::first(self.replicas(name)) {
                let is_wanted = |generation| self.desired.project.is_service(name, generation);
                if !observed.replicas(name, slot).iter().any(|replica| is_wanted(&replica.labels.generation))
                {
                    state.renew_volumes.insert((name.clone(), slot));
                }
            }
        }
        self.keep(state);
        self.desired.renew_volumes.clone_from(&self.state.renew_volumes);
    }

    /// Records that a slot gets its next replica: later ones keep its volumes.
    pub(super) fn note_volumes_renewed(&mut self, service: &ServiceName, slot: Slot) {
        let slot = (service.clone(), slot);
        if !self.state.renew_volumes.contains(&slot) {
            return;
        }
        let mut state = self.state.clone();
        state.renew_volumes.remove(&slot);
        self.keep(state);
        self.desired.renew_volumes.clone_from(&self.state.renew_volumes);
    }
}
