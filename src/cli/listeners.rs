//! Counts listening sockets where the kernel does not share ports and so counts nothing. The socket table of a pod's
//! network is readable by every user on the engine's host, even without access to the processes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use sameport::{
    api::schema::{Replica, ReplicaState, Sharing, Status},
    engine::{ContainerId, ContainerState, Engine, EngineError, docker::Docker},
};

/// Describes services of which fewer sockets listen than replicas run, one line each. Empty if that cannot be found
/// out.
///
/// # Errors
/// If the engine does not answer.
pub async fn missing(docker: &Docker, status: &Status) -> Result<Vec<String>, EngineError> {
    let mut lines = Vec::new();
    if !docker.is_local() {
        return Ok(lines);
    }
    for pod in status.pods.iter().filter(|pod| pod.sharing == Sharing::Application) {
        let Some(id) = &pod.sandbox_id else { continue };
        let all: Vec<_> = status.replicas.iter().filter(|replica| replica.pod == pod.name).collect();
        let services: BTreeSet<_> = all.iter().map(|replica| &replica.service).collect();
        let running: Vec<_> =
            all.into_iter().filter(|replica| replica.state == ReplicaState::Running).collect();
        // The engine does not say to which of several services a published port belongs.
        if running.is_empty() || services.len() > 1 {
            continue;
        }
        let sandbox = match docker.inspect(&ContainerId(id.clone())).await {
            Ok(sandbox) => sandbox,
            // The sandbox is being recreated.
            Err(EngineError::Gone { .. }) => {
                lines.push(format!("the sandbox of {} does not run", pod.name));
                continue;
            }
            Err(error) => return Err(error),
        };
        let ContainerState::Running(process) = sandbox.state else {
            lines.push(format!("the sandbox of {} does not run", pod.name));
            continue;
        };
        let published = sandbox.published.iter().filter_map(|(_, _, port)| tcp_port(port)).collect();
        // If the engine's processes are not on this host, the file does not exist.
        let Some(listeners) = listeners(process.pid) else { continue };
        lines.extend(too_few(&running, &published, &listeners));
    }
    Ok(lines)
}

/// The line for one service, if listeners are missing. As where the kernel counts, one of its published ports is
/// enough.
fn too_few(
    replicas: &[&Replica],
    published: &BTreeSet<u16>,
    listeners: &BTreeMap<u16, usize>,
) -> Option<String> {
    let first = replicas.first()?;
    let of = |port: &u16| listeners.get(port).copied().unwrap_or(0);
    let (port, count) = published.iter().map(|port| (port, of(port))).max_by_key(|(_, count)| *count)?;
    if count >= replicas.len() {
        return None;
    }
    Some(match replicas.len() {
        1 => format!("{} does not listen on port {port}", first.replica),
        all => format!("{count} of {all} replicas of {} listen on port {port}", first.service),
    })
}

/// The port of a text such as `80/tcp`; `None` for other protocols.
fn tcp_port(text: &str) -> Option<u16> {
    text.strip_suffix("/tcp")?.parse().ok()
}

/// The number of listening TCP sockets by port, in the network namespace of a process. `None` if it cannot be read.
fn listeners(pid: u32) -> Option<BTreeMap<u16, usize>> {
    let mut found = BTreeMap::new();
    for family in ["tcp", "tcp6"] {
        match fs::read_to_string(format!("/proc/{pid}/net/{family}")) {
            Ok(table) => listening(&table).for_each(|port| *found.entry(port).or_default() += 1),
            // The kernel has no IPv6.
            Err(_) if family == "tcp6" => {}
            Err(error) => {
                tracing::debug!(%error, pid, "cannot read who listens in the network of a process");
                return None;
            }
        }
    }
    Some(found)
}

/// The ports of the listening sockets in a table such as `/proc/net/tcp`.
fn listening(table: &str) -> impl Iterator<Item = u16> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, _, state) = (words.next()?, words.next()?, words.next()?);
        let (_, port) = local.rsplit_once(':')?;
        (state == LISTEN).then(|| u16::from_str_radix(port, 16).ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_are_found_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1
   2: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 0 0 0 3
";
        assert_eq!(listening(table).collect::<Vec<_>>(), [8080, 80]);
    }

    /// A running replica of a service that publishes a port.
    fn replica(slot: u32) -> Replica {
        let replica = serde_json::json!({
            "project": "shop", "replica": format!("web-{slot}"), "service": "web", "slot": slot, "replacement": false,
            "orphan": false, "name": format!("shop-web-{slot}"), "pod": "web", "up_to_date": true, "state": "running",
            "status": "up", "exits": 0, "sharing": "application", "ports": [],
            "exclusive_ports": [],
        });
        serde_json::from_value(replica).unwrap()
    }

    #[test]
    fn there_are_at_least_as_many_listeners_as_replicas() {
        let replicas = [1, 2, 3].map(replica);
        let all: Vec<_> = replicas.iter().collect();
        for (count, of, wanted) in [
            (0, 1, Some("web-1 does not listen on port 8080")),
            (1, 1, None),
            (1, 3, Some("1 of 3 replicas of web listen on port 8080")),
            (3, 3, None),
            // A server with one socket per worker.
            (12, 3, None),
        ] {
            let listeners = BTreeMap::from([(8080, count), (43_411, 1)]);
            assert_eq!(
                too_few(&all[..of], &BTreeSet::from([8080]), &listeners).as_deref(),
                wanted,
                "{count} of {of}"
            );
        }
    }

    #[test]
    fn published_ports_are_those_of_tcp() {
        assert_eq!(["80/tcp", "53/udp", "80"].map(tcp_port), [Some(80), None, None]);
    }
}
