//! Waits until a supervisor has reached the desired state, and shows events meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::{Stream, StreamExt};
use jiff::Timestamp;
use sameport::{
    api::{
        convert,
        protocol::Line,
        schema::{self, EventKind, Reason, Replica, ReplicaState, Rollout, RolloutPhase, Status},
    },
    spec::{Service, ServiceName},
};
use tokio::time::Instant;

use super::{
    context::Context,
    error::CliError,
    listeners,
    output::{self, progress::Progress},
    session::Session,
};

/// The condition that ends the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// All replicas have been started.
    Started,
    /// All replicas are up, and healthy if they have a health check.
    Up,
    /// Like `Up`, and replicas without a health check have been up for 3 s: a server that cannot bind its port exits
    /// after a few attempts.
    Steady,
    /// The project has been removed.
    Gone,
}

/// The number of consecutive failures at which the wait fails.
const MAX_EXITS: u32 = 3;
/// How long a replica without a health check must stay up. nginx retries to bind its port for about this time.
const MIN_UPTIME: Duration = Duration::from_secs(3);
/// Limit for the supervisor to read the last log lines of a failed replica.
const REPORT: Duration = Duration::from_secs(2);
/// Limit for events that were recorded before the condition was met.
const LAST_EVENTS: Duration = Duration::from_millis(100);
/// How long `up -d` waits for replicas to accept connections.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval at which the status is polled, unless an event reports convergence.
const PAUSE: Duration = Duration::from_millis(100);

/// Shows events until the condition is met. If the reader closes the pipe, the wait continues.
///
/// # Errors
/// If a replica keeps failing, or the limit is reached; at the end, if the reader has closed the pipe.
pub async fn until(
    context: &Context,
    session: &Session,
    until: Until,
    limit: Option<Duration>,
) -> Result<(), CliError> {
    services(context, session, session.events().await?, until, limit, &[]).await
}

/// Like [`until`], for a command that names services; an empty list means all. Failed replicas of other services are
/// ignored. `events` must have been subscribed to before the request.
///
/// # Errors
/// Those of [`until`].
pub async fn services(
    context: &Context,
    session: &Session,
    mut events: impl Stream<Item = Result<Line, CliError>> + Unpin,
    until: Until,
    limit: Option<Duration>,
    named: &[ServiceName],
) -> Result<(), CliError> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    let mut progress = Progress::new(context.data());
    let mut steadiness = StabilityTracker::default();
    let mut shown = Ok(());
    let (mut before, mut failed_at) = (None, None);
    let mut only_draining_since = None;
    // The engine counts listeners where the kernel does not.
    let docker = match until {
        Until::Steady => Some(context.engine().await?),
        Until::Started | Until::Up | Until::Gone => None,
    };
    let mut unbound = Vec::new();
    loop {
        let mut look_at = Instant::now() + PAUSE;
        loop {
            tokio::select! {
                biased;
                line = events.next() => match line {
                    Some(Ok(Line::Live(event))) => {
                        if matches!(event.kind, EventKind::Converged) {
                            look_at = Instant::now();
                        }
                        if shown.is_ok() {
                            shown = progress.event(&event);
                        }
                    }
                    Some(Ok(Line::History(_) | Line::Missed { .. })) => {}
                    Some(Err(_)) | None if until == Until::Gone => return shown,
                    Some(Err(error)) => return Err(error),
                    None => return Err(CliError::failed("the supervisor has ended", None)),
                },
                () = tokio::time::sleep_until(look_at) => break,
            }
        }
        if until == Until::Gone {
            if session.has_ended().await {
                return shown;
            }
        } else {
            let status = session.status().await?;
            progress.status(&status);
            let steady = steadiness.look(&status, Instant::now());
            // A replica that has exited before may be between two crashes.
            let has_ended_before = status.replicas.iter().any(|replica| replica.exits > 0);
            if is_enough(&status, until, named) && (steady || (until != Until::Steady && !has_ended_before)) {
                unbound = match &docker {
                    Some(docker) => listeners::missing(docker, &status).await?,
                    None => Vec::new(),
                };
                if unbound.is_empty() {
                    // Its last events arrive on another connection.
                    let end = Instant::now() + LAST_EVENTS;
                    while status.converged
                        && let Ok(Some(Ok(line))) = tokio::time::timeout_at(end, events.next()).await
                    {
                        let Line::Live(event) = line else { continue };
                        if shown.is_ok() {
                            shown = progress.event(&event);
                        }
                        if matches!(event.kind, EventKind::Converged) {
                            break;
                        }
                    }
                    return shown;
                }
            }
            match (status.only_draining, only_draining_since) {
                (false, _) => only_draining_since = None,
                (true, None) => only_draining_since = Some(Instant::now()),
                // Everything requested is done; draining connections can last for hours.
                (true, Some(since)) if since.elapsed() >= Service::DRAIN => {
                    output::note(&finishing(&status))?;
                    return shown;
                }
                (true, Some(_)) => {}
            }
            if let Some(failure) = failure(&status, before.get_or_insert_with(|| exits(&status))) {
                let since = *failed_at.get_or_insert_with(Instant::now);
                if is_reported(&status) || since.elapsed() >= REPORT {
                    return Err(failure);
                }
            }
        }
        if deadline.is_some_and(|deadline| Instant::now() > deadline) {
            let limit = limit.unwrap_or_default();
            let waited_for = match until {
                Until::Gone => String::new(),
                _ => {
                    let status = session.status().await?;
                    // On a slow machine the listeners may not have been counted yet. On an error, the last known result
                    // is used.
                    if let Some(docker) = &docker
                        && let Ok(missing) = listeners::missing(docker, &status).await
                    {
                        unbound = missing;
                    }
                    awaited(&status, &unbound)
                }
            };
            return Err(CliError::failed(
                format!("not done within {limit:?}{waited_for}"),
                Some("`sameport ps` shows the status of each replica; the supervisor keeps trying"),
            ));
        }
    }
}

/// Shows events until the replicas of these services, which publish ports, accept connections. After 10 s, prints what
/// is missing and succeeds.
///
/// # Errors
/// If the supervisor does not answer, or the reader has closed the pipe.
pub async fn until_taken(
    context: &Context,
    session: &Session,
    mut events: impl Stream<Item = Result<Line, CliError>> + Unpin,
    publish: &BTreeSet<ServiceName>,
) -> Result<(), CliError> {
    let deadline = Instant::now() + ACCEPT_TIMEOUT;
    let mut progress = Progress::new(context.data());
    loop {
        let mut status = session.status().await?;
        status.replicas.retain(|replica| {
            publish.iter().any(|name| name.as_str() == replica.service)
                && matches!(replica.state, ReplicaState::Starting | ReplicaState::NotListening { .. })
        });
        if status.replicas.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            status.rollouts.clear();
            status.errors.clear();
            return output::note(&format!(
                "not all replicas take connections yet; until one does, connections wait{}",
                awaited(&status, &[])
            ));
        }
        let look_at = Instant::now() + PAUSE;
        while let Ok(Some(line)) = tokio::time::timeout_at(look_at, events.next()).await {
            if let Line::Live(event) = line? {
                progress.event(&event)?;
            }
        }
        tokio::time::sleep_until(look_at).await;
    }
}

/// The replicas that are still draining, as a sentence.
fn finishing(status: &Status) -> String {
    let replicas = status.replicas.iter().filter_map(|replica| {
        let connections = replica.traffic.as_ref().map_or(0, |traffic| traffic.connections);
        let drains = replica.out_of_rotation_since.is_some() && connections > 0;
        drains.then(|| format!("{} ({connections})", replica.replica))
    });
    let replicas: Vec<_> = replicas.collect();
    format!(
        "still draining, by connections: {}; `sameport ps` shows them, `sameport drain --force REPLICA` ends one",
        replicas.join(", ")
    )
}

/// What is missing, as the end of a sentence.
fn awaited(status: &Status, unbound: &[String]) -> String {
    /// The largest number of items in the message.
    const SHOWN: usize = 5;
    let is_there = |replica: &&Replica| !(replica.state.is_up() && replica.up_to_date);
    let replicas = status.replicas.iter().filter(is_there).map(|replica| match &replica.state {
        ReplicaState::NotListening { missing_ports, unreachable_address: None } => {
            let ports: Vec<_> = missing_ports.iter().map(ToString::to_string).collect();
            format!("{} does not listen on port {}", replica.replica, ports.join(", "))
        }
        state if state.is_up() => format!("{} runs another version", replica.replica),
        _ => format!("{}: {}", replica.replica, replica.status),
    });
    let rollouts = status.rollouts.iter().map(|rollout| {
        let schema::Rollout { service, version, done, total, .. } = rollout;
        format!("version {version} of {service} works in {done} of {total} replicas")
    });
    let errors = status.errors.iter().map(|error| format!("{}: {}", error.target, error.error));
    let all: Vec<_> = replicas.chain(unbound.iter().cloned()).chain(rollouts).chain(errors).collect();
    let more = all.len().saturating_sub(SHOWN);
    let mut text: String = all.iter().take(SHOWN).map(|line| format!("\n    {line}")).collect();
    if more > 0 {
        text.push_str(&format!("\n    and {more} more"));
    }
    if text.is_empty() { text } else { format!("; waited for:{text}") }
}

fn is_enough(status: &Status, until: Until, named: &[ServiceName]) -> bool {
    let is_meant =
        |replica: &Replica| named.is_empty() || named.iter().any(|name| name.as_str() == replica.service);
    let started = |replica: &Replica| {
        replica.up_to_date
            && (replica.state.is_up()
                || matches!(
                    replica.state,
                    ReplicaState::Starting
                        | ReplicaState::NotListening { .. }
                        | ReplicaState::Unhealthy
                        | ReplicaState::Paused
                ))
            || replica.state == ReplicaState::Stopped
            || (matches!(replica.state, ReplicaState::Failed { .. }) && !is_meant(replica))
    };
    status.converged
        || (until == Until::Started
            && status.idle
            && hopeless(status).is_none()
            && !status.replicas.is_empty()
            && status.replicas.iter().all(started))
}

/// Tracks whether everything has been up for long enough.
#[derive(Debug, Default)]
struct StabilityTracker {
    converged_at: Option<Instant>,
    exits: u32,
}

impl StabilityTracker {
    /// Replicas that started long ago count at once. The local clock is used as well, since the engine's may differ.
    fn look(&mut self, status: &Status, now: Instant) -> bool {
        let exits = status.replicas.iter().map(|replica| replica.exits).sum();
        if !status.converged || self.exits != exits {
            self.converged_at = None;
        }
        self.exits = exits;
        if status.converged {
            self.converged_at.get_or_insert(now);
        }
        self.converged_at.is_some_and(|at| now - at >= MIN_UPTIME) || status.replicas.iter().all(is_steady)
    }
}

/// Whether a replica has been up for long enough, or has a health check that decides.
fn is_steady(replica: &Replica) -> bool {
    let age = replica.started_at.map(|at| Timestamp::now().duration_since(at.0));
    replica.state != ReplicaState::Running
        || age.is_some_and(|age| Duration::try_from(age).is_ok_and(|age| age >= MIN_UPTIME))
}

/// Shows events until the rollout of a service has finished, or waits for a command. `events` must have been subscribed
/// to before the request.
///
/// # Errors
/// If the new version failed and was rolled back or paused, or another rollout replaces this one.
pub async fn rollout(
    context: &Context,
    session: &Session,
    mut events: impl Stream<Item = Result<Line, CliError>> + Unpin,
    service: &ServiceName,
) -> Result<(), CliError> {
    let mut progress = Progress::new(context.data());
    let mut shown = Ok(());
    let followed = Followed::new(service, &session.status().await?);
    let mut tick = tokio::time::interval(PAUSE);
    loop {
        tokio::select! {
            biased;
            line = events.next() => match line {
                Some(Ok(Line::Live(event))) => {
                    if shown.is_ok() {
                        shown = progress.event(&event);
                    }
                    if let Some(end) = followed.end(&event.kind) {
                        return Err(end);
                    }
                }
                Some(Ok(Line::History(_) | Line::Missed { .. })) => {}
                Some(Err(error)) => return Err(error),
                None => return Err(CliError::failed("the supervisor has ended", None)),
            },
            _ = tick.tick() => {
                let status = session.status().await?;
                progress.status(&status);
                let underway = status.rollouts.iter().find(|rollout| rollout.service == service.as_str());
                let is_over = underway.is_none_or(|rollout| rollout.waits_for_command() && rollout.has_arrived());
                if is_over && status.idle {
                    return hopeless(&status).map_or(shown, Err);
                }
            }
        }
    }
}

/// The rollout that a command has started or changed.
struct Followed<'a> {
    service: &'a ServiceName,
    /// Its target version at the time of the request; `None` if there was no rollout.
    version: Option<u32>,
}

impl<'a> Followed<'a> {
    fn new(service: &'a ServiceName, status: &Status) -> Self {
        let rollout = status.rollouts.iter().find(|rollout| rollout.service == service.as_str());
        Self { service, version: rollout.map(|rollout| rollout.version) }
    }

    /// The error if this event starts another rollout in its place. An automatic rollback is followed instead.
    fn end(&self, event: &EventKind) -> Option<CliError> {
        let EventKind::Rollout { service, phase: RolloutPhase::Started { version, rollback, .. } } = event
        else {
            return None;
        };
        let ours = self.version.filter(|ours| service == self.service.as_str() && ours != version)?;
        let how = match rollback {
            None => format!("version {ours} was replaced by version {version}"),
            Some(Reason::Requested) => {
                format!("version {ours} was aborted: somebody asked to go back to version {version}")
            }
            Some(Reason::Failed { .. }) => return None,
        };
        let help = format!("`sameport rollout status {service}` shows what happens next");
        Some(CliError::failed(format!("{service}: {how}"), Some(&help)))
    }
}

/// The first error that is not retried.
fn hopeless(status: &Status) -> Option<CliError> {
    let error = status.errors.iter().find(|error| error.attempts.is_none())?;
    Some(CliError::failed(format!("{}: {}", error.target, error.error), error.help.as_deref()))
}

/// The number of consecutive exits of each replica.
fn exits(status: &Status) -> BTreeMap<String, u32> {
    status.replicas.iter().map(|replica| (replica.replica.clone(), replica.exits)).collect()
}

/// Whether the last log lines of all failed replicas have been read.
fn is_reported(status: &Status) -> bool {
    status.replicas.iter().all(|replica| match &replica.state {
        ReplicaState::Failed { exit } => {
            replica.last_termination.as_ref().is_some_and(|ended| ended.exit == *exit)
        }
        _ => true,
    })
}

/// The first repeated failure. A replica that runs and has not exited since the wait began is not counted for earlier
/// exits.
fn failure(status: &Status, before: &BTreeMap<String, u32>) -> Option<CliError> {
    // A rollout in progress may replace the failing replicas.
    if !status.rollouts.iter().all(Rollout::waits_for_command) {
        return hopeless(status);
    }
    for replica in &status.replicas {
        let name = &replica.replica;
        match &replica.state {
            ReplicaState::Blocked { error, help, attempts } if is_often(*attempts) => {
                return Some(CliError::failed(format!("{name} cannot be started: {error}"), help.as_deref()));
            }
            ReplicaState::Failed { exit } => {
                let message = format!("{name} failed: {}{}", convert::exit(exit), log_tail(replica));
                return Some(CliError::failed(message, Some("its restart rule allows no further try")));
            }
            _ => {}
        }
        let runs = replica.state.is_up() || replica.state == ReplicaState::Starting;
        if runs && before.get(name).is_some_and(|before| replica.exits <= *before) {
            continue;
        }
        let Some(ended) = &replica.last_termination else { continue };
        if let Some(conflict) = &ended.user_conflict {
            return Some(CliError::failed(convert::user_conflict(name, conflict), None));
        }
        if let Some(found) = &ended.port_not_shared {
            let message = convert::port_not_shared(name, &found.image, found.port);
            return Some(CliError::failed(message, Some(&convert::how_to_share(found.port))));
        }
        if replica.exits < MAX_EXITS {
            continue;
        }
        // The port may be free at the next attempt, once its holder has exited.
        if let Some(port) = &ended.exclusive_port {
            return Some(CliError::failed(convert::exclusive_port(name, port), None));
        }
        let how = convert::exit(&ended.exit);
        let message = format!("{name} keeps ending: {how}{}", log_tail(replica));
        let help = "the supervisor keeps trying; `sameport logs` shows the whole output";
        return Some(CliError::failed(message, Some(help)));
    }
    let error = status.errors.iter().find(|error| is_often(error.attempts))?;
    Some(CliError::failed(format!("{}: {}", error.target, error.error), error.help.as_deref()))
}

/// Whether the attempts are enough to report a failure. `None` means that nothing is attempted, so it cannot succeed.
fn is_often(attempts: Option<u32>) -> bool {
    attempts.is_none_or(|attempts| attempts >= MAX_EXITS)
}

fn log_tail(replica: &Replica) -> String {
    let lines = replica.last_termination.as_ref().map(|ended| ended.log.as_slice()).unwrap_or_default();
    if lines.is_empty() {
        return ", without a word".to_owned();
    }
    let shown: Vec<_> = lines.iter().map(|line| format!("\n    {line}")).collect();
    format!("; its last log lines:{}", shown.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A project with one replica without a health check, whose start time is in the future.
    fn status(converged: bool, exits: u32) -> Status {
        let replica = serde_json::json!({
            "project": "shop", "replica": "web-1", "service": "web", "slot": 1, "replacement": false, "orphan": false,
            "name": "shop-web-1", "pod": "web", "up_to_date": true, "state": "running", "status": "up",
            "started_at": Timestamp::MAX, "exits": exits, "sharing": "kernel", "ports": [],
            "exclusive_ports": [],
        });
        let status = serde_json::json!({
            "project": "shop", "supervised": true, "converged": converged, "idle": converged, "pods": [],
            "replicas": [replica], "rollouts": [], "orphans": [], "foreign_resources": [], "errors": [],
        });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn a_crash_between_two_polls_is_not_stable() {
        let (begin, mut steadiness) = (Instant::now(), StabilityTracker::default());
        for (seconds, converged, exits, wanted) in [
            (0, true, 0, false),
            (2, true, 0, false),
            // It exited and started again.
            (4, true, 1, false),
            (5, false, 1, false),
            (6, true, 1, false),
            (8, true, 1, false),
            (9, true, 1, true),
        ] {
            let now = begin + Duration::from_secs(seconds);
            assert_eq!(steadiness.look(&status(converged, exits), now), wanted, "at {seconds} s");
        }
    }

    #[test]
    fn a_failed_replica_is_not_up() {
        let mut failed = status(false, 1);
        let exit = serde_json::json!({ "exit_code": 3, "out_of_memory": false, "error": null, "at": "1970-01-01T00:00:00Z" });
        let state = serde_json::json!({ "state": "failed", "exit": exit });
        failed.idle = true;
        failed.replicas[0].state = serde_json::from_value(state).unwrap();
        for (until, named, wanted) in [
            (Until::Started, &[][..], false),
            (Until::Steady, &[], false),
            (Until::Started, &["web"], false),
            (Until::Started, &["jobs"], true),
        ] {
            let named: Vec<_> = named.iter().map(|name| name.parse().unwrap()).collect();
            assert_eq!(is_enough(&failed, until, &named), wanted, "{until:?} {named:?}");
        }
        assert_eq!(
            failure(&failed, &exits(&failed)).unwrap().to_string(),
            "web-1 failed: exit code 3, without a word"
        );
    }

    #[test]
    fn the_timeout_names_what_is_missing() {
        let mut deaf = status(false, 0);
        deaf.replicas[0].state =
            ReplicaState::NotListening { missing_ports: vec![80], unreachable_address: None };
        assert_eq!(awaited(&deaf, &[]), "; waited for:\n    web-1 does not listen on port 80");
        let line = "1 of 4 replicas of web listen on port 80".to_owned();
        assert_eq!(
            awaited(&status(true, 0), &[line]),
            "; waited for:\n    1 of 4 replicas of web listen on port 80"
        );
        assert_eq!(awaited(&status(true, 0), &[]), "");
    }

    #[test]
    fn a_replica_with_a_known_age_is_stable_at_once() {
        let mut old = status(true, 0);
        old.replicas[0].started_at = Some(Timestamp::UNIX_EPOCH.into());
        assert!(StabilityTracker::default().look(&old, Instant::now()));
    }

    #[test]
    fn a_conflict_on_an_exclusive_port_fails_after_repeated_exits() {
        let ended = |exits| {
            let mut status = status(false, exits);
            let termination = serde_json::json!({
                "exit": { "exit_code": 1, "out_of_memory": false, "error": null, "at": "1970-01-01T00:00:00Z" },
                "log": [], "exclusive_port": { "port": 30_001, "protocol": "tcp" },
            });
            status.replicas[0].last_termination = Some(serde_json::from_value(termination).unwrap());
            failure(&status, &BTreeMap::new()).map(|error| error.to_string())
        };
        assert_eq!(ended(MAX_EXITS - 1), None);
        let told = ended(MAX_EXITS).unwrap();
        assert!(told.contains("web-1 asked for port 30001/tcp, which is exclusive"), "{told}");
        assert!(told.contains("x-sameport: { ports: { \"30001\": shared } }"), "{told}");
    }

    #[test]
    fn the_log_tail_of_a_failure_is_that_of_its_last_exit() {
        let exit = |code| serde_json::json!({ "exit_code": code, "out_of_memory": false, "error": null, "at": "1970-01-01T00:00:00Z" });
        let mut failed = status(false, 1);
        failed.replicas[0].state =
            serde_json::from_value(serde_json::json!({ "state": "failed", "exit": exit(3) })).unwrap();
        assert!(!is_reported(&failed));
        for (code, wanted) in [(1, false), (3, true)] {
            let termination = serde_json::json!({ "exit": exit(code), "log": ["boom"] });
            failed.replicas[0].last_termination = Some(serde_json::from_value(termination).unwrap());
            assert_eq!(is_reported(&failed), wanted, "exit code {code}");
        }
        failed.replicas[0].state = ReplicaState::Running;
        failed.replicas[0].last_termination = None;
        assert!(is_reported(&failed), "nothing has failed");
    }

    #[test]
    fn earlier_exits_do_not_count_against_a_running_replica() {
        let mut ended = status(false, MAX_EXITS);
        let termination = serde_json::json!({
            "exit": { "exit_code": 0, "out_of_memory": false, "error": null, "at": "1970-01-01T00:00:00Z" },
            "log": [],
        });
        ended.replicas[0].last_termination = Some(serde_json::from_value(termination).unwrap());
        let before = exits(&ended);
        assert!(failure(&ended, &before).is_none(), "it is up");
        let mut again = ended.clone();
        again.replicas[0].exits += 1;
        let told = failure(&again, &before).unwrap().to_string();
        assert_eq!(told, "web-1 keeps ending: exit code 0, without a word");
        ended.replicas[0].state = ReplicaState::Starting;
        assert!(failure(&ended, &before).is_none(), "it begins");
        ended.replicas[0].state = ReplicaState::Unhealthy;
        assert!(failure(&ended, &before).is_some());
    }

    #[test]
    fn a_rollout_ends_when_replaced_and_not_when_rolled_back() {
        let service = "web".parse().unwrap();
        let followed = Followed { service: &service, version: Some(4) };
        let started = |service: &str, version, rollback: serde_json::Value| {
            let event = serde_json::json!({
                "event": "rollout", "service": service, "phase": "started", "previous_version": 3, "version": version,
                "rollback": rollback,
            });
            followed.end(&serde_json::from_value(event).unwrap()).map(|end| end.to_string())
        };
        let failure =
            serde_json::json!({ "slot": 1, "code": "unhealthy", "message": "its health check fails" });
        for (service, version, rollback, wanted) in [
            ("web", 4, None, None),
            ("web", 5, None, Some("web: version 4 was replaced by version 5")),
            ("jobs", 5, None, None),
            ("web", 3, Some(serde_json::json!({ "kind": "failed", "failure": failure })), None),
            (
                "web",
                3,
                Some(serde_json::json!({ "kind": "requested" })),
                Some("web: version 4 was aborted: somebody asked to go back to version 3"),
            ),
        ] {
            let rollback = rollback.unwrap_or_default();
            assert_eq!(started(service, version, rollback).as_deref(), wanted, "{service} {version}");
        }
    }
}
