//! The state of a replica in words.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::{
    kernel::steering::OtherUser,
    plan::{
        LastTermination, PortNotShared, UnhealthyReplacement,
        status::{ExitStatus, HOPELESS, ReplicaState, ReplicaStatus},
    },
    spec::{DependencyCondition, Service},
};

/// The number of consecutive exits from which a replica is in a crash loop.
pub(super) const CRASH_LOOP: u32 = 3;

/// The state of a replica in words, as of `now`.
pub(super) fn describe(replica: &ReplicaStatus, now: Timestamp) -> String {
    let words = match &replica.state {
        ReplicaState::Pending => "to be started".to_owned(),
        ReplicaState::Waiting { service, condition } => match condition {
            DependencyCondition::Started => format!("waits for {service} to start"),
            DependencyCondition::Healthy => format!("waits for {service} to be healthy"),
            DependencyCondition::CompletedSuccessfully => format!("waits for {service} to finish"),
        },
        ReplicaState::AwaitsJob => "waits for the job before its version".to_owned(),
        ReplicaState::Preparing => "up, post_start runs".to_owned(),
        ReplicaState::Starting => match &replica.not_ready {
            Some(reason) => format!("up, not healthy yet: {}", first_line(reason)),
            None => "up, not healthy yet".to_owned(),
        },
        ReplicaState::NotListening { out_of_reach: Some(out_of_reach), .. } => format!("up, {out_of_reach}"),
        ReplicaState::NotListening { ports, .. } => {
            format!("up, not listening on {} yet", ranges(ports).join(" or "))
        }
        ReplicaState::Running => "up".to_owned(),
        ReplicaState::Healthy => "up, healthy".to_owned(),
        ReplicaState::Unhealthy | ReplicaState::Stuck => {
            format!("up, {}", replica.unhealthy.as_deref().unwrap_or("unhealthy"))
        }
        ReplicaState::Paused => "paused".to_owned(),
        ReplicaState::Restarting { exit: status, at } => restarting(replica, status, *at, now),
        ReplicaState::Completed => "completed".to_owned(),
        ReplicaState::Failed { exit: status } => format!("failed: {status}; not restarted again"),
        ReplicaState::Stopped => "stopped".to_owned(),
        ReplicaState::StoppedOutside { since } => {
            let ago = now.duration_since(*since).max(SignedDuration::ZERO);
            format!("stopped from outside {} ago; `sameport start {}`", age(ago), replica.service)
        }
        ReplicaState::Removing => "being removed".to_owned(),
        ReplicaState::Blocked { error, tries: HOPELESS, .. } => format!("blocked: {}", first_line(error)),
        ReplicaState::Blocked { error, tries, .. } => {
            format!("blocked after {tries} tries: {}", first_line(error))
        }
    };
    let words = match (&replica.replaced, &replica.last_termination) {
        _ if !replica.state.is_up() || replica.exits == 0 => words,
        (Some(replaced), _) => format!("{words} again, {}", replaced_because(replica.exits, replaced)),
        (None, Some(last_termination)) => {
            format!("{words} again, ended {}: {}", times(replica.exits), why(last_termination))
        }
        (None, None) => words,
    };
    let words = match (&replica.traffic, replica.out_since) {
        (Some(traffic), Some(since)) if replica.state.is_up() && traffic.live > 0 => {
            let time = age(now.duration_since(since).max(SignedDuration::ZERO));
            let connections = if traffic.live == 1 { "connection" } else { "connections" };
            format!("{words}, draining for {time}: {} {connections}", traffic.live)
        }
        _ => words,
    };
    let flows = replica.traffic.as_ref().and_then(|traffic| traffic.udp_idle).and_then(unfinished_flows);
    let words = match flows {
        Some(flows) if replica.state.is_up() => format!("{words}, {flows}"),
        _ => words,
    };
    match replica.current || replica.container.is_none() {
        true => words,
        false => format!("{words}, old version"),
    }
}

/// The note about UDP flows of a replica that is out of rotation, `idle` after its last datagram; `None` once its flows
/// count as finished.
fn unfinished_flows(idle: Duration) -> Option<String> {
    match idle.as_secs() {
        _ if idle >= Service::UDP_IDLE => None,
        0 => Some("datagrams still come".to_owned()),
        seconds => Some(format!("last datagram {seconds}s ago")),
    }
}

/// Ports as text; `ports` must be ascending. Runs of three or more become a range: `8000-8009`.
pub(super) fn ranges(ports: &[u16]) -> Vec<String> {
    let runs = ports.chunk_by(|before, after| before.checked_add(1) == Some(*after));
    let words = |run: &[u16]| match run {
        [first, _, .., last] => vec![format!("{first}-{last}")],
        few => few.iter().map(ToString::to_string).collect(),
    };
    runs.flat_map(words).collect()
}

/// Only the first line fits a row of a table.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn restarting(replica: &ReplicaStatus, status: &ExitStatus, at: Timestamp, now: Timestamp) -> String {
    let why = match (&replica.replaced, &replica.last_termination) {
        (Some(replaced), _) => format!("replaced: {}", replaced.why),
        (None, Some(last_termination)) => why(last_termination),
        (None, None) => status.to_string(),
    };
    let wait = at.duration_since(now).max(SignedDuration::ZERO);
    let next = if wait.is_zero() { "restarting".to_owned() } else { format!("next try in {}", age(wait)) };
    if let (Some(replaced), true) = (&replica.replaced, replica.exits < CRASH_LOOP) {
        format!("{}; {next}", replaced_because(replica.exits, replaced))
    } else if replica.exits >= CRASH_LOOP {
        format!("crash loop, {}: {why}; {next}", times(replica.exits))
    } else {
        format!("ended: {why}; {next}")
    }
}

/// The cause of the last termination.
fn why(last_termination: &LastTermination) -> String {
    if let Some(OtherUser { port, user, owner }) = &last_termination.other_user {
        return format!("user {user} did not get port {port} from user {owner}");
    }
    if let Some(port) = &last_termination.exclusive_port {
        return format!("port {port} is exclusive and held by another replica (`x-sameport.ports`)");
    }
    match &last_termination.port_not_shared {
        Some(PortNotShared { port: Some(port), .. }) => format!("port {port} is not shared by its image"),
        Some(PortNotShared { port: None, .. }) => "its port is not shared by its image".to_owned(),
        None => last_termination.exit.to_string(),
    }
}

/// The note that it was replaced, and why: `replaced: unhealthy for 10 s: no database`.
fn replaced_because(exits: u32, replaced: &UnhealthyReplacement) -> String {
    match exits {
        0 | 1 => format!("replaced: {}", replaced.why),
        n => format!("replaced {}, the last time: {}", times(n), replaced.why),
    }
}

fn times(count: u32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// A duration in at most two units: `45s`, `3m 20s`, `2h 5m`, `3d 4h`.
#[must_use]
pub fn age(time: SignedDuration) -> String {
    let seconds = time.as_secs().max(0);
    let pair = |big: i64, unit: &str, small: i64, lesser: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit} {small}{lesser}"),
    };
    match seconds {
        0..60 if seconds == 0 && !time.is_zero() => "1s".to_owned(),
        0..60 => format!("{seconds}s"),
        60..3600 => pair(seconds / 60, "m", seconds % 60, "s"),
        3600..86_400 => pair(seconds / 3600, "h", seconds / 60 % 60, "m"),
        _ => pair(seconds / 86_400, "d", seconds / 3600 % 24, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::ExclusivePort, spec::Protocol};

    fn status(code: i64) -> ExitStatus {
        ExitStatus { code, out_of_memory: false, error: None, at: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn three_or_more_consecutive_ports_are_a_range() {
        assert_eq!(ranges(&[80]), ["80"]);
        assert_eq!(ranges(&[80, 81]), ["80", "81"]);
        assert_eq!(ranges(&[80, 8000, 8001, 8002, 65_534, 65_535]), ["80", "8000-8002", "65534", "65535"]);
    }

    #[test]
    fn an_exit_is_described_in_words() {
        assert_eq!(status(1).to_string(), "exit code 1");
        assert_eq!(status(137).to_string(), "killed by SIGKILL");
        assert_eq!(status(143).to_string(), "killed by SIGTERM");
        assert_eq!(status(255).to_string(), "exit code 255");
        assert_eq!((ExitStatus { out_of_memory: true, ..status(137) }).to_string(), "out of memory");
        let error = Some("no such program".to_owned());
        assert_eq!((ExitStatus { error, ..status(127) }).to_string(), "could not start: no such program");
    }

    #[test]
    fn an_exit_because_of_an_exclusive_port_names_the_key_that_shares_it() {
        let port = ExclusivePort { port: 30_001, protocol: Protocol::Tcp };
        let last_termination = LastTermination {
            exit: status(1),
            log: Vec::new(),
            port_not_shared: None,
            other_user: None,
            exclusive_port: Some(port),
        };
        assert_eq!(
            why(&last_termination),
            "port 30001/tcp is exclusive and held by another replica (`x-sameport.ports`)"
        );
    }

    #[test]
    fn a_draining_replica_shows_its_last_datagram() {
        let told = |seconds| unfinished_flows(Duration::from_secs(seconds));
        assert_eq!(told(0).as_deref(), Some("datagrams still come"));
        assert_eq!(told(4).as_deref(), Some("last datagram 4s ago"));
        assert_eq!(told(5), None);
    }

    #[test]
    fn ages_have_two_units() {
        for (seconds, wanted) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (200, "3m 20s"), (7500, "2h 5m"), (273_600, "3d 4h")]
        {
            assert_eq!(age(SignedDuration::from_secs(seconds)), wanted);
        }
    }
}
