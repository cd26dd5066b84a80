//! Conflicts between services of the file: host ports and container names.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{
        report::{Problem, Report},
        source::At,
    },
    pod::Part,
};
use crate::spec::{PodName, PodNetwork, PortBinding};

/// Chooses a port for each binding with a range of host ports, then reports ports that conflict.
pub(super) fn settle(pods: &mut BTreeMap<PodName, Vec<Part>>, report: &Report) {
    choose(pods, report);
    let mut all: Vec<(At, &PodName, &PortBinding)> = published(pods)
        .flat_map(|(pod, part)| part.ports.iter().map(move |p| (p.at, pod, &p.binding)))
        .collect();
    all.sort();
    let mut by_port: BTreeMap<u16, Vec<(At, &PodName, &PortBinding)>> = BTreeMap::new();
    for (at, pod, binding) in all {
        let Some(host_port) = binding.host_port else { continue };
        let others = by_port.entry(host_port).or_default();
        let clash = others.iter().find(|(_, other_pod, other)| {
            let shared = *other_pod == pod && other.container_port == binding.container_port;
            !shared && overlap(other, binding)
        });
        if let Some((first, _, other)) = clash {
            let (a, b) = (&binding.service, &other.service);
            let who =
                if a == b { format!("`{a}` publishes it twice") } else { format!("`{b}` has it already") };
            let message = format!("host port {host_port} is taken: {who}");
            report.push(
                Problem::error(at, message)
                    .related(*first, "the first one")
                    .help("publish one of them on another port"),
            );
        } else {
            others.push((at, pod, binding));
        }
    }
}

fn published(pods: &BTreeMap<PodName, Vec<Part>>) -> impl Iterator<Item = (&PodName, &Part)> {
    pods.iter().flat_map(|(pod, parts)| {
        let on_host = parts.iter().any(|part| matches!(part.network, Some((_, PodNetwork::Host))));
        parts.iter().filter(move |_| !on_host).map(move |part| (pod, part))
    })
}

/// `8000-9000:80` leaves a choice. Since all replicas share one port, the first one is taken that no other service of
/// the file names.
fn choose(pods: &mut BTreeMap<PodName, Vec<Part>>, report: &Report) {
    let fixed = |port: &&super::ports::Published| port.or_up_to.is_none();
    let ports = pods.values().flatten().flat_map(|part| &part.ports);
    let mut taken: BTreeSet<u16> = ports.filter(fixed).filter_map(|port| port.binding.host_port).collect();
    for port in pods.values_mut().flatten().flat_map(|part| &mut part.ports) {
        let (Some(first), Some(last)) = (port.binding.host_port, port.or_up_to) else { continue };
        let Some(free) = (first..=last).find(|port| !taken.contains(port)) else {
            let problem =
                Problem::error(port.at, format!("all ports from {first} to {last} are taken in this file"));
            report.push(problem.help("widen the range, or move it"));
            continue;
        };
        taken.insert(free);
        port.binding.host_port = Some(free);
        let message =
            format!("of the ports {first} to {last}, only {free} is published: all replicas share it");
        report.push(
            Problem::warning(port.at, message)
                .help(format!("write `{free}:{}`", port.binding.container_port)),
        );
    }
}

/// Whether two bindings of the same host port conflict.
fn overlap(a: &PortBinding, b: &PortBinding) -> bool {
    let addresses = match (a.host_ip, b.host_ip) {
        (Some(a), Some(b)) => {
            a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
        }
        _ => true,
    };
    addresses && a.protocol == b.protocol
}

/// Reports container names that two services use.
pub(super) fn names(all: &[(String, At)], report: &Report) {
    let mut seen: BTreeMap<&str, At> = BTreeMap::new();
    for (name, at) in all {
        if let Some(first) = seen.insert(name, *at) {
            let problem =
                Problem::error(*at, format!("two services are called `{name}` by `container_name`"));
            report.push(
                problem.related(first, "the first one").help("leave `container_name` out of one of them"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Protocol, ServiceName};

    #[test]
    fn bindings_overlap_where_their_addresses_do() {
        let binding = |ip: &str| PortBinding {
            service: ServiceName::new("web").unwrap(),
            host_ip: ip.parse().ok(),
            host_port: Some(80),
            container_port: 80,
            protocol: Protocol::Tcp,
        };
        for (a, b, expected) in [
            ("", "", true),
            ("", "127.0.0.1", true),
            ("", "::1", true),
            ("0.0.0.0", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("0.0.0.0", "::1", false),
            ("::", "::1", true),
        ] {
            assert_eq!(overlap(&binding(a), &binding(b)), expected, "{a} {b}");
            assert_eq!(overlap(&binding(b), &binding(a)), expected, "{b} {a}");
        }
        let udp = PortBinding { protocol: Protocol::Udp, ..binding("") };
        assert!(!overlap(&udp, &binding("")));
    }
}
