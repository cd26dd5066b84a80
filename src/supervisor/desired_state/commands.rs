//! Requests of single commands: scale, stop, weight, restart, and the end of a drain.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    super::{Rejection, Selector, Weight, state_file::Scale},
    DesiredState,
    checks::check_scale,
};
use crate::{
    plan::{self, Goal, Observed, Sharing},
    spec::ServiceName,
};

impl DesiredState {
    pub(super) fn scale(&mut self, counts: &BTreeMap<ServiceName, u32>) -> Result<(), Rejection> {
        let project = &self.desired.project;
        let mut state = self.state.clone();
        for (name, replicas) in counts {
            check_scale(project, name, *replicas)?;
            let file = project.services.get(name).map_or(0, |service| service.replicas);
            state.scale.insert(name.clone(), Scale { file, replicas: *replicas });
            state.stopped.remove(name);
        }
        self.remember(state)?;
        for (name, replicas) in counts {
            self.desired.goals.insert(name.clone(), Goal::Run { replicas: *replicas });
        }
        self.reflect();
        Ok(())
    }

    pub(super) fn stop(
        &mut self,
        services: Vec<ServiceName>,
        timeout: Option<Duration>,
    ) -> Result<(), Rejection> {
        let services = self.named(services)?;
        let mut state = self.state.clone();
        state.stopped.extend(services.iter().cloned());
        self.remember(state)?;
        for service in services {
            match timeout {
                Some(timeout) => self.desired.stop_timeouts.insert(service.clone(), timeout),
                None => self.desired.stop_timeouts.remove(&service),
            };
            self.desired.goals.insert(service, Goal::Stop);
        }
        Ok(())
    }

    pub(super) fn weigh(&mut self, weights: Vec<Weight>, observed: &Observed) -> Result<(), Rejection> {
        let mut state = self.state.clone();
        for Weight { service, slot, weight } in weights {
            self.known(&service)?;
            self.steered(&service, observed)?;
            let is_wanted = matches!(self.desired.goals.get(&service),
                Some(Goal::Run { replicas }) if slot.number() <= *replicas);
            if !is_wanted && observed.replicas(&service, slot).is_empty() {
                return Err(Rejection::UnknownReplica { service, slot });
            }
            let slots = state.weights.entry(service).or_default();
            if weight == plan::WEIGHT {
                slots.remove(&slot);
            } else {
                slots.insert(slot, weight.min(plan::WEIGHT_MAX));
            }
        }
        state.weights.retain(|_, slots| !slots.is_empty());
        self.remember(state)?;
        self.desired.weights = self.state.weights.clone();
        Ok(())
    }

    pub(super) fn end_drain(
        &mut self,
        replicas: Vec<Selector>,
        observed: &Observed,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let draining = plan::plan(&self.desired, observed, now).draining;
        let mut hurried = BTreeSet::new();
        for Selector { service, slot } in replicas {
            self.known(&service)?;
            let found = observed
                .service(&service)
                .filter(|(n, container)| {
                    slot.is_none_or(|slot| slot == *n) && draining.contains(&container.id)
                })
                .filter_map(|(_, container)| Some((container.id.clone(), container.started_at()?)));
            let found: Vec<_> = found.collect();
            if let (Some(slot), true) = (slot, found.is_empty()) {
                return Err(Rejection::NotDraining { service, slot });
            }
            hurried.extend(found);
        }
        self.desired.hurried.extend(hurried);
        Ok(())
    }

    /// Rejects a request if the kernel does not choose among the replicas of a service.
    pub(super) fn steered(&self, name: &ServiceName, observed: &Observed) -> Result<(), Rejection> {
        let pod = self.desired.project.services.get(name).map(|service| &service.pod);
        let reason = match &observed.sharing {
            _ if !pod.is_some_and(|pod| self.desired.project.wants_kernel(pod)) => {
                "its file says `sharing: application`, or it is on the network of the host".to_owned()
            }
            Sharing::ByKernel(_) => return Ok(()),
            Sharing::NoKernel(reason) => reason.clone(),
            Sharing::ByImages => "nothing of it runs yet".to_owned(),
        };
        Err(Rejection::NotSteered { service: name.clone(), reason })
    }

    pub(super) fn restart(
        &mut self,
        replicas: Vec<Selector>,
        grace: Option<Duration>,
        observed: &Observed,
    ) -> Result<(), Rejection> {
        let replicas = if replicas.is_empty() {
            self.desired
                .goals
                .keys()
                .map(|service| Selector { service: service.clone(), slot: None })
                .collect()
        } else {
            replicas
        };
        let (mut services, mut superseded) = (BTreeSet::new(), BTreeMap::new());
        for Selector { service, slot } in replicas {
            self.known(&service)?;
            let found: Vec<_> = observed
                .service(&service)
                .filter(|(n, _)| slot.is_none_or(|slot| slot == *n))
                .filter_map(|(_, c)| Some(((c.id.clone(), c.started_at()?), grace)))
                .collect();
            if let (Some(slot), true) = (slot, found.is_empty()) {
                return Err(Rejection::UnknownReplica { service, slot });
            }
            superseded.extend(found);
            services.insert(service);
        }
        let mut state = self.state.clone();
        state.stopped.retain(|name| !services.contains(name));
        self.remember(state)?;
        self.start_stopped(|service| services.contains(service), observed);
        for name in services {
            let replicas = self.replicas(&name);
            self.desired.goals.insert(name, Goal::Run { replicas });
        }
        self.desired.superseded.extend(superseded);
        Ok(())
    }
}
