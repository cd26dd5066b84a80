//! Determines why a replica ended, from its last log lines and from conflicts that the kernel reported.

use std::collections::BTreeSet;

use crate::{
    kernel::steering::{OtherUser, Port},
    plan::ExclusivePort,
    spec::{PortSet, Protocol},
};

/// What the log of a replica says about a port that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortTaken {
    /// The port in the message, if it is published, exposed or exclusive in the pod.
    pub port: Option<u16>,
}

/// Messages of servers whose port is in use: the text of the C library, the name of the error, and messages of .NET,
/// Spring and gunicorn.
const SENTENCES: [&str; 6] = [
    "address already in use",
    "eaddrinuse",
    "address in use",
    "only one usage of each socket address",
    "port is already in use",
    "connection in use:",
];

/// Finds a message about a port in use in the last log lines, and the port if it is in `known` or `exclusive`.
#[must_use]
pub fn port_taken(log: &[String], known: &[u16], exclusive: &PortSet) -> Option<PortTaken> {
    let line = log.iter().rev().find(|line| {
        let line = line.to_lowercase();
        SENTENCES.iter().any(|sentence| line.contains(sentence))
    })?;
    let named = line
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .find(|port| known.contains(port) || protocol_of(exclusive, *port).is_some());
    let only = match known {
        // Exclusive ports need not be in `known`.
        [port] if exclusive.is_empty() => Some(*port),
        _ => None,
    };
    Some(PortTaken { port: named.or(only) })
}

/// The exclusive port because of which a replica ended, if it did. `conflicts` are the ports that the kernel refused
/// it, and `taken` is what its log says.
///
/// A program that survived a conflict may end much later for another reason. Therefore a replica whose log mentions no
/// port must have ended `soon` after its start.
#[must_use]
pub fn exclusive_port(
    taken: Option<PortTaken>,
    conflicts: &BTreeSet<Port>,
    exclusive: &PortSet,
    soon: bool,
) -> Option<ExclusivePort> {
    let refused = |wanted: Option<u16>| {
        let (transport, port) = conflicts.iter().find(|(_, port)| wanted.is_none_or(|it| it == *port))?;
        Some(ExclusivePort { port: *port, protocol: (*transport).into() })
    };
    match taken {
        // The kernel's report may be older than the exit.
        Some(PortTaken { port: Some(port) }) => refused(Some(port))
            .or_else(|| Some(ExclusivePort { port, protocol: protocol_of(exclusive, port)? })),
        Some(PortTaken { port: None }) => refused(None),
        None => refused(None).filter(|_| soon),
    }
}

/// The port of another user because of which a replica ended, if it did. `wanted` are the recent conflicts of the pod,
/// `own` is the conflict that the kernel saw of this replica, and `taken` is what its log says.
///
/// A replica whose log mentions no port must have ended `soon` after its start, as for exclusive ports.
#[must_use]
pub fn other_user(
    taken: Option<PortTaken>,
    wanted: &[OtherUser],
    own: Option<OtherUser>,
    soon: bool,
) -> Option<OtherUser> {
    let Some(taken) = taken else { return own.filter(|_| soon) };
    let is_it = |other: &&OtherUser| taken.port.is_none_or(|port| port == other.port);
    own.iter().chain(wanted).find(is_it).copied()
}

fn protocol_of(exclusive: &PortSet, port: u16) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp].into_iter().find(|protocol| exclusive.contains(port, *protocol))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kernel::sockets::Transport, spec::PortRange};

    /// Ports 30000 to 30009 of TCP, and 53 of UDP.
    fn exclusive() -> PortSet {
        let range = PortRange { protocol: Protocol::Tcp, first: 30_000, last: 30_009 };
        PortSet::from_iter([range, PortRange::of(53, Protocol::Udp)])
    }

    #[test]
    fn messages_of_common_servers_are_recognized() {
        for (server, line, port) in [
            (
                "nginx",
                "nginx: [emerg] bind() to 0.0.0.0:8080 failed (98: Address already in use)",
                Some(8080),
            ),
            ("Go", "listen tcp :8080: bind: address already in use", Some(8080)),
            ("Node", "Error: listen EADDRINUSE: address already in use :::8080", Some(8080)),
            ("gunicorn", "[ERROR] Connection in use: ('0.0.0.0', 8080)", Some(8080)),
            ("Python", "OSError: [Errno 98] Address already in use", None),
            (
                "Redis",
                "Warning: Could not create server TCP listening socket *:6379: bind: Address already in use",
                None,
            ),
        ] {
            let found = port_taken(&[line.to_owned(), "bye".to_owned()], &[8080, 9090], &PortSet::default());
            assert_eq!(found, Some(PortTaken { port }), "{server}");
        }
    }

    #[test]
    fn the_only_port_of_a_pod_need_not_be_named() {
        let log = ["OSError: [Errno 98] Address already in use".to_owned()];
        assert_eq!(port_taken(&log, &[80], &PortSet::default()), Some(PortTaken { port: Some(80) }));
    }

    #[test]
    fn other_exits_are_not_port_conflicts() {
        let none = PortSet::default();
        assert_eq!(port_taken(&["panic: no database at :8080".to_owned()], &[8080], &none), None);
        assert_eq!(port_taken(&[], &[8080], &none), None);
    }

    #[test]
    fn a_user_conflict_is_found_by_the_kernels_report_and_the_log() {
        let other = |port, user| OtherUser { port, user, owner: 0 };
        let (wanted, own) = ([other(80, 1000), other(8080, 1000)], Some(other(8080, 101)));
        let of = |port| Some(PortTaken { port });
        for (case, taken, own, soon, found) in [
            ("the kernel saw it, and it ended at once", None, own, true, own),
            ("the kernel saw it, and it lived on", None, own, false, None),
            ("it says so", of(None), own, false, own),
            ("it names it", of(Some(8080)), own, false, own),
            ("it names another one that somebody wanted", of(Some(80)), own, true, Some(wanted[0])),
            ("it names one that nobody wanted", of(Some(443)), own, true, None),
            ("it ended before the kernel's report", of(None), None, true, Some(wanted[0])),
            ("nothing of the kind", None, None, true, None),
        ] {
            assert_eq!(other_user(taken, &wanted, own, soon), found, "{case}");
        }
        assert_eq!(other_user(of(Some(8080)), &[], None, true), None);
    }

    #[test]
    fn an_exclusive_port_is_found_by_the_kernels_report_or_the_log() {
        let conflicts = BTreeSet::from([(Transport::Tcp, 30_001), (Transport::Udp, 53)]);
        let none = BTreeSet::new();
        let of = |port| Some(PortTaken { port });
        for (case, taken, conflicts, soon, wanted) in [
            ("the kernel saw it, and it ended at once", None, &conflicts, true, Some("30001/tcp")),
            ("the kernel saw it, and it lived on", None, &conflicts, false, None),
            ("it says so", of(None), &conflicts, false, Some("30001/tcp")),
            ("it names one", of(Some(53)), &conflicts, false, Some("53/udp")),
            ("it names another port", of(Some(8080)), &conflicts, true, None),
            ("the kernel was not asked since", of(Some(30_009)), &none, true, Some("30009/tcp")),
            ("of UDP", of(Some(53)), &none, true, Some("53/udp")),
            ("some port", of(None), &none, true, None),
            ("nothing of the kind", None, &none, true, None),
        ] {
            let found = exclusive_port(taken, conflicts, &exclusive(), soon);
            assert_eq!(found.map(|port| port.to_string()).as_deref(), wanted, "{case}");
        }
    }

    #[test]
    fn an_exclusive_port_need_not_be_published_to_be_found() {
        let log = ["listen tcp :30004: bind: address already in use".to_owned()];
        assert_eq!(port_taken(&log, &[80, 81], &exclusive()), Some(PortTaken { port: Some(30_004) }));
        let log = ["OSError: [Errno 98] Address already in use".to_owned()];
        assert_eq!(port_taken(&log, &[80], &exclusive()), Some(PortTaken { port: None }));
    }
}
