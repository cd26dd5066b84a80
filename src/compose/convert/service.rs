//! One service.

use std::collections::BTreeMap;

use super::{
    super::{
        fields::Fields,
        keys,
        report::{Problem, Report},
        source::At,
    },
    container,
    depends_on::Dependencies,
    deploy, extension, hooks, ipc, update, volumes,
};
use crate::spec::{
    DependencyCondition, PodName, PortSet, ProbeType, Project, Protocol, RestartCondition, Service,
    ServiceName, Sharing,
};

/// A service before its dependencies and its pod are settled.
pub(super) struct Draft {
    /// `None` if it has no valid image, which was reported.
    pub service: Option<Service>,
    pub pod: PodName,
    pub container_name: Option<(String, At)>,
    /// The place of `sharing`.
    sharing_at: Option<At>,
    /// The place of each probe.
    pub probes_at: Vec<(ProbeType, At)>,
    /// The place of `hold`.
    pub hold_at: Option<At>,
    /// The value of `ipc`.
    pub ipc: Option<ipc::Written>,
    /// The place of the restart policy; `None` if the file has none.
    restart_at: Option<At>,
}

pub(super) fn service(
    fields: &Fields<'_>,
    name: &ServiceName,
    key: At,
    published_ranges: &PortSet,
    known: &mut volumes::Known<'_>,
) -> Draft {
    let report = fields.report;
    keys::check(fields.node, "a service", keys::SERVICE, report);
    deploy::check(fields);
    let extension = extension::extension(fields);
    let replicas = deploy::replicas(fields);
    let (restart, restart_at) = match deploy::restart(fields) {
        deploy::Rule::Written(restart) => {
            let at = if fields.get("restart").is_some() { "restart" } else { "deploy" };
            (restart, Some(fields.key_at(at)))
        }
        deploy::Rule::Default(restart) => (restart, None),
    };
    let (update, rollback) = update::updates(fields, &extension);
    let pod = extension.pod.unwrap_or_else(|| name.into());
    let container_name = container_name(fields, name, replicas);
    let stop_grace = fields.duration("stop_grace_period").unwrap_or(Service::STOP_GRACE);
    let container = container::container(fields, name.as_str(), key, known);
    container::check_rights(fields, replicas);
    let service = container.map(|container| Service {
        name: name.clone(),
        pod: pod.clone(),
        container,
        replicas,
        container_name: container_name.as_ref().map(|(name, _)| name.clone()),
        restart,
        stop_grace,
        depends_on: BTreeMap::new(),
        pull_policy: container::pull_policy(fields),
        sharing: extension.sharing,
        balance: extension.balance,
        drain: extension.drain,
        hold: extension.hold,
        probe: extension.probe,
        unhealthy: extension.unhealthy,
        hooks: hooks::hooks(fields),
        pre_deploy: extension.pre_deploy,
        update,
        rollback,
        canary: extension.canary,
        exclusive_ports: published_ranges.union(&extension.exclusive_ports).without(&extension.shared_ports),
        shared_ports: extension.shared_ports,
    });
    let (sharing_at, probes_at, hold_at) = (extension.sharing_at, extension.probes_at, extension.hold_at);
    let ipc = ipc::written(fields);
    Draft { service, pod, container_name, sharing_at, probes_at, hold_at, ipc, restart_at }
}

fn container_name(fields: &Fields<'_>, service: &ServiceName, replicas: u32) -> Option<(String, At)> {
    let node = fields.get("container_name")?;
    let name = fields.text("container_name")?;
    let valid = name.len() > 1
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if !valid {
        let problem = Problem::error(node.at, format!("`{name}` cannot be the name of a container"));
        fields
            .report
            .push(problem.help("use letters, digits, `.`, `-` and `_`, starting with a letter or digit"));
    }
    if replicas > 1 {
        let message = format!("{replicas} containers of `{service}` cannot all be called `{name}`");
        let at = fields.key_at("container_name");
        let problem = Problem::error(at, message);
        fields.report.push(
            problem.help(format!("remove `container_name`: replicas are called PROJECT-{service}-1, -2, …")),
        );
    }
    Some((name, node.at))
}

/// Reports pods whose services have different settings of `sharing`: the kernel shares the ports of a whole pod.
pub(super) fn agree_on_sharing(drafts: &BTreeMap<ServiceName, Draft>, report: &Report) {
    let says = |sharing| {
        drafts.values().filter_map(move |draft| {
            let service = draft.service.as_ref()?;
            (service.sharing == sharing).then_some((&draft.pod, draft.sharing_at?))
        })
    };
    for (pod, kernel) in says(Sharing::Kernel) {
        if let Some((_, application)) = says(Sharing::Application).find(|(other, _)| *other == pod) {
            let message = format!("services in the pod `{pod}` must agree on `sharing`");
            let problem = Problem::error(kernel, message).related(application, "another one says so here");
            report.push(
                problem.help("write the same in both; or leave it out in one, which goes with the other"),
            );
        }
    }
}

/// Reports probes whose port is neither set nor unique.
pub(super) fn check_probes(
    project: &Project,
    probes: &BTreeMap<ServiceName, Vec<(ProbeType, At)>>,
    report: &Report,
) {
    for (name, places) in probes {
        let Some(service) = project.services.get(name) else { continue };
        for (probe_type, at) in places {
            let probe = service.probe.as_ref().and_then(|probes| probes.get(*probe_type));
            if probe.is_some_and(|probe| probe.needs_port() && project.probe_port(service, probe).is_none()) {
                let problem = Problem::error(
                    *at,
                    "the probe does not say which port, and there is not exactly one to take",
                );
                report.push(problem.help("write `port: 8080` below `probe`"));
            }
        }
    }
}

/// Warns of `hold` where all ports are UDP: datagrams cannot be held.
pub(super) fn check_holds(project: &Project, holds: &BTreeMap<ServiceName, At>, report: &Report) {
    for (name, at) in holds {
        let Some(service) = project.services.get(name) else { continue };
        if project.serves(service, Protocol::Udp) && !project.serves(service, Protocol::Tcp) {
            let problem = Problem::warning(*at, "`hold` has no effect: the service declares only UDP ports");
            report.push(problem.help(
                "while no replica is ready, datagrams are lost; run two or more replicas, or let clients retry",
            ));
        }
    }
}

/// Lets services complete that others wait for with `service_completed_successfully`. Without a restart policy, they
/// are restarted only after a failure.
pub(super) fn finish_jobs(
    drafts: &mut BTreeMap<ServiceName, Draft>,
    dependencies: &BTreeMap<ServiceName, Dependencies>,
    report: &Report,
) {
    let jobs = dependencies
        .values()
        .flatten()
        .filter(|(_, (dependency, _))| dependency.condition == DependencyCondition::CompletedSuccessfully);
    for (name, (_, at)) in jobs {
        let Some(draft) = drafts.get_mut(name) else { continue };
        let Some(service) = &mut draft.service else { continue };
        match draft.restart_at {
            None => service.restart.condition = RestartCondition::OnFailure,
            Some(written) if service.restart.condition == RestartCondition::Always => report.push(
                Problem::error(
                    *at,
                    format!("`{name}` is never completed: it is started again whenever it ends"),
                )
                .related(written, "its restart rule")
                .help("write `restart: on-failure` there"),
            ),
            Some(_) => {}
        }
    }
}
