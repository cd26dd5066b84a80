//! `x-sameport.ports`: ports that replicas share, and ports that only one of them at a time can bind.

use std::collections::BTreeSet;

use super::{
    super::{
        fields::{Fields, loose, not_one_of, wrong_type},
        node::Entry,
        report::{Problem, Report},
        source::At,
    },
    ports,
};
use crate::spec::{PortRange, PortSet, PortSharing, Protocol};

const HELP: &str = "write `PORT` or `FIRST-LAST`, each with `/tcp` or `/udp` if only one is meant, such as `\"9000-9001/tcp\": exclusive`";

/// The port settings of a service.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub exclusive: PortSet,
    pub shared: PortSet,
}

/// The ports of one key, and whether they are shared or exclusive.
#[derive(Clone, Copy, Debug)]
struct Rule<'a> {
    ports: PortRange,
    sharing: PortSharing,
    key: &'a str,
    at: At,
}

pub(super) fn written(extension: &Fields<'_>) -> Written {
    let Some(node) = extension.get("ports") else { return Written::default() };
    let Some(map) = node.as_map() else {
        let problem = wrong_type(node, "x-sameport.ports", "a mapping");
        extension.report.push(problem.help("write one `\"PORT\": shared` or `\"PORT\": exclusive` a line"));
        return Written::default();
    };
    let mut rules: Vec<_> =
        map.iter().flat_map(|(key, entry)| self::rules(key, entry, extension.report)).collect();
    rules.sort_by_key(|rule| rule.ports);
    contradictions(&rules, extension.report);
    let of = |sharing| rules.iter().filter(move |rule| rule.sharing == sharing).map(|rule| rule.ports);
    Written { exclusive: of(PortSharing::Exclusive).collect(), shared: of(PortSharing::Shared).collect() }
}

/// The rules of one key, one per protocol.
fn rules<'a>(key: &'a str, entry: &Entry, report: &Report) -> Vec<Rule<'a>> {
    let words = [("shared", PortSharing::Shared), ("exclusive", PortSharing::Exclusive)];
    let word = loose(&entry.node).and_then(|text| words.iter().find(|(word, _)| *word == text));
    if word.is_none() {
        report.push(not_one_of(&entry.node, key, words.iter().map(|(word, _)| *word)));
    }
    let ports = parse(key).map_err(|why| report.push(Problem::error(entry.key, why).help(HELP))).ok();
    let (Some((_, sharing)), Some(ports)) = (word, ports) else { return Vec::new() };
    ports.into_iter().map(|ports| Rule { ports, sharing: *sharing, key, at: entry.key }).collect()
}

/// Parses `PORT[/PROTOCOL]` or `FIRST-LAST[/PROTOCOL]`.
fn parse(key: &str) -> Result<Vec<PortRange>, String> {
    let (numbers, protocols) = match key.rsplit_once('/') {
        None => (key, vec![Protocol::Tcp, Protocol::Udp]),
        Some((numbers, name)) => match name.to_ascii_lowercase().as_str() {
            "tcp" => (numbers, vec![Protocol::Tcp]),
            "udp" => (numbers, vec![Protocol::Udp]),
            _ => {
                return Err(format!(
                    "`{name}` is not a protocol whose ports are shared: it can be tcp or udp"
                ));
            }
        },
    };
    let ports = ports::range(numbers)?;
    let (first, last) = (*ports.start(), *ports.end());
    if first == 0 {
        return Err("port 0 of a container does not exist: ports are numbers from 1 to 65535".to_owned());
    }
    Ok(protocols.into_iter().map(|protocol| PortRange { protocol, first, last }).collect())
}

/// Reports ports that are both shared and exclusive. The rules are sorted by port.
fn contradictions(rules: &[Rule<'_>], report: &Report) {
    // For each kind, the rule with the highest last port is enough: a rule that overlaps an earlier one overlaps it.
    let mut furthest: [Option<Rule<'_>>; 2] = [None, None];
    let mut told = BTreeSet::new();
    for rule in rules {
        let (own, other) = match rule.sharing {
            PortSharing::Shared => (0, 1),
            PortSharing::Exclusive => (1, 0),
        };
        if let Some(clash) = furthest[other].filter(|other| other.ports.overlaps(&rule.ports)) {
            let (first, second) = if clash.at < rule.at { (clash, *rule) } else { (*rule, clash) };
            // Once for both protocols.
            if told.insert((first.at, second.at)) {
                let message = format!(
                    "`{}` and `{}` have ports in common and say different things",
                    first.key, second.key
                );
                let problem = Problem::error(second.at, message).related(first.at, "the other one is here");
                report.push(problem.help("write ranges that do not overlap"));
            }
        }
        let reaches = |rule: &Rule<'_>| (rule.ports.protocol, rule.ports.last);
        if furthest[own].is_none_or(|before| reaches(&before) <= reaches(rule)) {
            furthest[own] = Some(*rule);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_a_port_or_a_range_of_one_protocol_or_both() {
        for (key, wanted) in [
            ("8080", Ok("8080/tcp 8080/udp")),
            ("53/udp", Ok("53/udp")),
            ("9000-9001/TCP", Ok("9000-9001/tcp")),
            ("1-65535", Ok("1-65535/tcp 1-65535/udp")),
            ("0", Err("port 0 of a container does not exist: ports are numbers from 1 to 65535")),
            ("0-9", Err("port 0 of a container does not exist: ports are numbers from 1 to 65535")),
            ("70000", Err("`70000` is not a port: ports are numbers from 1 to 65535")),
            ("9-3", Err("the range 9-3 runs backwards")),
            ("-3", Err("`` is not a port: ports are numbers from 1 to 65535")),
            ("80:80", Err("`80:80` is not a port: ports are numbers from 1 to 65535")),
            ("80/sctp", Err("`sctp` is not a protocol whose ports are shared: it can be tcp or udp")),
            ("80/", Err("`` is not a protocol whose ports are shared: it can be tcp or udp")),
            ("", Err("`` is not a port: ports are numbers from 1 to 65535")),
        ] {
            let shown =
                parse(key).map(|ranges| ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
            assert_eq!(shown.as_deref().map_err(String::as_str), wanted, "{key}");
        }
    }
}
