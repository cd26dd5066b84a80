//! `depends_on`: the dependencies of a service, which must not form a cycle.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{
    fields::{Fields, wrong_type},
    keys,
    node::Value,
    report::{Problem, Report},
    source::At,
};
use crate::spec::{Dependency, DependencyCondition, ServiceName};

/// The largest number of services of a cycle in a message.
const MOST_SHOWN: usize = 10;

/// The services of the file.
pub(super) struct Services<'a> {
    /// The enabled services.
    pub on: &'a BTreeSet<ServiceName>,
    /// The services that no enabled profile selects, with their profiles.
    pub off: &'a BTreeMap<String, Vec<String>>,
}

/// The dependencies of a service by name, each with its place in the file.
pub(super) type Dependencies = BTreeMap<ServiceName, (Dependency, At)>;

pub(super) fn depends_on(service: &Fields<'_>, services: &Services<'_>) -> Dependencies {
    let report = service.report;
    let Some(node) = service.get("depends_on") else { return BTreeMap::new() };
    let Value::Map(map) = &node.value else {
        report.push(wrong_type(node, "depends_on", "a list of services").help("write one `- NAME` a line"));
        return BTreeMap::new();
    };
    let mut found = BTreeMap::new();
    for (name, entry) in map {
        let dependency = if entry.node.is_null() {
            Dependency { condition: DependencyCondition::Started, required: true, restart: false }
        } else {
            let Some(fields) = Fields::of(&entry.node, name, report) else { continue };
            dependency(&fields)
        };
        match ServiceName::new(name.as_str()).ok().filter(|name| services.on.contains(name)) {
            Some(on) => {
                found.insert(on, (dependency, entry.key));
            }
            None if !dependency.required => {}
            None => report.push(unknown(name, entry.key, services, report)),
        }
    }
    found
}

fn dependency(fields: &Fields<'_>) -> Dependency {
    keys::check(fields.node, "an entry of `depends_on`", keys::DEPENDENCY, fields.report);
    let conditions = [
        ("service_started", DependencyCondition::Started),
        ("service_healthy", DependencyCondition::Healthy),
        ("service_completed_successfully", DependencyCondition::CompletedSuccessfully),
    ];
    Dependency {
        condition: fields.choice("condition", &conditions).unwrap_or_default(),
        required: fields.boolean("required").unwrap_or(true),
        restart: fields.boolean("restart").unwrap_or(false),
    }
}

pub(super) fn unknown(name: &str, at: At, services: &Services<'_>, report: &Report) -> Problem {
    if let Some(profiles) = services.off.get(name) {
        let profile = profiles.first().map_or("NAME", String::as_str);
        return Problem::error(at, format!("service `{name}` is disabled: none of its profiles is enabled"))
            .help(format!("enable it with `--profile {profile}`, or write `required: false` below it"));
    }
    let help = match report.nearest(name, services.on.iter().map(ServiceName::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "name a service of this file".to_owned(),
    };
    Problem::error(at, format!("service `{name}` is not defined")).help(help)
}

/// Reports the first cycle of dependencies.
pub(super) fn check_cycles(all: &BTreeMap<ServiceName, Dependencies>, report: &Report) {
    let mut done = BTreeSet::new();
    for start in all.keys() {
        let mut path = Vec::new();
        if let Some(circle) = circle(start, all, &mut done, &mut path) {
            let mut names: Vec<_> = circle.iter().map(|name| name.as_str()).collect();
            if names.len() > MOST_SHOWN {
                names.truncate(MOST_SHOWN);
                names.push("…");
            }
            let (first, second) = (circle[0], circle[1 % circle.len()]);
            let Some((_, at)) = all.get(first).and_then(|d| d.get(second)) else { continue };
            let message = format!("services wait for each other: {} → {}", names.join(" → "), first);
            report.push(
                Problem::error(*at, message)
                    .label(format!("`{first}` waits for `{second}` here"))
                    .help("remove one of these dependencies"),
            );
            return;
        }
    }
}

/// The first cycle that is reachable from a service.
fn circle<'a>(
    name: &'a ServiceName,
    all: &'a BTreeMap<ServiceName, Dependencies>,
    done: &mut BTreeSet<&'a ServiceName>,
    path: &mut Vec<&'a ServiceName>,
) -> Option<Vec<&'a ServiceName>> {
    // Not recursive: a chain can be as long as the file.
    let mut waiting = vec![all.get(name)?.keys()];
    let mut on_path = BTreeSet::from([name]);
    path.push(name);
    if done.contains(name) {
        return None;
    }
    while let Some(next) = waiting.last_mut() {
        let Some(next) = next.next() else {
            waiting.pop();
            if let Some(left) = path.pop() {
                on_path.remove(left);
                done.insert(left);
            }
            continue;
        };
        if on_path.contains(next) {
            return path.iter().position(|seen| *seen == next).map(|start| path[start..].to_vec());
        }
        if let (false, Some(deeper)) = (done.contains(next), all.get(next)) {
            path.push(next);
            on_path.insert(next);
            waiting.push(deeper.keys());
        }
    }
    None
}
