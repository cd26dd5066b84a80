//! `ports` and `expose` of a service.

use std::{collections::BTreeSet, net::IpAddr, ops::RangeInclusive};

use super::super::{
    fields::{Fields, loose, wrong_type},
    keys,
    node::{Node, Value},
    report::{Problem, Report},
    source::At,
};
use crate::spec::{PortBinding, PortRange, PortSet, Protocol, ServiceName};

const HELP: &str = "write `CONTAINER`, `HOST:CONTAINER` or `ADDRESS:HOST:CONTAINER`, each with `/udp` if you like, such as \"80:8080\"";

/// A published port or range, before it is expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ports {
    host_ip: Option<IpAddr>,
    host: Option<RangeInclusive<u16>>,
    container: RangeInclusive<u16>,
    protocol: Protocol,
}

impl Ports {
    /// The container's ports if they are a range: a program then binds one of them and tells the client which.
    fn container_range(&self) -> Option<PortRange> {
        let (first, last) = (*self.container.start(), *self.container.end());
        let is_range = first < last && self.protocol != Protocol::Sctp;
        is_range.then_some(PortRange { protocol: self.protocol, first, last })
    }
}

/// A published port and its place in the file.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub at: At,
    pub binding: PortBinding,
    /// The last host port, if any port from the binding's host port up to it can be used.
    pub or_up_to: Option<u16>,
}

/// The published ports of a service, and the TCP and UDP ranges of container ports among them.
pub(super) fn published(service: &Fields<'_>, name: &ServiceName) -> (Vec<Published>, PortSet) {
    let Some(node) = service.get("ports") else { return Default::default() };
    let Value::List(list) = &node.value else {
        service
            .report
            .push(wrong_type(node, "ports", "a list").help("write one `- \"HOST:CONTAINER\"` a line"));
        return Default::default();
    };
    let mut all: Vec<Published> = Vec::new();
    let mut ranges = Vec::new();
    let mut seen = BTreeSet::new();
    for item in list {
        let ports = match &item.value {
            Value::Map(_) => long(item, service.report),
            Value::Scalar(_) => loose(item).and_then(|text| {
                short(text).map_err(|why| service.report.push(Problem::error(item.at, why).help(HELP))).ok()
            }),
            Value::List(_) => {
                service
                    .report
                    .push(wrong_type(item, "an entry of `ports`", "a text or a mapping").help(HELP));
                None
            }
        };
        ranges.extend(ports.as_ref().and_then(Ports::container_range));
        let spelled = ports.map(|ports| spell(&ports, item, name, service.report)).unwrap_or_default();
        // Repeated ports count once.
        for port in spelled {
            if seen.insert(port.binding.clone()) {
                all.push(port);
            }
        }
    }
    (all, ranges.into_iter().collect())
}

/// Expands a range to one binding per port.
fn spell(ports: &Ports, item: &Node, name: &ServiceName, report: &Report) -> Vec<Published> {
    let binding = |host_port, container_port| PortBinding {
        service: name.clone(),
        host_ip: ports.host_ip,
        host_port,
        container_port,
        protocol: ports.protocol,
    };
    if !report
        .may_spell(ports.container.len().max(ports.host.as_ref().map_or(0, ExactSizeIterator::len)), item.at)
    {
        return Vec::new();
    }
    let published = |binding| Published { at: item.at, binding, or_up_to: None };
    let Some(host) = &ports.host else {
        return ports.container.clone().map(|port| published(binding(None, port))).collect();
    };
    if host.len() == ports.container.len() {
        let pairs = host.clone().zip(ports.container.clone());
        return pairs.map(|(host, container)| published(binding(Some(host), container))).collect();
    }
    if ports.container.len() == 1 {
        let first = binding(Some(*host.start()), *ports.container.start());
        return vec![Published { at: item.at, binding: first, or_up_to: Some(*host.end()) }];
    }
    let message =
        format!("{} host ports cannot lead to {} container ports", host.len(), ports.container.len());
    report.push(Problem::error(item.at, message).help("write two ranges of the same length"));
    Vec::new()
}

/// Parses `[[ADDRESS:]HOST:]CONTAINER[/PROTOCOL]`.
fn short(text: &str) -> Result<Ports, String> {
    let (rest, protocol) = match text.rsplit_once('/') {
        Some((rest, name)) => (
            rest,
            protocol(name)
                .ok_or_else(|| format!("`{name}` is not a protocol: it can be tcp, udp or sctp"))?,
        ),
        None => (text, Protocol::Tcp),
    };
    let (rest, container) = rest.rsplit_once(':').map_or((None, rest), |(rest, last)| (Some(rest), last));
    let container = range(container)?;
    if *container.start() == 0 {
        return Err("port 0 of a container does not exist: ports are numbers from 1 to 65535".to_owned());
    }
    let Some(rest) = rest else { return Ok(Ports { host_ip: None, host: None, container, protocol }) };
    let (address, host) = match rest.rsplit_once(':') {
        Some((address, host)) => (Some(address), host),
        None => (None, rest),
    };
    let host_ip = match address {
        None => None,
        Some(address) => {
            let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
            Some(bare.parse().map_err(|_| format!("`{address}` is not an IP address"))?)
        }
    };
    let host = if host.is_empty() { None } else { Some(range(host)?) };
    Ok(Ports { host_ip, host: host.filter(|h| *h != (0..=0)), container, protocol })
}

/// Parses `80` or `80-89`. Port 0 means any host port.
pub(super) fn range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let port = |text: &str| {
        let digits = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        let number = digits.then(|| text.parse::<u16>().ok()).flatten();
        number.ok_or_else(|| format!("`{text}` is not a port: ports are numbers from 1 to 65535"))
    };
    match text.split_once('-') {
        None => port(text).map(|port| port..=port),
        Some((first, last)) => {
            let (first, last) = (port(first)?, port(last)?);
            if first > last {
                Err(format!("the range {first}-{last} runs backwards"))
            } else {
                Ok(first..=last)
            }
        }
    }
}

fn protocol(name: &str) -> Option<Protocol> {
    match name.to_ascii_lowercase().as_str() {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        "sctp" => Some(Protocol::Sctp),
        _ => None,
    }
}

fn long(item: &Node, report: &Report) -> Option<Ports> {
    keys::check(item, "an entry of `ports`", keys::PORT, report);
    let fields = Fields { node: item, report };
    let Some(_) = fields.get("target") else {
        report.push(
            Problem::error(item.at, "this port has no `target`").help("add the container's: `target: 8080`"),
        );
        return None;
    };
    let port = "write a port from 1 to 65535";
    let target =
        fields.parsed("target", "a port", port, |text| range(text).ok().filter(|r| *r.start() > 0))?;
    let host = match fields.get("published") {
        None => None,
        Some(_) => {
            Some(fields.parsed("published", "a port or a range of ports", port, |text| range(text).ok())?)
        }
    };
    let host_ip = match fields.get("host_ip") {
        None => None,
        Some(_) => {
            Some(fields.parsed("host_ip", "an IP address", "write one such as `127.0.0.1`", |text| {
                text.parse().ok()
            })?)
        }
    };
    let protocol = match fields.get("protocol") {
        None => Protocol::Tcp,
        Some(_) => fields.choice(
            "protocol",
            &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("sctp", Protocol::Sctp)],
        )?,
    };
    Some(Ports { host_ip, host: host.filter(|h| *h != (0..=0)), container: target, protocol })
}

/// The ports that `expose` makes available to other containers.
pub(super) fn expose(service: &Fields<'_>) -> BTreeSet<(u16, Protocol)> {
    let mut all = BTreeSet::new();
    for (text, at) in service.list("expose") {
        match short(&text) {
            Ok(Ports { host: None, container, protocol, .. }) => {
                if service.report.may_spell(container.len(), at) {
                    all.extend(container.map(|port| (port, protocol)));
                }
            }
            Ok(_) => service.report.push(
                Problem::error(
                    at,
                    format!("`expose` names ports of the container only, and `{text}` has one of the host"),
                )
                .help("publish it with `ports`, or write the last part only"),
            ),
            Err(why) => service.report.push(Problem::error(at, why).help("write `8080` or `8080/udp`")),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(ports: &Ports) -> String {
        let range = |r: &RangeInclusive<u16>| format!("{}-{}", r.start(), r.end());
        let host = ports.host.as_ref().map(range).unwrap_or_default();
        let ip = ports.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
        format!("{ip}|{host}|{}|{}", range(&ports.container), ports.protocol)
    }

    #[test]
    fn short_forms() {
        for (text, expected) in [
            ("8080", "||8080-8080|tcp"),
            ("80:8080", "|80-80|8080-8080|tcp"),
            ("127.0.0.1:80:8080/udp", "127.0.0.1|80-80|8080-8080|udp"),
            ("127.0.0.1::8080", "127.0.0.1||8080-8080|tcp"),
            ("3000-3005:3000-3005", "|3000-3005|3000-3005|tcp"),
            ("[::1]:80:80", "::1|80-80|80-80|tcp"),
            ("::1:80:80", "::1|80-80|80-80|tcp"),
            ("8000-9000:80", "|8000-9000|80-80|tcp"),
            ("0:80", "||80-80|tcp"),
            ("53:53/UDP", "|53-53|53-53|udp"),
        ] {
            assert_eq!(short(text).as_ref().map(shown), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn bad_forms_say_what_is_wrong() {
        for (text, expected) in [
            ("", "`` is not a port: ports are numbers from 1 to 65535"),
            ("http", "`http` is not a port: ports are numbers from 1 to 65535"),
            ("80:70000", "`70000` is not a port: ports are numbers from 1 to 65535"),
            ("+80", "`+80` is not a port: ports are numbers from 1 to 65535"),
            ("90-80", "the range 90-80 runs backwards"),
            ("80/tpc", "`tpc` is not a protocol: it can be tcp, udp or sctp"),
            ("localhost:80:80", "`localhost` is not an IP address"),
        ] {
            assert_eq!(short(text), Err(expected.to_owned()), "{text}");
        }
    }
}
