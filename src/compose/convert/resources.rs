//! Limits and reservations, from the service itself and from `deploy.resources`.

use super::super::{
    fields::Fields,
    keys,
    node::{Map, Node},
    report::Problem,
    units,
};
use crate::spec::Resources;

const CPUS: &str = "write a number of CPUs, such as `0.5`";

pub(super) fn resources(service: &Fields<'_>) -> Resources {
    let report = service.report;
    let empty = Node::map(Map::new(), service.node.at);
    let part = |fields: &Fields<'_>, key: &str| {
        fields
            .get(key)
            .filter(|node| Fields::of(node, key, report).is_some())
            .cloned()
            .unwrap_or_else(|| empty.clone())
    };
    let deploy = part(service, "deploy");
    let all = part(&Fields { node: &deploy, report }, "resources");
    keys::check(&all, "`resources`", keys::RESOURCES, report);
    let limits = part(&Fields { node: &all, report }, "limits");
    keys::check(&limits, "`limits`", keys::LIMITS, report);
    let reservations = part(&Fields { node: &all, report }, "reservations");
    keys::check(&reservations, "`reservations`", keys::RESERVATIONS, report);
    let (limits, reservations) = (Fields { node: &limits, report }, Fields { node: &reservations, report });
    let cpus = |fields: &Fields<'_>| fields.parsed("cpus", "a number of CPUs", CPUS, units::nano_cpus);

    let memory = one(service, "mem_limit", &limits, "memory", |f, key| f.bytes(key));
    let memory_reservation = one(service, "mem_reservation", &reservations, "memory", |f, key| f.bytes(key));
    if let (Some(most), Some(kept)) = (memory, memory_reservation)
        && kept > most
    {
        let at = if service.get("mem_reservation").is_some() {
            service.key_at("mem_reservation")
        } else {
            reservations.key_at("memory")
        };
        let problem = Problem::error(at, "more memory is reserved than the limit allows");
        report.push(problem.help("raise the limit, or lower the reservation"));
    }
    Resources {
        memory,
        memory_reservation,
        nano_cpus: one(service, "cpus", &limits, "cpus", |f, _| cpus(f)),
        cpuset: service.parsed("cpuset", "a set of CPUs", "write one such as `0-3` or `0,1`", cpuset),
        pids: one(service, "pids_limit", &limits, "pids", |f, key| f.integer(key)),
        shm_size: service.bytes("shm_size"),
    }
}

/// A limit that exists under two keys. Both may be set if they agree.
fn one<T: PartialEq>(
    service: &Fields<'_>,
    short: &str,
    deploy: &Fields<'_>,
    long: &str,
    read: impl Fn(&Fields<'_>, &str) -> Option<T>,
) -> Option<T> {
    let (first, second) = (read(service, short), read(deploy, long));
    if let (Some(a), Some(b)) = (&first, &second)
        && a != b
    {
        let message = format!("`{short}` and `{long}` of `deploy.resources` differ");
        let problem = Problem::error(service.key_at(short), message);
        service.report.push(problem.related(deploy.key_at(long), "the other one").help("keep one of them"));
    }
    first.or(second)
}

fn cpuset(text: &str) -> Option<String> {
    let number = |text: &str| text.trim().parse::<u16>().ok();
    let valid = text.split(',').all(|part| match part.split_once('-') {
        Some((first, last)) => number(first).zip(number(last)).is_some_and(|(a, b)| a <= b),
        None => number(part).is_some(),
    });
    valid.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_sets() {
        for (text, valid) in
            [("0", true), ("0-3", true), ("0,2-3", true), ("", false), ("3-1", false), ("a", false)]
        {
            assert_eq!(cpuset(text).is_some(), valid, "{text}");
        }
    }
}
