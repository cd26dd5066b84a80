//! Warns of health checks that connect to their own service through a port published on the host. They reach any ready
//! replica, and wait until there is one.

use std::{collections::BTreeSet, net::IpAddr};

use crate::spec::{HealthTest, Pod, Project, Service};

use super::{
    node::Node,
    report::{Problem, Report},
};

/// Names that Docker gives to the host within containers.
const NAMES: [&str; 2] = ["host.docker.internal", "gateway.docker.internal"];
/// Default ports of `http` and `https`, for addresses without a port.
const PORTS_OF_SCHEMES: [u16; 2] = [80, 443];

/// Warns of such checks, identified by the names and the `addresses` of the host.
pub(super) fn warn(document: &Node, project: &Project, addresses: &[IpAddr], report: &Report) {
    for (name, service) in &project.services {
        let check = service.container.healthcheck.as_ref().map(|check| &check.test);
        let text = match check {
            Some(HealthTest::Cmd(words)) => words.join(" "),
            Some(HealthTest::Shell(line)) => line.clone(),
            Some(HealthTest::Inherit | HealthTest::None) | None => continue,
        };
        let Some(pod) = project.pods.get(&service.pod) else { continue };
        let Some(host) = host_in(&text, service, pod, addresses) else { continue };
        let node = document.get("services").and_then(|services| services.get(name.as_str()));
        let Some(test) = node.and_then(|node| node.get("healthcheck")?.get("test")) else { continue };
        let message = format!(
            "the check goes through {host}, and so to any replica that is ready, not to the one it is for"
        );
        let help = "ask `localhost`, or the service by its name: both are the replica itself";
        report.push(Problem::warning(test.at, message).help(help));
    }
}

/// The name or address of the host in a check, if it leads back to the service.
fn host_in(text: &str, service: &Service, pod: &Pod, addresses: &[IpAddr]) -> Option<String> {
    let published = pod.ports.iter().filter(|port| port.service == service.name);
    let ports: BTreeSet<u16> = published.filter_map(|port| port.host_port).collect();
    let aliases = pod.extra_hosts.iter().filter_map(|line| line.strip_suffix(":host-gateway"));
    let is_outside = |address: &&IpAddr| !address.is_loopback() && !address.is_unspecified();
    let addresses = addresses.iter().filter(is_outside).map(|address| match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    });
    let hosts = NAMES.into_iter().chain(aliases).map(str::to_owned).chain(addresses);
    hosts
        .into_iter()
        .find(|host| text.match_indices(host.as_str()).any(|(at, _)| leads(text, at, host, &ports)))
}

/// Whether the text uses the host at this position with one of these ports.
fn leads(text: &str, at: usize, host: &str, ports: &BTreeSet<u16>) -> bool {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let (before, after) =
        (text.get(..at).unwrap_or_default(), text.get(at + host.len()..).unwrap_or_default());
    if before.ends_with(is_of_name) || after.starts_with(is_of_name) {
        return false;
    }
    // In `nc host 80`, the port is a separate word.
    let number: String =
        after.trim_start_matches([':', ' ', '/']).chars().take_while(char::is_ascii_digit).collect();
    match number.parse() {
        Ok(port) if !after.starts_with('/') => ports.contains(&port),
        _ => before.ends_with('/') && PORTS_OF_SCHEMES.iter().any(|port| ports.contains(port)),
    }
}
