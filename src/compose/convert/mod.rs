//! Converts a resolved tree to the spec. Each module covers one topic of the Compose Specification.

mod clash;
mod container;
mod depends_on;
mod deploy;
mod extension;
mod healthcheck;
mod hooks;
mod ipc;
mod joined;
mod networks;
mod pod;
mod port_sharing;
mod ports;
mod probe;
mod resources;
mod service;
mod update;
pub(super) mod volumes;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    fields::Fields,
    keys,
    node::{Entry, Node, Value},
    report::{Problem, Report},
};
use crate::spec::{Network, Pod, PodName, PodNetwork, Project, ProjectName, Service, ServiceName};

/// Converts a resolved tree to a project. Errors are pushed to the report; `None` if there are any.
pub(super) fn project(
    document: &Node,
    name: &ProjectName,
    off: &BTreeMap<String, Vec<String>>,
    report: &Report,
) -> Option<Project> {
    let top = Fields::of(document, "a Compose file", report)?;
    keys::check(document, "a Compose file", keys::TOP, report);
    let networks = networks::top(&top);
    let volumes = volumes::top(&top);
    let services = services(&top)?;
    let on: BTreeSet<ServiceName> = services.iter().map(|(name, _)| name.clone()).collect();

    let mut used = BTreeSet::new();
    let mut made = BTreeMap::new();
    let mut parts = BTreeMap::new();
    let mut joined = joined::Joined::new();
    let mut dependencies = BTreeMap::new();
    let mut names = Vec::new();
    for (name, entry) in services {
        let Some(fields) = Fields::of(&entry.node, name.as_str(), report) else { continue };
        let mut known = volumes::Known { volumes: &volumes, used: &mut used };
        let others = depends_on::Services { on: &on, off };
        let mut waits_for = depends_on::depends_on(&fields, &others);
        if let Some(other) = joined::of_service(&fields, &others, &mut waits_for) {
            joined.insert(name.clone(), other);
        }
        let part = pod::part(&fields, &name, &networks);
        let draft = service::service(&fields, &name, entry.key, &part.ranges, &mut known);
        parts.insert(name.clone(), part);
        names.extend(draft.container_name.clone());
        dependencies.insert(name.clone(), waits_for);
        made.insert(name, draft);
    }
    depends_on::check_cycles(&dependencies, report);
    joined::settle(&joined, &mut made, &parts, report);
    ipc::settle(&mut made, report);
    let mut pods: BTreeMap<PodName, Vec<pod::Part>> = BTreeMap::new();
    for (name, part) in parts {
        if let Some(draft) = made.get(&name) {
            pods.entry(draft.pod.clone()).or_default().push(part);
        }
    }
    clash::settle(&mut pods, report);
    clash::names(&names, report);
    let pods: BTreeMap<PodName, Pod> =
        pods.into_iter().map(|(name, parts)| (name, pod::join(parts, report))).collect();
    service::finish_jobs(&mut made, &dependencies, report);
    service::agree_on_sharing(&made, report);
    if report.failed() {
        return None;
    }
    let probes = made.iter().map(|(name, draft)| (name.clone(), draft.probes_at.clone())).collect();
    let holds = made.iter().filter_map(|(name, draft)| Some((name.clone(), draft.hold_at?))).collect();
    let finished = made.into_iter().filter_map(|(name, draft)| {
        let waits_for = dependencies.remove(&name).unwrap_or_default();
        let depends_on = waits_for.into_iter().map(|(name, (dependency, _))| (name, dependency)).collect();
        let shared_memory = pods.get(&draft.pod).is_none_or(Pod::has_sandbox);
        let mut service = Service { depends_on, ..draft.service? };
        if shared_memory {
            // The sandbox has the shared memory of the pod.
            service.container.resources.shm_size = None;
        }
        Some((name, service))
    });
    let project = Project {
        name: name.clone(),
        services: finished.collect(),
        networks: networks_of(&pods, networks),
        volumes: volumes.into_iter().filter(|(key, _)| used.contains(key)).collect(),
        pods,
    };
    service::check_probes(&project, &probes, report);
    service::check_holds(&project, &holds, report);
    (!report.failed()).then_some(project)
}

/// The services with valid names, without `x-` entries that have no image.
fn services<'a>(top: &Fields<'a>) -> Option<Vec<(ServiceName, &'a Entry)>> {
    let report = top.report;
    let Some(node) = top.get("services") else {
        let problem = Problem::error(top.key_at("services"), "the file has no `services`");
        report.push(problem.help("write `services:`, and below it `web:` with `image: NAME`"));
        return None;
    };
    let services = Fields::of(node, "services", report)?;
    let mut named = Vec::new();
    for (name, entry) in services.node.as_map().into_iter().flatten() {
        if name.starts_with("x-")
            && !matches!(&entry.node.value, Value::Map(map) if map.contains_key("image"))
        {
            continue;
        }
        match ServiceName::new(name.as_str()) {
            Ok(name) => named.push((name, entry)),
            Err(e) => report.push(
                Problem::error(entry.key, format!("`{}` cannot be the name of a service", e.name))
                    .help(e.rule),
            ),
        }
    }
    Some(named)
}

fn networks_of(
    pods: &BTreeMap<PodName, Pod>,
    mut all: BTreeMap<String, Network>,
) -> BTreeMap<String, Network> {
    let used: BTreeSet<&String> = pods
        .values()
        .filter_map(|pod| match &pod.network {
            PodNetwork::Networks(attachments) => Some(attachments.keys()),
            _ => None,
        })
        .flatten()
        .collect();
    all.retain(|key, _| used.contains(key));
    all
}
