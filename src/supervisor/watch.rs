//! Compares two looks: who died, and of what; whose health changed; which pod was lost.

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt;
use jiff::Timestamp;

use crate::{
    engine::{ContainerId, ContainerState, Engine, LogOptions, Role},
    kernel::steering::OtherUser,
    plan::{
        Autopsy, Container, Desired, Goal, Observed, Phase, PortNotShared, Sharing, Target,
        status::ExitStatus,
    },
    spec::{Image, PodName, ServiceName, Slot},
};

use super::{EventKind, diagnosis, journal::Event};

/// How many of its last lines a dead replica is judged and shown by.
const LAST_WORDS: u64 = 10;
/// The engine notes when a process started once it runs: one that ends at once has written its words before. Whatever
/// ran there before ended longer ago: a start alone takes that long.
const NOTED_WITHIN: Duration = Duration::from_millis(200);

/// What is new.
#[derive(Debug, Default)]
pub struct Seen {
    /// To be told at once.
    pub events: Vec<EventKind>,
    /// To be looked into first.
    pub deaths: Vec<Death>,
}

/// A replica ended, not by our doing.
#[derive(Clone, Debug)]
pub struct Death {
    target: Target,
    service: ServiceName,
    slot: Slot,
    container: ContainerId,
    exit: ExitStatus,
    started_at: Timestamp,
    exits: u32,
    image: Image,
    /// Ports that lead into its pod.
    ports: Vec<u16>,
    /// Users of its pod who wanted ports that other users share.
    other_users: Vec<OtherUser>,
    /// Whether another replica runs in its pod, which may have the port.
    has_neighbour: bool,
}

/// What was found out about a death.
#[derive(Clone, Debug)]
pub struct Told {
    /// Who died.
    pub target: Target,
    /// What there is to remember.
    pub autopsy: Autopsy,
    /// What there is to tell.
    pub events: Vec<Event>,
}

/// Compares with what was there before, and notes every exit in the history.
pub fn compare(
    desired: &Desired,
    before: &BTreeMap<ContainerId, Container>,
    observed: &mut Observed,
) -> Seen {
    let mut seen = Seen::default();
    if desired.phase != Phase::Up {
        return seen;
    }
    for container in observed.containers.values() {
        match &container.labels.role {
            Role::Sandbox => {
                let ran = before.get(&container.id).is_some_and(|c| c.process().is_some());
                let busy = observed.busy.contains_key(&Target::Sandbox(container.labels.pod.clone()));
                if ran && container.process().is_none() && !busy {
                    seen.events.push(EventKind::PodLost { pod: container.labels.pod.clone() });
                }
            }
            Role::Before { .. } => {}
            Role::Replica { service, slot } => {
                let old = before.get(&container.id);
                if let (ContainerState::Running(now), Some(ContainerState::Running(was))) =
                    (&container.state, old.map(|c| &c.state))
                    && now.health != was.health
                {
                    seen.events.push(EventKind::Health {
                        service: service.clone(),
                        slot: *slot,
                        health: now.health,
                    });
                }
            }
        }
    }
    let deaths: Vec<_> = observed.containers.values().filter_map(|c| death(desired, observed, c)).collect();
    for (mut death, container) in deaths {
        let Some(service) = desired.project.services.get(&death.service) else { continue };
        let history = observed.history.entry(death.target.clone()).or_default();
        if history.note(&container, &service.restart) {
            death.exits = history.exits;
            seen.deaths.push(death);
        }
    }
    seen
}

fn death(desired: &Desired, observed: &Observed, container: &Container) -> Option<(Death, Container)> {
    let Role::Replica { service, slot } = &container.labels.role else { return None };
    let ContainerState::Exited(exit) = &container.state else { return None };
    if !matches!(desired.goals.get(service), Some(Goal::Run { replicas }) if slot.number() <= *replicas) {
        return None;
    }
    let spec = desired.project.services.get(service)?;
    let pod = desired.project.pods.get(&spec.pod)?;
    let has_neighbour = observed.containers.values().any(|c| {
        c.id != container.id
            && c.labels.pod == container.labels.pod
            && c.labels.role != Role::Sandbox
            && c.process().is_some_and(|p| p.started_at < exit.finished_at)
    });
    let death = Death {
        target: desired.target_of(container),
        service: service.clone(),
        slot: *slot,
        container: container.id.clone(),
        exit: ExitStatus::from(exit),
        started_at: exit.started_at,
        exits: 0,
        image: spec.container.image.clone(),
        ports: pod
            .ports
            .iter()
            .map(|binding| binding.container_port)
            .chain(pod.expose.iter().map(|(port, _)| *port))
            .collect(),
        other_users: other_users(observed, &spec.pod),
        has_neighbour,
    };
    Some((death, container.clone()))
}

fn other_users(observed: &Observed, pod: &PodName) -> Vec<OtherUser> {
    match &observed.sharing {
        Sharing::ByKernel(report) => {
            report.pods.get(pod).into_iter().flat_map(|pod| pod.other_users.values().copied()).collect()
        }
        _ => Vec::new(),
    }
}

/// Reads a dead replica's last words, and tells what it died of.
pub async fn autopsy<E: Engine>(engine: &E, death: Death, now: Timestamp) -> Told {
    let log = last_words(engine, &death.container, death.started_at).await;
    let taken = match death.has_neighbour && death.exit.code != 0 {
        true => diagnosis::port_taken(&log, &death.ports),
        false => None,
    };
    let other_user = taken.and_then(|taken| {
        death.other_users.iter().find(|other| taken.port.is_none_or(|port| port == other.port)).copied()
    });
    // The one explains the other.
    let taken = taken.filter(|_| other_user.is_none());
    let Death { target, service, slot, exit, exits, image, .. } = death;
    let mut kinds = vec![EventKind::Exited {
        service: service.clone(),
        slot,
        exit: exit.clone(),
        exits,
        log: log.clone(),
    }];
    kinds.extend(other_user.map(|other| EventKind::OtherUser { service: service.clone(), slot, other }));
    kinds.extend(taken.map(|taken| EventKind::PortNotShared {
        service,
        slot,
        image: image.clone(),
        port: taken.port,
    }));
    let port_not_shared = taken.map(|taken| PortNotShared { image, port: taken.port });
    let autopsy = Autopsy { exit, log, port_not_shared, other_user };
    Told { target, autopsy, events: kinds.into_iter().map(|kind| Event { time: now, kind }).collect() }
}

/// The last lines that a process wrote; none where they cannot be read, as they are no reason to do anything else.
pub async fn last_words<E: Engine>(engine: &E, container: &ContainerId, since: Timestamp) -> Vec<String> {
    let since = since.checked_sub(NOTED_WITHIN).unwrap_or(since);
    let options = LogOptions { tail: Some(LAST_WORDS), since: Some(since), ..LogOptions::default() };
    let mut log = Vec::new();
    match engine.logs(container, &options).await {
        Ok(mut lines) => {
            while let Some(Ok(line)) = lines.next().await {
                log.push(line.text);
            }
        }
        Err(error) => tracing::debug!(%error, %container, "no last words"),
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Clock,
        engine::{LogLine, memory::Memory},
    };

    #[tokio::test(start_paused = true)]
    async fn last_words_from_before_the_start_was_noted_are_read_and_those_of_another_process_are_not() {
        let engine = Memory::new(Clock::starting_at(Timestamp::UNIX_EPOCH), 1);
        let id = ContainerId("one".to_owned());
        let started_at = Timestamp::from_millisecond(10_000).unwrap();
        let line = |millisecond, text: &str| LogLine {
            time: Some(Timestamp::from_millisecond(millisecond).unwrap()),
            stderr: false,
            text: text.to_owned(),
        };
        engine.world().log = vec![line(9_700, "the last one's"), line(9_999, "no database")];
        assert_eq!(last_words(&engine, &id, started_at).await, ["no database"]);
    }
}
