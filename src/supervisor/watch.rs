//! Compares two observations: which replicas ended and why, whose health changed, and which pods were lost.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use futures_util::StreamExt;
use jiff::Timestamp;

use crate::{
    engine::{ContainerId, ContainerState, Engine, LogOptions, Role},
    kernel::steering::{OtherUser, PodReport, Port},
    plan::{
        Container, Desired, Goal, LastTermination, Observed, Phase, PortNotShared, Sharing, Target, WINDOW,
        status::ExitStatus,
    },
    spec::{Image, PodName, PortSet, ServiceName, Slot},
};

use super::{EventKind, diagnosis, journal::Event};

/// The number of last log lines that are kept of a replica that ended.
const LOG_TAIL: usize = 10;
/// Maximum length of each line, in bytes.
const LONGEST_LINE: usize = 1024;
/// The engine records the start time once a process runs, so a process that ends immediately may have written its
/// output before that time. Output of the previous process is older than this: starting a process takes longer.
const NOTED_WITHIN: Duration = Duration::from_millis(200);

/// The differences between two observations.
#[derive(Debug, Default)]
pub struct Seen {
    /// Events to report immediately.
    pub events: Vec<EventKind>,
    /// Exits to examine first.
    pub deaths: Vec<Death>,
}

/// A replica that ended without being stopped by the supervisor.
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
    /// The published and exposed ports of its pod, and the ports that it requested in vain.
    ports: Vec<u16>,
    /// Port conflicts between users in its pod.
    other_users: Vec<OtherUser>,
    /// The port conflict of this replica, if the kernel saw it.
    own_user: Option<OtherUser>,
    /// Exclusive ports of other replicas that it requested.
    conflicts: BTreeSet<Port>,
    /// The exclusive ports of its pod; empty if the kernel does not share the others.
    exclusive: PortSet,
    /// Whether another container that may hold the port ran in its pod.
    has_neighbour: bool,
}

/// The result of examining an exit.
#[derive(Clone, Debug)]
pub struct TerminationReport {
    /// The replica that ended.
    pub target: Target,
    /// The last termination to store.
    pub last_termination: LastTermination,
    /// Events to report.
    pub events: Vec<Event>,
    /// Set if it ended because another user held its port. If the exit is excused, only the event of the excuse is
    /// reported.
    pub excuse: Option<Excuse>,
}

/// A process that ended because another user held its port.
#[derive(Clone, Debug)]
pub struct Excuse {
    /// The container of the process.
    pub container: ContainerId,
    /// The start time of the process.
    pub started_at: Timestamp,
    /// The event to report.
    pub event: Event,
}

/// Compares an observation with the previous one, and records exits in the history.
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
                let networks = |container: &Container| -> BTreeSet<String> {
                    let connections = container.connections.as_ref();
                    connections.map(|c| c.networks.keys().cloned().collect()).unwrap_or_default()
                };
                if !busy && container.connections.is_some() && container.process().is_some() {
                    let was = before.get(&container.id).map(networks).unwrap_or_default();
                    for network in was.difference(&networks(container)) {
                        let (pod, network) = (container.labels.pod.clone(), network.clone());
                        seen.events.push(EventKind::PodDisconnected { pod, network });
                    }
                }
            }
            Role::PreDeploy { .. } => {}
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
                let is_paused = |container: &Container| matches!(container.state, ContainerState::Paused(_));
                if is_paused(container) && old.is_none_or(|old| !is_paused(old)) {
                    seen.events.push(EventKind::Paused { service: service.clone(), slot: *slot });
                }
            }
        }
    }
    let is_new = |container: &Container| {
        let before = before.get(&container.id).and_then(Container::process);
        before.is_none_or(|process| process.check_error.is_none())
    };
    seen.events.extend(check_errors(desired, observed, is_new));
    seen.deaths = deaths(desired, observed);
    seen
}

/// Services whose health check cannot be run, except for versions of which that is known already.
pub fn check_errors(
    desired: &Desired,
    observed: &Observed,
    is_new: impl Fn(&Container) -> bool,
) -> Vec<EventKind> {
    let error = |container: &Container| container.process().and_then(|process| process.check_error.clone());
    let mut found = Vec::new();
    for name in desired.project.services.keys() {
        let of_service = || observed.service(name).filter_map(|(slot, one)| Some((slot, one, error(one)?)));
        let mut known: BTreeSet<_> = of_service()
            .filter(|(_, container, _)| !is_new(container))
            .map(|(_, container, _)| container.labels.generation.clone())
            .collect();
        for (slot, container, error) in of_service() {
            if known.insert(container.labels.generation.clone()) {
                found.push(EventKind::HealthCheckError { service: name.clone(), slot, error });
            }
        }
    }
    found
}

/// Records exits in the history, and returns the new ones of replicas that the supervisor did not stop.
pub fn deaths(desired: &Desired, observed: &mut Observed) -> Vec<Death> {
    let ended: Vec<_> = observed.containers.values().filter_map(|c| death(desired, observed, c)).collect();
    let mut deaths = Vec::new();
    for (mut death, container) in ended {
        let Some(service) = desired.project.services.get(&death.service) else { continue };
        let history = observed.history.entry(death.target.clone()).or_default();
        if history.note(&container, &service.restart) {
            death.exits = history.exits;
            deaths.push(death);
        }
    }
    deaths
}

fn death(desired: &Desired, observed: &Observed, container: &Container) -> Option<(Death, Container)> {
    let Role::Replica { service, slot } = &container.labels.role else { return None };
    let ContainerState::Exited(exit) = &container.state else { return None };
    if !matches!(desired.goals.get(service), Some(Goal::Run { replicas }) if slot.number() <= *replicas) {
        return None;
    }
    if observed.in_doubt_until(container).is_some() || desired.stopped_outside_since(container).is_some() {
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
    let (conflicts, exclusive) = exclusive_ports(desired, observed, container);
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
            .chain(conflicts.iter().map(|(_, port)| *port))
            .collect(),
        other_users: report(observed, &spec.pod)
            .map_or_else(Vec::new, |pod| pod.other_users.values().copied().collect()),
        own_user: report(observed, &spec.pod).and_then(|pod| pod.port_requests.get(&container.id)).copied(),
        conflicts,
        exclusive,
        has_neighbour,
    };
    Some((death, container.clone()))
}

fn report<'a>(observed: &'a Observed, pod: &PodName) -> Option<&'a PodReport> {
    match &observed.sharing {
        Sharing::ByKernel(report) => report.pods.get(pod),
        _ => None,
    }
}

/// The exclusive ports that a replica requested in vain, and those of its pod; both empty if the kernel does not share
/// its ports.
fn exclusive_ports(
    desired: &Desired,
    observed: &Observed,
    container: &Container,
) -> (BTreeSet<Port>, PortSet) {
    let pod = &container.labels.pod;
    let report = match &observed.sharing {
        Sharing::ByKernel(report) if desired.project.wants_kernel(pod) => report.pods.get(pod),
        _ => None,
    };
    match report.filter(|report| report.netns != 0) {
        Some(report) => {
            let conflicts = report.exclusive_conflicts.get(&container.id).cloned().unwrap_or_default();
            (conflicts, desired.project.exclusive_ports(pod))
        }
        None => (BTreeSet::new(), PortSet::default()),
    }
}

/// Reads the last log lines of a replica that ended, and determines the cause.
pub async fn last_termination<E: Engine>(engine: &E, death: Death, now: Timestamp) -> TerminationReport {
    let log = log_tail(engine, &death.container, death.started_at).await;
    let said = match death.exit.code != 0 {
        true => diagnosis::port_taken(&log, &death.ports, &death.exclusive),
        false => None,
    };
    let taken = said.filter(|_| death.has_neighbour);
    let ran = Duration::try_from(death.exit.at.duration_since(death.started_at)).unwrap_or_default();
    let exclusive_port = diagnosis::exclusive_port(taken, &death.conflicts, &death.exclusive, ran < WINDOW)
        .filter(|_| death.exit.code != 0);
    // A conflict over an exclusive port rules out one between users, which rules out an image that does not share its
    // port.
    let taken = taken.filter(|_| exclusive_port.is_none());
    let other_user = diagnosis::other_user(said, &death.other_users, death.own_user, ran < WINDOW)
        .filter(|_| death.exit.code != 0 && exclusive_port.is_none());
    let taken = taken.filter(|_| other_user.is_none());
    let Death { target, service, slot, exit, exits, image, container, started_at, .. } = death;
    let mut kinds = vec![EventKind::Exited {
        service: service.clone(),
        slot,
        exit: exit.clone(),
        exits,
        log: log.clone(),
    }];
    kinds.extend(exclusive_port.map(|port| EventKind::ExclusivePort {
        service: service.clone(),
        slot,
        port,
    }));
    let excuse = other_user.map(|other| Excuse {
        container,
        started_at,
        event: Event { time: now, kind: EventKind::UserConflict { service: service.clone(), slot, other } },
    });
    kinds.extend(taken.map(|taken| EventKind::PortNotShared {
        service,
        slot,
        image: image.clone(),
        port: taken.port,
    }));
    let port_not_shared = taken.map(|taken| PortNotShared { image, port: taken.port });
    let last_termination = LastTermination { exit, log, port_not_shared, other_user, exclusive_port };
    let events = kinds.into_iter().map(|kind| Event { time: now, kind }).collect();
    TerminationReport { target, last_termination, events, excuse }
}

/// The last log lines of a process; empty if they cannot be read, which must not affect anything else.
pub async fn log_tail<E: Engine>(engine: &E, container: &ContainerId, since: Timestamp) -> Vec<String> {
    let since = since.checked_sub(NOTED_WITHIN).unwrap_or(since);
    let tail = u64::try_from(LOG_TAIL).ok();
    let options = LogOptions { tail, since: Some(since), ..LogOptions::default() };
    let mut log = VecDeque::new();
    match engine.logs(container, &options).await {
        Ok(mut lines) => {
            while let Some(Ok(mut line)) = lines.next().await {
                // The engine may split a long line.
                if log.len() == LOG_TAIL {
                    log.pop_front();
                }
                cut(&mut line.text);
                log.push_back(line.text);
            }
        }
        Err(error) => tracing::debug!(%error, %container, "cannot read the last log lines"),
    }
    log.into()
}

/// Truncates a line, because log lines are kept with each event.
fn cut(line: &mut String) {
    let Some((end, _)) = line.char_indices().take_while(|(at, _)| *at <= LONGEST_LINE).last() else { return };
    if line.len() > LONGEST_LINE {
        line.truncate(end);
        line.push('…');
        line.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::{
        clock::Clock,
        engine::{Labels, LogLine, memory::Memory},
        kernel::{
            sockets::Transport,
            steering::{PodReport, Report},
        },
        spec::{self, Generation, Hooks, Limits, PortRange, Project, Protocol, Service},
    };

    #[tokio::test(start_paused = true)]
    async fn log_lines_from_before_the_noted_start_are_read_and_those_of_another_process_are_not() {
        let engine = Memory::new(Clock::starting_at(Timestamp::UNIX_EPOCH), 1);
        let id = ContainerId("one".to_owned());
        let started_at = Timestamp::from_millisecond(10_000).unwrap();
        let line = |millisecond, text: &str| LogLine {
            time: Some(Timestamp::from_millisecond(millisecond).unwrap()),
            stderr: false,
            text: text.to_owned(),
            bytes: None,
        };
        engine.world().log = vec![line(9_700, "the last one's"), line(9_999, "no database")];
        assert_eq!(log_tail(&engine, &id, started_at).await, ["no database"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_quoted_log_lines_are_few_and_short() {
        let engine = Memory::new(Clock::starting_at(Timestamp::UNIX_EPOCH), 1);
        let line = |number: usize| LogLine {
            time: Some(Timestamp::from_second(10).unwrap()),
            stderr: false,
            text: format!("{number} {}", "ä".repeat(30_000)),
            bytes: None,
        };
        engine.world().log = (0..100).map(line).collect();
        let id = ContainerId("one".to_owned());
        let log = log_tail(&engine, &id, Timestamp::from_second(10).unwrap()).await;
        assert_eq!(log.len(), LOG_TAIL);
        assert!(log[LOG_TAIL - 1].starts_with("99 ä"), "{}", log[LOG_TAIL - 1]);
        assert!(log.iter().all(|line| line.len() <= LONGEST_LINE + '…'.len_utf8() && line.ends_with('…')));
    }

    /// A replica that ended with this exit code after this many seconds, and to which the kernel refused these ports.
    fn death(code: i64, ran: i64, conflicts: &[Port]) -> Death {
        let at = |second| Timestamp::from_second(1_000 + second).unwrap();
        Death {
            target: Target::Replica("web".parse().unwrap(), Slot::new(2).unwrap()),
            service: "web".parse().unwrap(),
            slot: Slot::new(2).unwrap(),
            container: ContainerId("two".to_owned()),
            exit: ExitStatus { code, out_of_memory: false, error: None, at: at(ran) },
            started_at: at(0),
            exits: 1,
            image: Image("ftp:1".to_owned()),
            ports: [21].into_iter().chain(conflicts.iter().map(|(_, port)| *port)).collect(),
            other_users: Vec::new(),
            own_user: None,
            conflicts: conflicts.iter().copied().collect(),
            exclusive: PortSet::from_iter([PortRange {
                protocol: Protocol::Tcp,
                first: 30_000,
                last: 30_009,
            }]),
            has_neighbour: true,
        }
    }

    /// Examines an exit with this log line.
    async fn found_out(death: Death, words: &str) -> TerminationReport {
        let engine = Memory::new(Clock::starting_at(Timestamp::UNIX_EPOCH), 1);
        let line =
            LogLine { time: Some(death.started_at), stderr: true, text: words.to_owned(), bytes: None };
        engine.world().log = vec![line];
        last_termination(&engine, death, Timestamp::UNIX_EPOCH).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_exclusive_port_is_reported_instead_of_an_image_that_does_not_share() {
        let refused = [(Transport::Tcp, 30_001)];
        let in_use = "bind: address already in use";
        for (case, death, words, wanted) in [
            ("the kernel saw it", death(1, 1, &refused), "no passive port", Some(30_001)),
            ("it says so, late", death(1, 60, &refused), in_use, Some(30_001)),
            ("it names the port", death(1, 1, &[]), "bind to :30004: address already in use", Some(30_004)),
            ("it got over it, and ended of something else", death(1, 60, &refused), "no database", None),
            ("it ended well", death(0, 1, &refused), "bye", None),
        ] {
            let told = found_out(death, words).await;
            let found = told.last_termination.exclusive_port;
            assert_eq!(found.map(|port| port.port), wanted, "{case}");
            assert_eq!(told.last_termination.port_not_shared, None, "{case}");
            let told_of = |event: &Event| matches!(event.kind, EventKind::ExclusivePort { .. });
            assert_eq!(told.events.iter().any(told_of), wanted.is_some(), "{case}");
        }
        let told = found_out(death(1, 1, &refused), in_use).await;
        let message = crate::api::convert::event(&told.events[1]).message.unwrap();
        assert_eq!(
            message,
            "web-2 asked for port 30001/tcp, which is exclusive and held by another replica; to let replicas share it: \
             `x-sameport: { ports: { \"30001\": shared } }`"
        );
        // For a port that is not exclusive, the image is the cause.
        let told = found_out(death(1, 1, &refused), "bind to :21: address already in use").await;
        assert_eq!(told.last_termination.exclusive_port, None);
        assert_eq!(told.last_termination.port_not_shared.and_then(|found| found.port), Some(21));
    }

    #[test]
    fn exclusive_ports_count_only_where_the_kernel_shares_the_others() {
        let service = Service {
            sharing: spec::Sharing::Auto,
            exclusive_ports: PortSet::from_iter([PortRange::of(9000, Protocol::Tcp)]),
            ..crate::supervisor::desired_state::tests::service("web", 2, &[])
        };
        let desired = |service: &Service| {
            let mut project = Project::empty("shop".parse().unwrap());
            project.pods.insert(service.pod.clone(), spec::Pod::default());
            project.services.insert(service.name.clone(), service.clone());
            Desired::all(project)
        };
        let container = Container {
            id: ContainerId("two".to_owned()),
            name: "shop-web-2".to_owned(),
            labels: Labels {
                project: "shop".parse().unwrap(),
                pod: "web".parse().unwrap(),
                generation: Generation::from_label("0123456789ab"),
                role: Role::Replica { service: "web".parse().unwrap(), slot: Slot::new(2).unwrap() },
            },
            joined: None,
            image_id: None,
            hooks: Hooks::default(),
            limits: Limits::default(),
            recreated: false,
            check: None,
            volumes: std::collections::BTreeSet::new(),
            connections: None,
            since: Timestamp::UNIX_EPOCH,
            netns: None,
            state: ContainerState::Dead,
        };
        let conflicts = BTreeSet::from([(Transport::Tcp, 9000)]);
        let pod = PodReport {
            netns: 7,
            exclusive_conflicts: BTreeMap::from([(container.id.clone(), conflicts.clone())]),
            ..PodReport::default()
        };
        let by_kernel = |pod: PodReport| {
            let pods = BTreeMap::from([("web".parse().unwrap(), pod)]);
            Observed { sharing: Sharing::ByKernel(Arc::new(Report { pods })), ..Observed::default() }
        };
        let nothing = (BTreeSet::new(), PortSet::default());
        let on = by_kernel(pod);
        let found =
            |service: &Service, observed: &Observed| exclusive_ports(&desired(service), observed, &container);
        assert_eq!(found(&service, &on), (conflicts, service.exclusive_ports.clone()));
        assert_eq!(found(&service, &Observed::default()), nothing);
        assert_eq!(found(&service, &by_kernel(PodReport::default())), nothing, "it could not even begin");
        let alone = Service { sharing: spec::Sharing::Application, ..service };
        assert_eq!(found(&alone, &on), nothing);
    }
}
