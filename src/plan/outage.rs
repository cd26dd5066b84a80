//! How long nobody served a service while it was brought to another version.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use crate::{engine::Role, spec::ServiceName};

use super::{Desired, Observed};

/// Follows services that are on their way to another version.
#[derive(Clone, Debug, Default)]
pub struct Outages {
    services: BTreeMap<ServiceName, Outage>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Outage {
    /// Since when nobody serves it.
    since: Option<Timestamp>,
    /// How long nobody did before that.
    before: Duration,
}

impl Outages {
    /// Takes in who is ready now.
    pub fn note(&mut self, desired: &Desired, observed: &Observed, now: Timestamp) {
        self.services.retain(|name, _| desired.rollouts.contains_key(name));
        for name in desired.rollouts.keys() {
            let outage = self.services.entry(name.clone()).or_default();
            let is_served = observed.ready_since.keys().any(|id| {
                let container = observed.containers.get(id);
                container.is_some_and(|container| {
                    matches!(&container.labels.role, Role::Replica { service, .. } if service == name)
                })
            });
            match (is_served, outage.since) {
                (true, Some(since)) => {
                    outage.before += between(since, now);
                    outage.since = None;
                }
                (false, None) => outage.since = Some(now),
                (true, None) | (false, Some(_)) => {}
            }
        }
    }

    /// How long nobody served a service since its rollout began; none if that was not followed.
    #[must_use]
    pub fn of(&self, service: &ServiceName, now: Timestamp) -> Option<Duration> {
        let Outage { since, before } = self.services.get(service)?;
        Some(*before + since.map_or(Duration::ZERO, |since| between(since, now)))
    }
}

fn between(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}
