//! Why a replica ended, read from its last words.

/// What a replica's output says about a port that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortTaken {
    /// The port that it names, if it is one of those that lead into the pod.
    pub port: Option<u16>,
}

/// What servers write when another socket has their port: the C library's sentence, the name of the error, or
/// words of their own (.NET, Spring, gunicorn).
const SENTENCES: [&str; 6] = [
    "address already in use",
    "eaddrinuse",
    "address in use",
    "only one usage of each socket address",
    "port is already in use",
    "connection in use:",
];

/// Whether one of the last lines says that a port was taken, and which.
#[must_use]
pub fn port_taken(log: &[String], known: &[u16]) -> Option<PortTaken> {
    let line = log.iter().rev().find(|line| {
        let line = line.to_lowercase();
        SENTENCES.iter().any(|sentence| line.contains(sentence))
    })?;
    let named = line
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .find(|port| known.contains(port));
    let only = match known {
        [port] => Some(*port),
        _ => None,
    };
    Some(PortTaken { port: named.or(only) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_it_in_their_own_ways() {
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
            let found = port_taken(&[line.to_owned(), "bye".to_owned()], &[8080, 9090]);
            assert_eq!(found, Some(PortTaken { port }), "{server}");
        }
    }

    #[test]
    fn the_only_port_of_a_pod_needs_no_naming() {
        let log = ["OSError: [Errno 98] Address already in use".to_owned()];
        assert_eq!(port_taken(&log, &[80]), Some(PortTaken { port: Some(80) }));
    }

    #[test]
    fn other_deaths_are_no_port_conflict() {
        assert_eq!(port_taken(&["panic: no database at :8080".to_owned()], &[8080]), None);
        assert_eq!(port_taken(&[], &[8080]), None);
    }
}
