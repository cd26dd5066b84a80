//! Converts events.

use crate::{
    api::schema::{
        Action, Diagnostic, Event, EventKind, Exit, Level, RolloutPhase, Seconds, TargetKind, replica_name,
    },
    engine::Health,
    plan,
    spec::{FailureAction, ServiceName, Slot},
    supervisor::{self, EventKind as Kind, Milestone, Mistake, StateReset},
};

use super::{message, rollout, state::CRASH_LOOP, status};

/// The number of log lines in the message of an exit.
const SHOWN_LINES: usize = 3;

/// Converts an event to the public schema.
#[must_use]
pub fn event(event: &supervisor::Event) -> Event {
    let kind = kind(&event.kind);
    let (level, mut message) = describe(&kind);
    if let Kind::StateReset { reset } = &event.kind {
        message = Some(format!("warning: {reset}"));
    }
    Event { time: event.time.into(), level, message, kind }
}

fn kind(kind: &Kind) -> EventKind {
    match kind {
        Kind::Applied { services } => EventKind::Applied { service_count: *services },
        Kind::Rejected { error, mistakes } => EventKind::Rejected {
            error: error.clone(),
            diagnostics: mistakes.iter().map(diagnostic).collect(),
        },
        Kind::WatchUnavailable { error } => EventKind::WatchUnavailable { error: error.clone() },
        Kind::Started { verb, target } => {
            EventKind::Started { action: (*verb).into(), target: target.into() }
        }
        Kind::Done { verb, target } => EventKind::Done { action: (*verb).into(), target: target.into() },
        Kind::Failed { verb, target, error, help } => EventKind::Failed {
            action: (*verb).into(),
            target: target.into(),
            error: error.clone(),
            help: help.clone(),
        },
        Kind::SharedByKernel => EventKind::SharedByKernel,
        Kind::SharedByApplication { reason } => EventKind::SharedByApplication { reason: reason.clone() },
        Kind::SteeringUnavailable { pod, error } => {
            EventKind::SteeringUnavailable { pod: pod.to_string(), error: error.clone() }
        }
        Kind::TooFewFiles { pod, most } => EventKind::TooFewFiles {
            pod: pod.to_string(),
            limit: *most,
            error: crate::plan::too_few_files(*most),
        },
        Kind::KernelStateLeft { error } => EventKind::KernelStateLeft { error: error.clone() },
        Kind::Waiting { pod, port, connections } => {
            EventKind::Waiting { pod: pod.to_string(), port: *port, connections: *connections }
        }
        Kind::ForeignListener { pod, foreign_listener } => EventKind::ForeignListener {
            pod: pod.to_string(),
            listener: status::foreign_listener(foreign_listener),
        },
        Kind::SharedFile { file } => EventKind::SharedFile { shared_file: status::shared_file(file) },
        Kind::ReuseportProgramIgnored { pod, replica, port, protocol } => {
            EventKind::ReuseportProgramIgnored {
                pod: pod.to_string(),
                replica: replica.as_ref().map(|(service, slot)| replica_name(service, slot)),
                port: *port,
                protocol: protocol.to_string(),
            }
        }
        Kind::StateReset { reset } => state_reset(reset),
        Kind::ForeignResource { foreign } => {
            EventKind::ForeignResource { resource: status::foreign_resource(foreign) }
        }
        Kind::PreStopFailed { target, error } => {
            EventKind::PreStopFailed { target: target.into(), error: error.clone() }
        }
        Kind::JobFailed { target, exit, log } => {
            EventKind::JobFailed { target: target.into(), exit: exit.into(), log: log.clone() }
        }
        Kind::Rollout { service, milestone } => {
            EventKind::Rollout { service: service.to_string(), phase: phase(milestone) }
        }
        Kind::PodLost { pod } => EventKind::PodLost { pod: pod.to_string() },
        Kind::PodDisconnected { pod, network } => {
            EventKind::PodDisconnected { pod: pod.to_string(), network: network.clone() }
        }
        Kind::StateNotSaved { path, reason } => {
            EventKind::StateNotSaved { path: path.display().to_string(), reason: reason.clone() }
        }
        Kind::StateSaved => EventKind::StateSaved,
        Kind::ProcessLost { target } => EventKind::ProcessLost { target: target.into() },
        Kind::ContainersUnlisted { containers } => {
            EventKind::ContainersUnlisted { container_names: containers.clone() }
        }
        Kind::EngineUnreachable { reason } => EventKind::EngineUnreachable { reason: reason.clone() },
        Kind::EngineReachable => EventKind::EngineReachable,
        Kind::Converged => EventKind::Converged,
        Kind::Removed => EventKind::Removed,
        Kind::Exited { .. }
        | Kind::PortNotShared { .. }
        | Kind::UserConflict { .. }
        | Kind::ExclusivePort { .. }
        | Kind::Rotation { .. }
        | Kind::HealthCheckError { .. }
        | Kind::HealthCheckNeverPassed { .. }
        | Kind::UnsteeredListeners { .. }
        | Kind::Health { .. }
        | Kind::Stuck { .. }
        | Kind::ContainerRecreated { .. }
        | Kind::StoppedExternally { .. }
        | Kind::Paused { .. }
        | Kind::Replaced { .. } => of_replica(kind),
    }
}

fn state_reset(reset: &StateReset) -> EventKind {
    let StateReset { path, error, moved_to, scale, jobs, post_start: _, versions } = reset;
    EventKind::StateReset {
        path: path.display().to_string(),
        error: error.clone(),
        moved_to: moved_to.as_ref().map(|path| path.display().to_string()),
        scale: scale.iter().map(|(name, replicas)| (name.to_string(), *replicas)).collect(),
        jobs: jobs.iter().map(ToString::to_string).collect(),
        known_versions: versions.iter().map(ToString::to_string).collect(),
    }
}

/// Converts the events about a single replica.
fn of_replica(kind: &Kind) -> EventKind {
    match kind {
        Kind::Exited { service, slot, exit, exits, log } => {
            let (replica, service, slot) = named(service, *slot);
            EventKind::Exited { replica, service, slot, exit: exit.into(), exits: *exits, log: log.clone() }
        }
        Kind::PortNotShared { service, slot, image, port } => {
            let (replica, service, slot) = named(service, *slot);
            EventKind::PortNotShared { replica, service, slot, image: image.to_string(), port: *port }
        }
        Kind::UserConflict { service, slot, other } => {
            let (replica, service, slot) = named(service, *slot);
            EventKind::UserConflict { replica, service, slot, conflict: (*other).into() }
        }
        Kind::ExclusivePort { service, slot, port } => {
            let (replica, service, slot) = named(service, *slot);
            EventKind::ExclusivePort { replica, service, slot, exclusive_port: port.into() }
        }
        Kind::Rotation { service, slot, weight, live, total, queue } => {
            let (replica, service, slot) = named(service, *slot);
            let (weight, connections, connections_total, queued) = (*weight, *live, *total, *queue);
            EventKind::Rotation { replica, service, slot, weight, connections, connections_total, queued }
        }
        Kind::HealthCheckError { service, slot, error } => {
            let (replica, service, slot) = named(service, *slot);
            EventKind::HealthCheckError { replica, service, slot, error: error.clone() }
        }
        Kind::HealthCheckNeverPassed { service, said } => {
            EventKind::HealthCheckNeverPassed { service: service.to_string(), output: said.clone() }
        }
        Kind::UnsteeredListeners { service, slot, listeners } => {
            let (replica, service, slot) = named(service, *slot);
            EventKind::UnsteeredListeners { replica, service, slot, unsteered_listeners: *listeners }
        }
        Kind::Health { service, slot, health } => {
            let (replica, service, slot) = named(service, *slot);
            EventKind::Health { replica, service, slot, health: self::health(*health).to_owned() }
        }
        Kind::Stuck { service, slot, waiting } => {
            let (replica, service, slot) = named(service, *slot);
            EventKind::Stuck { replica, service, slot, queued: *waiting }
        }
        Kind::ContainerRecreated { service, slot, image } => {
            let (replica, service, slot) = named(service, *slot);
            EventKind::ContainerRecreated { replica, service, slot, image: image.clone() }
        }
        Kind::StoppedExternally { service, slot, at } => {
            let (replica, service, slot) = named(service, *slot);
            EventKind::StoppedExternally { replica, service, slot, stopped_at: (*at).into() }
        }
        Kind::Paused { service, slot } => {
            let (replica, service, slot) = named(service, *slot);
            EventKind::Paused { replica, service, slot }
        }
        Kind::Replaced { service, slot, why } => {
            let (replica, service, slot) = named(service, *slot);
            EventKind::Replaced { replica, service, slot, reason: why.clone() }
        }
        // `kind` passes only events about a replica.
        other => self::kind(other),
    }
}

fn named(service: &ServiceName, slot: Slot) -> (String, String, u32) {
    (replica_name(service, slot), service.to_string(), slot.number())
}

fn health(health: Health) -> &'static str {
    match health {
        Health::None => "none",
        Health::Starting => "starting",
        Health::Healthy => "healthy",
        Health::Unhealthy => "unhealthy",
    }
}

fn diagnostic(mistake: &Mistake) -> Diagnostic {
    Diagnostic {
        message: mistake.message.clone(),
        file: mistake.file.as_ref().map(|file| file.display().to_string()),
        line: mistake.line,
        column: mistake.column,
        help: mistake.help.clone(),
    }
}

fn phase(milestone: &Milestone) -> RolloutPhase {
    match milestone {
        Milestone::Begun { underway } => RolloutPhase::Started {
            previous_version: underway.from,
            version: underway.to,
            rollback: underway.back.as_ref().map(rollout::reason),
        },
        Milestone::Order { order } => RolloutPhase::Order { order: rollout::order(order) },
        Milestone::Step { share } => RolloutPhase::Step { percent: rollout::percent(*share) },
        Milestone::Promoted => RolloutPhase::Promoted,
        Milestone::Failed { version, failure, action } => RolloutPhase::Failed {
            version: *version,
            failure: rollout::failure(failure),
            then: match action {
                FailureAction::Rollback => "rollback",
                FailureAction::Pause => "pause",
                FailureAction::Continue => "continue",
            }
            .to_owned(),
        },
        Milestone::Done { underway, rollout_summary, outage } => RolloutPhase::Done {
            version: underway.to,
            summary: rollout_summary.map(rollout::summary),
            outage_seconds: outage.map(Into::into),
        },
    }
}

/// The severity and message of an event.
fn describe(kind: &EventKind) -> (Level, Option<String>) {
    use Level::{Error, Info, Warning};
    let (level, message) = match kind {
        EventKind::Applied { .. } | EventKind::Started { .. } => return (Info, None),
        EventKind::Rejected { error, .. } => {
            (Error, format!("Compose file rejected; nothing changed:\n{error}"))
        }
        EventKind::WatchUnavailable { error } => {
            (Warning, format!("cannot watch the project's files; changes are found late: {error}"))
        }
        EventKind::StateReset { path, error, .. } => {
            (Warning, format!("the state file {path} was damaged: {error}"))
        }
        EventKind::Done { action, target } => (Info, format!("{target} {}", done(*action, target.kind))),
        EventKind::Failed { action: Action::Run, target, error, .. } => {
            (Error, format!("{target} is stopped and started again: {error}"))
        }
        EventKind::Failed { action, target, error, help } => {
            let help = help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
            (Error, format!("cannot {action} {target}: {error}{help}"))
        }
        EventKind::Exited { replica, exit, exits, log, .. } => (Error, exited(replica, exit, *exits, log)),
        EventKind::PortNotShared { replica, image, port, .. } => {
            (Error, message::port_not_shared(replica, image, *port))
        }
        EventKind::UserConflict { replica, conflict, .. } => (Info, message::port_given(replica, conflict)),
        EventKind::ExclusivePort { replica, exclusive_port, .. } => {
            (Error, message::exclusive_port(replica, exclusive_port))
        }
        EventKind::SharedByKernel => (Info, "the kernel shares ports".to_owned()),
        EventKind::SharedByApplication { reason } => (Warning, message::shared_by_application(reason)),
        EventKind::SteeringUnavailable { pod, error } => {
            (Error, format!("the kernel cannot choose among the replicas of {pod}: {error}"))
        }
        EventKind::TooFewFiles { pod, error, .. } => (Warning, format!("{pod}: {error}")),
        EventKind::KernelStateLeft { error } => {
            (Error, format!("something of the project is left in the kernel: {error}"))
        }
        EventKind::Rotation { replica, weight, connections, .. } => {
            (Info, rotation(replica, *weight, *connections))
        }
        EventKind::HealthCheckError { service, error, .. } => {
            (Warning, message::health_check_error(service, error))
        }
        EventKind::HealthCheckNeverPassed { service, output } => {
            (Warning, plan::check_never_passed(service, output))
        }
        EventKind::UnsteeredListeners { replica, unsteered_listeners, .. } => {
            (Warning, message::unsteered_listeners(replica, *unsteered_listeners))
        }
        EventKind::Waiting { pod, port, connections: 0 } => {
            (Info, format!("no connection to port {port} of {pod} waits any more"))
        }
        EventKind::Waiting { pod, port, connections } => {
            (Warning, format!("{connections} connections to port {port} of {pod} wait: no replica is ready"))
        }
        EventKind::ReuseportProgramIgnored { pod, replica, port, protocol } => {
            (Warning, message::reuseport_program_ignored(pod, replica.as_deref(), *port, protocol))
        }
        EventKind::ForeignListener { pod, listener } => (Warning, message::foreign_listener(pod, listener)),
        EventKind::SharedFile { shared_file } => (Warning, message::shared_file(shared_file)),
        EventKind::ForeignResource { resource } => (Warning, message::foreign_resource(resource)),
        EventKind::PreStopFailed { target, error } => {
            (Warning, format!("{target} is stopped anyway: {error}"))
        }
        EventKind::JobFailed { target, exit, log } => {
            let line =
                format!("{target} failed: {}; no replica of the new version is started", message::exit(exit));
            (Error, with_lines(line, log))
        }
        EventKind::Health { replica, health, .. } => match health.as_str() {
            "healthy" => (Info, format!("{replica} is healthy")),
            "unhealthy" => (Error, format!("{replica} is unhealthy")),
            _ => (Info, format!("{replica} is not healthy yet")),
        },
        EventKind::Stuck { replica, queued, .. } => (
            Warning,
            format!("{replica} takes no connections while others do ({queued} wait); it gets no new ones"),
        ),
        EventKind::Replaced { replica, reason, .. } => (Error, format!("{replica} {reason}; replacing")),
        EventKind::Rollout { service, phase } => describe_rollout(service, phase),
        EventKind::PodLost { pod } => {
            (Warning, format!("{pod} lost its network: its sandbox ended; rebuilding"))
        }
        EventKind::PodDisconnected { pod, network } => {
            (Warning, format!("{pod}: its sandbox is not connected to network {network} any more"))
        }
        EventKind::ContainerRecreated { replica, service, image, .. } => (
            Warning,
            format!(
                "{replica}: another program has recreated its container from image {image}; replacing it. \
                 `sameport rollout {service} --image IMAGE` changes the version"
            ),
        ),
        EventKind::StoppedExternally { replica, service, .. } => (
            Warning,
            format!(
                "{replica} was stopped from outside; it stays down until `sameport start {service}`, `sameport up` or \
                 `docker start`"
            ),
        ),
        EventKind::Paused { replica, .. } => {
            (Warning, format!("{replica} was paused from outside; it gets no connections"))
        }
        EventKind::StateNotSaved { path, reason } => (
            Warning,
            format!(
                "cannot write {path}: {reason}; trying again. Until then, scale, weights and versions are lost if this \
                 supervisor ends"
            ),
        ),
        EventKind::StateSaved => (Info, "the state file is written again".to_owned()),
        EventKind::ProcessLost { target } => (
            Error,
            format!(
                "{target}: its process has ended, although the engine reports it as running; replacing the container"
            ),
        ),
        EventKind::ContainersUnlisted { container_names } => (
            Warning,
            format!(
                "the engine's list lacks {}, which run; they are left as they are",
                container_names.join(", ")
            ),
        ),
        EventKind::EngineUnreachable { reason } => {
            (Warning, format!("cannot reach the engine; replicas keep running: {reason}"))
        }
        EventKind::EngineReachable => (Info, "the engine can be reached again".to_owned()),
        EventKind::Converged => (Info, "converged".to_owned()),
        EventKind::Removed => (Info, "removed".to_owned()),
    };
    (level, Some(message))
}

fn exited(replica: &str, exit: &Exit, exits: u32, log: &[String]) -> String {
    let again = if exits >= CRASH_LOOP { format!(", {exits} times in a row") } else { String::new() };
    let line = format!("{replica} ended: {}{again}", message::exit(exit));
    with_lines(line, log.get(log.len().saturating_sub(SHOWN_LINES)..).unwrap_or_default())
}

fn with_lines(mut text: String, lines: &[String]) -> String {
    lines.iter().for_each(|line| {
        text.push_str("\n    ");
        text.push_str(line);
    });
    text
}

fn rotation(replica: &str, weight: u32, connections: u64) -> String {
    match (weight, connections) {
        (crate::plan::WEIGHT, _) => format!("{replica} ready"),
        (0, 0) => format!("{replica} out of rotation"),
        (0, open) => format!("{replica} out of rotation ({open} connections open)"),
        (weight, _) => format!("{replica} ready, weight {weight}"),
    }
}

fn describe_rollout(service: &str, phase: &RolloutPhase) -> (Level, String) {
    match phase {
        RolloutPhase::Started { previous_version, version, rollback: Some(_) } => (
            Level::Warning,
            format!("{service}: rolling back from version {previous_version} to version {version}"),
        ),
        RolloutPhase::Started { previous_version, version, rollback: None } => (
            Level::Info,
            format!("{service}: rolling out version {version}, from version {previous_version}"),
        ),
        RolloutPhase::Order { order } => (Level::Info, message::replacement_order(service, order)),
        RolloutPhase::Step { percent } => {
            (Level::Info, format!("{service}: the new version gets {percent} % of the connections"))
        }
        RolloutPhase::Promoted => (Level::Info, format!("{service}: the new version gets all connections")),
        RolloutPhase::Failed { version, failure, then } => {
            let then = match then.as_str() {
                "rollback" => "rolling back",
                "pause" => "paused",
                _ => "continuing",
            };
            let slot = failure.slot;
            let message = &failure.message;
            (
                Level::Error,
                format!("{service}: version {version} failed, {then}: {service}-{slot}: {message}"),
            )
        }
        RolloutPhase::Done { version, summary, outage_seconds } => {
            let summary = summary.map(|summary| format!(": {summary}")).unwrap_or_default();
            let outage = outage_seconds.filter(|outage| *outage != Seconds::default());
            let outage =
                outage.map(|outage| format!("; no replica was ready for {outage}")).unwrap_or_default();
            (Level::Info, format!("{service}: version {version} rolled out{summary}{outage}"))
        }
    }
}

fn done(action: Action, target: TargetKind) -> &'static str {
    use Action as A;
    match (action, target) {
        (A::Create, _) => "created",
        (A::Launch, TargetKind::Sandbox) => "opened",
        (A::Launch | A::Start, _) => "started",
        (A::Run, _) => "has run its post_start commands",
        (A::Update, _) => "has new limits",
        (A::Promote, _) => "took over",
        (A::SetAside, _) => "has left its slot and is finishing its connections",
        (A::Rename, _) => "has its name again",
        (A::Connect, _) => "connected to its network",
        (A::Stop, _) => "stopped",
        (A::Remove, _) => "removed",
    }
}
