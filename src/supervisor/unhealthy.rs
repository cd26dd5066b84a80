//! Detects unhealthy replicas from the engine's health checks, the probes, and the accept queues that the kernel
//! reports.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    engine::{ContainerId, ContainerState, Health, Process, Role},
    plan::{Container, Desired, Observed, Queues, Stuck, UnhealthyReason, UnhealthyReplica},
    probe,
    spec::{ProbeType, Service},
};

use super::{EventKind, probes::Probes};

/// How long a health check of the engine must fail before the replica is replaced: brief failures are no reason.
const STAYS: Duration = Duration::from_secs(2);

/// The health of all replicas, and since when.
#[derive(Debug, Default)]
pub struct HealthTracker {
    queues: Queues,
    /// By container: the start of its process, and since when it works.
    well_since: BTreeMap<ContainerId, (Timestamp, Timestamp)>,
}

/// The result of an examination.
#[derive(Debug, Default)]
pub struct Found {
    /// Events to report.
    pub events: Vec<EventKind>,
    /// The time of the next examination, if nothing changes before.
    pub wake: Option<Timestamp>,
}

impl HealthTracker {
    /// The accept queues of the replicas; they must receive each report of the kernel.
    pub fn queues(&mut self) -> &mut Queues {
        &mut self.queues
    }

    /// Determines which replicas are unhealthy, and stores them in `observed`.
    pub fn examine(
        &mut self,
        desired: &Desired,
        observed: &mut Observed,
        probes: &Probes,
        now: Timestamp,
    ) -> Found {
        let before = std::mem::take(&mut observed.unhealthy);
        self.queues.excuse(&coming_up(desired, observed, now), now);
        let (stuck, wake) = self.queues.stuck(now);
        let mut found = Found { events: Vec::new(), wake };
        let runs = |id: &ContainerId| observed.containers.get(id).is_some_and(|c| c.process().is_some());
        self.well_since.retain(|id, _| runs(id));
        for container in observed.containers.values() {
            let (ContainerState::Running(process), Role::Replica { service, slot }) =
                (&container.state, &container.labels.role)
            else {
                continue;
            };
            let Some(spec) = desired.project.services.get(service) else { continue };
            let old = before.get(&container.id).filter(|old| old.started_at == process.started_at);
            let Some(mut unhealthy) =
                diagnose(spec, container, process, probes, stuck.get(&container.id), now)
            else {
                self.note_well(container, process, now);
                continue;
            };
            match old {
                Some(old) => {
                    unhealthy.well_for = old.well_for;
                    if same(old.reason, unhealthy.reason) {
                        unhealthy.since = old.since.min(unhealthy.since);
                    }
                }
                None => unhealthy.well_for = self.well_for(container, process, now),
            }
            self.well_since.remove(&container.id);
            if unhealthy.reason == UnhealthyReason::Unhealthy {
                unhealthy.replace_at = unhealthy.since.checked_add(STAYS).ok();
            }
            let was_stuck = old.is_some_and(|old| matches!(old.reason, UnhealthyReason::Stuck(_)));
            if let (UnhealthyReason::Stuck(_), false, Some(stuck)) =
                (unhealthy.reason, was_stuck, stuck.get(&container.id))
            {
                let (service, slot, waiting) = (service.clone(), *slot, stuck.waiting);
                found.events.push(EventKind::Stuck { service, slot, waiting });
            }
            observed.unhealthy.insert(container.id.clone(), unhealthy);
        }
        found
    }

    /// Records since when a process works. One that is not ready yet does not count as working, but is not unhealthy
    /// either.
    fn note_well(&mut self, container: &Container, process: &Process, now: Timestamp) {
        if !matches!(process.health, Health::None | Health::Healthy) {
            self.well_since.remove(&container.id);
            return;
        }
        let entry = self.well_since.entry(container.id.clone()).or_insert((process.started_at, now));
        if entry.0 != process.started_at {
            *entry = (process.started_at, now);
        }
    }

    fn well_for(&self, container: &Container, process: &Process, now: Timestamp) -> Duration {
        match self.well_since.get(&container.id) {
            Some((started_at, since)) if *started_at == process.started_at => {
                Duration::try_from(now.duration_since(*since)).unwrap_or_default()
            }
            _ => Duration::ZERO,
        }
    }
}

/// Replicas that have not been ready yet and are within their progress deadline.
fn coming_up(desired: &Desired, observed: &Observed, now: Timestamp) -> BTreeSet<ContainerId> {
    let is_coming_up = |container: &&Container| {
        let Role::Replica { service, .. } = &container.labels.role else { return false };
        let Some(service) = desired.project.services.get(service) else { return false };
        let time = Duration::try_from(now.duration_since(container.since)).unwrap_or_default();
        container.process().is_some_and(|process| process.health == Health::Starting)
            && time < service.update.deadline
    };
    observed.containers.values().filter(is_coming_up).map(|container| container.id.clone()).collect()
}

/// The reason why a process is unhealthy; of several, the one that leads to the earliest replacement.
fn diagnose(
    service: &Service,
    container: &Container,
    process: &Process,
    probes: &Probes,
    stuck: Option<&Stuck>,
    now: Timestamp,
) -> Option<UnhealthyReplica> {
    let unhealthy = |reason, since, replace_at, said| UnhealthyReplica {
        reason,
        started_at: process.started_at,
        since,
        replace_at,
        well_for: Duration::ZERO,
        said,
    };
    if let Some(complaint) = probes.complaint(container) {
        let reason = if complaint.probe_type == ProbeType::Startup {
            UnhealthyReason::NotUp
        } else {
            UnhealthyReason::NotAlive
        };
        let since = now.checked_sub(complaint.lasted).unwrap_or(now);
        return Some(unhealthy(reason, since, Some(now), complaint.said));
    }
    if let Some(stuck) = stuck {
        // A liveness probe takes precedence over stuck queues.
        let is_asked = service.probe.as_ref().is_some_and(|probes| probes.liveness.is_some());
        let replace_at = (!is_asked).then(|| stuck.hopeless_at());
        let said = match stuck.waiting {
            0 => String::new(),
            1 => "1 connection waits".to_owned(),
            n => format!("{n} connections wait"),
        };
        return Some(unhealthy(UnhealthyReason::Stuck(stuck.doing), stuck.since, replace_at, said));
    }
    (probes.checked(&container.id) == Health::Unhealthy).then(|| {
        let said = process.complaint.as_deref().map(probe::last_line).unwrap_or_default();
        unhealthy(UnhealthyReason::Unhealthy, now, None, said)
    })
}

/// Whether two reasons are the same problem.
fn same(one: UnhealthyReason, other: UnhealthyReason) -> bool {
    match (one, other) {
        (UnhealthyReason::Stuck(_), UnhealthyReason::Stuck(_)) => true,
        (one, other) => one == other,
    }
}
