//! The pod of a service, and the merge of pods that several services share.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use super::{
    super::{
        fields::{Fields, wrong_type},
        node::Value,
        report::{Problem, Report},
        source::At,
    },
    joined, networks, ports,
};
use crate::spec::{Network, NetworkAttachment, Pod, PodNetwork, PortBinding, PortSet, Protocol, ServiceName};

/// The pod settings of one service, each with its place.
pub(super) struct Part {
    pub service: ServiceName,
    pub network: Option<(At, PodNetwork)>,
    /// Whether it joins the network of another service.
    joins: bool,
    pub ports: Vec<ports::Published>,
    /// Ranges of container ports that it publishes.
    pub ranges: PortSet,
    expose: BTreeSet<(u16, Protocol)>,
    hostname: Option<(At, String)>,
    domainname: Option<(At, String)>,
    dns: Option<(At, Vec<String>)>,
    dns_opt: Option<(At, Vec<String>)>,
    dns_search: Option<(At, Vec<String>)>,
    extra_hosts: Vec<String>,
    sysctls: BTreeMap<String, (At, String)>,
    shm_size: Option<(At, u64)>,
}

pub(super) fn part(service: &Fields<'_>, name: &ServiceName, known: &BTreeMap<String, Network>) -> Part {
    let placed = |key: &str, text: Option<String>| text.map(|text| (service.key_at(key), text));
    let list = |key: &str| service.get(key).map(|_| (service.key_at(key), service.strings(key)));
    let (ports, ranges) = ports::published(service, name);
    let part = Part {
        service: name.clone(),
        network: networks::of_service(service, known),
        joins: joined::written(service).is_some(),
        ports,
        ranges,
        expose: ports::expose(service),
        hostname: placed("hostname", service.text("hostname")),
        domainname: placed("domainname", service.text("domainname")),
        dns: list("dns"),
        dns_opt: list("dns_opt"),
        dns_search: list("dns_search"),
        extra_hosts: extra_hosts(service),
        sysctls: sysctls(service),
        shm_size: service.bytes("shm_size").map(|size| (service.key_at("shm_size"), size)),
    };
    check_addresses(service);
    part
}

fn check_addresses(service: &Fields<'_>) {
    for (text, at) in service.list("dns") {
        if text.parse::<std::net::IpAddr>().is_err() {
            let problem = Problem::error(at, format!("`{text}` is not the address of a DNS server"));
            service.report.push(problem.help("write an IP address such as `1.1.1.1`"));
        }
    }
}

fn sysctls(service: &Fields<'_>) -> BTreeMap<String, (At, String)> {
    let at = |name: &str| {
        service
            .get("sysctls")
            .and_then(|node| node.as_map()?.get(name))
            .map_or(service.node.at, |entry| entry.key)
    };
    service
        .full_table("sysctls")
        .into_iter()
        .map(|(name, value)| (name.clone(), (at(&name), value)))
        .collect()
}

/// Reads `host:address`, `host=address`, or a mapping of hosts to one or more addresses.
fn extra_hosts(service: &Fields<'_>) -> Vec<String> {
    let report = service.report;
    let Some(node) = service.get("extra_hosts") else { return Vec::new() };
    let mut lines = Vec::new();
    let mut add = |host: &str, address: &str, at: At| {
        let bare = address.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || (bare != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err()) {
            let problem = Problem::error(at, format!("`{address}` is not an address for host `{host}`"));
            report.push(problem.help("write `host=192.0.2.7`, or `host=host-gateway` for this machine"));
            return;
        }
        lines.push(format!("{host}:{bare}"));
    };
    match &node.value {
        Value::Map(map) => {
            for (host, entry) in map {
                for (address, at) in super::super::fields::texts(&entry.node, host, report) {
                    add(host, &address, at);
                }
            }
        }
        Value::List(_) => {
            for (text, at) in service.list("extra_hosts") {
                let (host, address) = text.split_once(['=', ':']).unwrap_or((&text, ""));
                add(host, address, at);
            }
        }
        Value::Scalar(_) => {
            report.push(wrong_type(node, "extra_hosts", "a list").help("write one `- host=address` a line"));
        }
    }
    lines
}

/// Merges the settings of all services of a pod. Settings that contradict each other are errors.
pub(super) fn join(mut parts: Vec<Part>, report: &Report) -> Pod {
    parts.sort_by(|a, b| a.service.cmp(&b.service));
    let parts = parts.as_slice();
    let network = network(parts, report);
    let own_network = !matches!(network, PodNetwork::Host);
    let mut sysctls: BTreeMap<String, (At, String)> = BTreeMap::new();
    for (name, (at, value)) in parts.iter().flat_map(|part| &part.sysctls) {
        if !own_network && name.starts_with("net.") {
            let problem = Problem::error(*at, format!("`{name}` would change the host's own network"));
            report.push(problem.help("set it on the host, or leave `network_mode: host`"));
        }
        match sysctls.get(name) {
            Some((first, other)) if other != value => report.push(differ(name, *at, *first)),
            _ => {
                sysctls.insert(name.clone(), (*at, value.clone()));
            }
        }
    }
    let mut seen = BTreeSet::new();
    let extra_hosts =
        parts.iter().flat_map(|part| &part.extra_hosts).filter(|line| seen.insert(*line)).cloned();
    let extra_hosts = extra_hosts.collect();
    Pod {
        ports: if own_network { ports_of(parts, report) } else { no_ports(parts, report) },
        expose: if own_network {
            parts.iter().flat_map(|p| p.expose.clone()).collect()
        } else {
            BTreeSet::new()
        },
        network,
        hostname: agreed("hostname", parts.iter().filter_map(|p| p.hostname.as_ref()), report),
        domainname: agreed("domainname", parts.iter().filter_map(|p| p.domainname.as_ref()), report),
        dns: agreed("dns", parts.iter().filter_map(|p| p.dns.as_ref()), report).unwrap_or_default(),
        dns_opt: agreed("dns_opt", parts.iter().filter_map(|p| p.dns_opt.as_ref()), report)
            .unwrap_or_default(),
        dns_search: agreed("dns_search", parts.iter().filter_map(|p| p.dns_search.as_ref()), report)
            .unwrap_or_default(),
        extra_hosts,
        sysctls: sysctls.into_iter().map(|(name, (_, value))| (name, value)).collect(),
        shm_size: agreed("shm_size", parts.iter().filter_map(|p| p.shm_size.as_ref()), report),
    }
}

fn differ(what: impl Display, at: At, first: At) -> Problem {
    Problem::error(at, format!("services of one pod disagree about `{what}`"))
        .related(first, "another service of the pod")
        .help("they share one network: write the same, or only one of them")
}

fn agreed<'a, T: Clone + PartialEq + 'a>(
    what: &str,
    said: impl Iterator<Item = &'a (At, T)>,
    report: &Report,
) -> Option<T> {
    let mut said = said;
    let (first, value) = said.next()?;
    if let Some((at, _)) = said.find(|(_, other)| other != value) {
        report.push(differ(what, *at, *first));
    }
    Some(value.clone())
}

/// Merges the networks of several services. A service without a setting joins the default network, unless another one
/// of its pod sets a network mode.
fn network(parts: &[Part], report: &Report) -> PodNetwork {
    let mut attachments: BTreeMap<String, NetworkAttachment> = BTreeMap::new();
    let mut first: Option<(At, &PodNetwork)> = None;
    for (at, network) in parts.iter().filter_map(|part| part.network.as_ref()) {
        match (first, network) {
            (None, _) => first = Some((*at, network)),
            (Some((_, PodNetwork::Networks(_))), PodNetwork::Networks(_)) => {}
            (Some((_, seen)), _) if seen == network => {}
            (Some((earlier, _)), _) => report.push(differ("network_mode", *at, earlier)),
        }
        let PodNetwork::Networks(own) = network else { continue };
        for (key, attachment) in own {
            match attachments.get_mut(key) {
                None => {
                    attachments.insert(key.clone(), attachment.clone());
                }
                Some(joined) => {
                    let clash = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some() && a != b;
                    if let Some((earlier, _)) = first
                        && (clash(&joined.ipv4_address, &attachment.ipv4_address)
                            || clash(&joined.ipv6_address, &attachment.ipv6_address))
                    {
                        report.push(differ("ipv4_address", *at, earlier));
                    }
                    joined.aliases.extend(attachment.aliases.iter().cloned());
                    joined.ipv4_address = joined.ipv4_address.take().or(attachment.ipv4_address.clone());
                    joined.ipv6_address = joined.ipv6_address.take().or(attachment.ipv6_address.clone());
                    joined.priority = joined.priority.max(attachment.priority);
                }
            }
        }
    }
    match first {
        None => PodNetwork::default(),
        Some((_, mode @ (PodNetwork::Host | PodNetwork::None | PodNetwork::Bridge))) => mode.clone(),
        Some((_, PodNetwork::Networks(_))) => {
            if parts.iter().any(|part| part.network.is_none() && !part.joins) {
                attachments.entry("default".to_owned()).or_default();
            }
            for attachment in attachments.values_mut() {
                attachment.aliases.sort();
                attachment.aliases.dedup();
            }
            PodNetwork::Networks(attachments)
        }
    }
}

/// The ports of all services, each once. They are sorted, so that the order in the file does not change the pod.
fn ports_of(parts: &[Part], report: &Report) -> Vec<PortBinding> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for PortBinding { service, host_ip, host_port, container_port, protocol } in
        parts.iter().flat_map(|part| part.ports.iter().map(|port| port.binding.clone()))
    {
        if seen.insert((host_ip, host_port, container_port, protocol)) {
            all.push(PortBinding { service, host_ip, host_port, container_port, protocol });
        }
    }
    all.sort();
    if matches!(parts.first().and_then(|p| p.network.as_ref()), Some((_, PodNetwork::None)))
        && let Some(port) = parts.iter().flat_map(|part| &part.ports).next()
    {
        let problem = Problem::error(port.at, "a service without a network cannot publish a port");
        report.push(problem.help("remove the port, or `network_mode: none`"));
    }
    all
}

fn no_ports(parts: &[Part], report: &Report) -> Vec<PortBinding> {
    for part in parts {
        if let Some(port) = part.ports.first() {
            let message = format!("`ports` of `{}` has no effect with `network_mode: host`", part.service);
            report.push(
                Problem::warning(port.at, message).help("the service listens on the host's ports itself"),
            );
        }
    }
    Vec::new()
}
