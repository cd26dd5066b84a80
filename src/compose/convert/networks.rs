//! `networks` and `network_mode` of a service, and the top-level `networks`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::super::{
    fields::{Fields, wrong_type},
    keys,
    node::Value,
    report::Problem,
    source::At,
};
use crate::spec::{IpamPool, Network, NetworkAttachment, PodNetwork};

/// The network of a service; `None` if the file does not set one.
pub(super) fn of_service(
    service: &Fields<'_>,
    known: &BTreeMap<String, Network>,
) -> Option<(At, PodNetwork)> {
    let report = service.report;
    let mode = service.get("network_mode");
    if let (Some(mode), Some(_)) = (mode, service.get("networks")) {
        let problem = Problem::error(mode.at, "a service has `network_mode` or `networks`, not both");
        report.push(problem.related(service.key_at("networks"), "the networks").help("remove one of them"));
        return None;
    }
    if let Some(mode) = mode {
        let text = service.text("network_mode")?;
        let network = match text.as_str() {
            "host" => PodNetwork::Host,
            "none" => PodNetwork::None,
            "bridge" => PodNetwork::Bridge,
            // The network is that of the other service.
            other if other.starts_with("service:") => return None,
            other => {
                let message = format!("`network_mode: {other}` is not supported");
                let help = "write `host`, `none`, `bridge` or `service:NAME`, or use `networks`";
                report.push(Problem::error(mode.at, message).help(help));
                return None;
            }
        };
        return Some((mode.at, network));
    }
    let node = service.get("networks")?;
    let Value::Map(map) = &node.value else {
        report.push(wrong_type(node, "networks", "a list of networks").help("write one `- NAME` a line"));
        return None;
    };
    let mut attachments = BTreeMap::new();
    for (key, entry) in map {
        if !known.contains_key(key) {
            let help = match report.nearest(key, known.keys().map(String::as_str)) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("add `{key}:` under the top-level `networks:`"),
            };
            report.push(Problem::error(entry.key, format!("network `{key}` is not defined")).help(help));
            continue;
        }
        let attachment = if entry.node.is_null() {
            NetworkAttachment::default()
        } else {
            let Some(fields) = Fields::of(&entry.node, key, report) else { continue };
            keys::check(&entry.node, "an entry of `networks`", keys::ATTACHMENT, report);
            attachment(&fields)
        };
        attachments.insert(key.clone(), attachment);
    }
    // `networks: []` means no network except loopback.
    let network = if map.is_empty() { PodNetwork::None } else { PodNetwork::Networks(attachments) };
    Some((node.at, network))
}

fn attachment(fields: &Fields<'_>) -> NetworkAttachment {
    let v4 = "write one such as `172.28.0.5`";
    let v6 = "write one such as `2001:db8::5`";
    NetworkAttachment {
        aliases: fields.strings("aliases"),
        ipv4_address: fields
            .parsed("ipv4_address", "an IPv4 address", v4, |text| text.parse::<Ipv4Addr>().ok())
            .map(|ip| ip.to_string()),
        ipv6_address: fields
            .parsed("ipv6_address", "an IPv6 address", v6, |text| text.parse::<Ipv6Addr>().ok())
            .map(|ip| ip.to_string()),
        priority: fields.integer("priority").unwrap_or(0),
    }
}

/// The top-level `networks`, which always include `default`.
pub(super) fn top(document: &Fields<'_>) -> BTreeMap<String, Network> {
    let report = document.report;
    let mut networks = BTreeMap::new();
    let all = document.get("networks").and_then(|node| Fields::of(node, "networks", report));
    for (key, entry) in all.into_iter().filter_map(|all| all.node.as_map()).flatten() {
        let Some(fields) = Fields::of(&entry.node, key, report) else { continue };
        keys::check(&entry.node, "a network", keys::NETWORK, report);
        let flag = |key| fields.boolean(key).unwrap_or(false);
        let network = Network {
            name: fields.text("name").unwrap_or_else(|| key.clone()),
            external: flag("external"),
            driver: fields.text("driver"),
            driver_opts: fields.full_table("driver_opts"),
            internal: flag("internal"),
            attachable: flag("attachable"),
            enable_ipv6: flag("enable_ipv6"),
            ipam: ipam(&fields),
            labels: fields.full_table("labels"),
        };
        let own = ["driver", "driver_opts", "internal", "attachable", "enable_ipv6", "ipam", "labels"];
        if network.external {
            check_external(&fields, &own);
        }
        networks.insert(key.clone(), network);
    }
    networks
}

fn ipam(network: &Fields<'_>) -> Vec<IpamPool> {
    let report = network.report;
    let Some(fields) = network.get("ipam").and_then(|node| Fields::of(node, "ipam", report)) else {
        return Vec::new();
    };
    keys::check(fields.node, "`ipam`", keys::IPAM, report);
    let Some(config) = fields.get("config") else { return Vec::new() };
    let Value::List(list) = &config.value else {
        report.push(wrong_type(config, "config", "a list").help("write `- subnet: 172.28.0.0/16`"));
        return Vec::new();
    };
    let pools = list.iter().filter_map(|item| {
        let pool = Fields::of(item, "an entry of `config`", report)?;
        keys::check(item, "an entry of `config`", keys::IPAM_POOL, report);
        let cidr = |key| pool.parsed(key, "a range of addresses", "write one such as `172.28.0.0/16`", cidr);
        let gateway = pool.parsed("gateway", "an address", "write one such as `172.28.0.1`", |text| {
            text.parse::<IpAddr>().ok().map(|_| text.to_owned())
        });
        Some(IpamPool { subnet: cidr("subnet"), gateway, ip_range: cidr("ip_range") })
    });
    pools.collect()
}

fn cidr(text: &str) -> Option<String> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    bits.parse::<u8>().ok().filter(|&bits| bits <= most).map(|_| text.to_owned())
}

/// Reports keys that cannot be set on an external network or volume.
pub(super) fn check_external(fields: &Fields<'_>, own: &[&str]) {
    if let Some(key) = own.iter().find(|key| fields.get(key).is_some()) {
        let problem =
            Problem::error(fields.key_at(key), format!("`{key}` cannot be set on what is `external`"));
        fields.report.push(
            problem
                .related(fields.key_at("external"), "it exists already, and is never made here")
                .help("remove one of them"),
        );
    }
}
