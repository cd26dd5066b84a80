//! The column PORTS: ports as people read them.

use sameport::spec::{PortRange, PortSet, Protocol};

/// Consecutive host ports that map to as many consecutive ports of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Published {
    /// The host address; empty for all IPv4 addresses, and for all IPv6 addresses as well if those are published alike.
    address: String,
    /// The lowest host port.
    host: u16,
    /// The ports of the pod.
    inside: PortRange,
    /// Whether only one replica at a time can bind each of them.
    exclusive: bool,
}

impl Published {
    /// Parses `127.0.0.1:8080->80/tcp`, the form of the JSON schema.
    fn read(port: &str, exclusive: &PortSet) -> Option<Self> {
        let (host, inside) = port.split_once("->")?;
        let (address, host) = host.rsplit_once(':')?;
        let inside = range(inside)?;
        Some(Self {
            address: if address == "0.0.0.0" { String::new() } else { address.to_owned() },
            host: host.parse().ok()?,
            exclusive: exclusive.contains(inside.first, inside.protocol),
            inside,
        })
    }

    /// Extends this range by an adjacent one, or returns that one.
    fn join(&mut self, next: Self) -> Option<Self> {
        let follows = |first: u16, last: u16| last.checked_add(1) == Some(first);
        let joins = self.address == next.address
            && self.exclusive == next.exclusive
            && self.inside.protocol == next.inside.protocol
            && follows(next.inside.first, self.inside.last)
            && follows(next.host, self.last_of_host());
        if joins {
            self.inside.last = next.inside.last;
            return None;
        }
        Some(next)
    }

    fn last_of_host(&self) -> u16 {
        self.host.saturating_add(self.inside.last - self.inside.first)
    }

    fn shown(&self) -> String {
        let (first, last) = (self.host, self.last_of_host());
        let host = if first == last { first.to_string() } else { format!("{first}-{last}") };
        let address = if self.address.is_empty() { String::new() } else { format!("{}:", self.address) };
        marked(format!("{address}{host}->{}", self.inside), self.exclusive)
    }
}

fn marked(ports: String, exclusive: bool) -> String {
    if exclusive { format!("{ports} (exclusive)") } else { ports }
}

/// Parses `80/tcp` or `30000-30009/udp`, the form of the JSON schema.
fn range(text: &str) -> Option<PortRange> {
    let (ports, protocol) = text.split_once('/')?;
    let protocol =
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|p| p.to_string() == protocol)?;
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    Some(PortRange { protocol, first: first.parse().ok()?, last: last.parse().ok()? })
}

/// Formats the published ports of a pod and marks its exclusive ports: `80->8080/tcp, 30000-30009->30000-30009/tcp
/// (exclusive)`. Ports that are published on all IPv4 and IPv6 addresses appear once. Exclusive ports that are not
/// published come last, as Docker shows exposed ports.
pub fn compact(ports: &[String], exclusive: &[String]) -> String {
    let exclusive: PortSet = exclusive.iter().filter_map(|text| range(text)).collect();
    let mut published: Vec<_> = ports.iter().filter_map(|port| Published::read(port, &exclusive)).collect();
    let everywhere: Vec<_> = published.iter().filter(|port| port.address.is_empty()).cloned().collect();
    published.retain(|port| {
        let told = |other: &Published| (other.host, other.inside) == (port.host, port.inside);
        port.address != "[::]" || !everywhere.iter().any(told)
    });
    published.sort_by(|a, b| {
        let key = |port: &Published| (port.inside, port.host);
        (a.inside.protocol, &a.address, key(a)).cmp(&(b.inside.protocol, &b.address, key(b)))
    });
    let others = exclusive.without(&published.iter().map(|port| port.inside).collect());
    let mut joined: Vec<Published> = Vec::new();
    for port in published {
        let left = match joined.last_mut() {
            Some(last) => last.join(port),
            None => Some(port),
        };
        joined.extend(left);
    }
    let others = others.ranges().map(|range| marked(range.to_string(), true));
    joined.iter().map(Published::shown).chain(others).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(ports: &[&str], exclusive: &[&str]) -> String {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        compact(&owned(ports), &owned(exclusive))
    }

    #[test]
    fn a_port_published_on_all_addresses_is_shown_once() {
        for (ports, wanted) in [
            (&["0.0.0.0:80->8080/tcp", "[::]:80->8080/tcp"][..], "80->8080/tcp"),
            (&["127.0.0.1:80->8080/tcp", "[::1]:80->8080/tcp"], "127.0.0.1:80->8080/tcp, [::1]:80->8080/tcp"),
            (&["[::]:80->8080/tcp"], "[::]:80->8080/tcp"),
            (&["0.0.0.0:53->53/udp", "0.0.0.0:80->80/tcp"], "80->80/tcp, 53->53/udp"),
            (&[], ""),
        ] {
            assert_eq!(shown(ports, &[]), wanted);
        }
    }

    #[test]
    fn consecutive_ports_are_a_range() {
        for (ports, wanted) in [
            (&["0.0.0.0:80->80/tcp", "0.0.0.0:81->81/tcp", "0.0.0.0:82->82/tcp"][..], "80-82->80-82/tcp"),
            (&["0.0.0.0:9081->81/tcp", "0.0.0.0:9080->80/tcp"], "9080-9081->80-81/tcp"),
            // Two host ports of one port, or ports in another order, are not a range.
            (&["0.0.0.0:80->80/tcp", "0.0.0.0:81->80/tcp"], "80->80/tcp, 81->80/tcp"),
            (&["0.0.0.0:81->80/tcp", "0.0.0.0:80->81/tcp"], "81->80/tcp, 80->81/tcp"),
            (&["0.0.0.0:80->80/tcp", "0.0.0.0:81->81/udp"], "80->80/tcp, 81->81/udp"),
            (&["0.0.0.0:80->80/tcp", "127.0.0.1:81->81/tcp"], "80->80/tcp, 127.0.0.1:81->81/tcp"),
            (&["0.0.0.0:80->80/tcp", "[::]:80->80/tcp", "[::]:81->81/tcp"], "80->80/tcp, [::]:81->81/tcp"),
            (&["0.0.0.0:65534->1/udp", "0.0.0.0:65535->2/udp"], "65534-65535->1-2/udp"),
        ] {
            assert_eq!(shown(ports, &[]), wanted);
        }
    }

    #[test]
    fn only_exclusive_ports_are_marked() {
        let four = ["0.0.0.0:80->80/tcp", "0.0.0.0:81->81/tcp", "0.0.0.0:82->82/tcp", "0.0.0.0:90->83/tcp"];
        for (exclusive, wanted) in [
            (&[][..], "80-82->80-82/tcp, 90->83/tcp"),
            (&["80-83/tcp"], "80-82->80-82/tcp (exclusive), 90->83/tcp (exclusive)"),
            (&["81/tcp"], "80->80/tcp, 81->81/tcp (exclusive), 82->82/tcp, 90->83/tcp"),
            // Neither host ports nor another protocol match.
            (
                &["90/tcp", "80-83/udp"],
                "80-82->80-82/tcp, 90->83/tcp, 90/tcp (exclusive), 80-83/udp (exclusive)",
            ),
            (
                &["82-99/tcp"],
                "80-81->80-81/tcp, 82->82/tcp (exclusive), 90->83/tcp (exclusive), 84-99/tcp (exclusive)",
            ),
        ] {
            assert_eq!(shown(&four, exclusive), wanted);
        }
        assert_eq!(shown(&[], &["9100/tcp"]), "9100/tcp (exclusive)");
    }
}
