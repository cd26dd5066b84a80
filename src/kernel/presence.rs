//! Whether the process of a container is there, whatever the engine says of it.
//!
//! An engine can lose the end of a process, as when containerd is killed. And it need not run on this host, or in our
//! namespace of process ids: so an id alone says nothing, and a process is a container's only if its control group names
//! the container.

use std::fs;

use nix::{errno::Errno, sys::signal, unistd::Pid};

/// What this host shows under the id of a container's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is there: its control group names the container. When it started, in ticks since the host did.
    There {
        /// In `USER_HZ` since the start of the host.
        started: u64,
    },
    /// There is a process that is not known to be the container's, and when it started.
    Other {
        /// In `USER_HZ` since the start of the host.
        started: u64,
    },
    /// There is no such process, or all that is left of it is its exit code.
    Absent,
    /// This host does not tell.
    Unknown,
}

/// Looks for the process of a container.
#[must_use]
pub fn of(pid: u32, container: &str) -> Presence {
    let Ok(number) = i32::try_from(pid) else { return Presence::Unknown };
    if number == 0 || container.is_empty() {
        return Presence::Unknown;
    }
    // Unlike a look into /proc, this works whatever /proc hides.
    if signal::kill(Pid::from_raw(number), None) == Err(Errno::ESRCH) {
        return Presence::Absent;
    }
    let Some((state, started)) = stat(pid) else { return Presence::Unknown };
    if matches!(state.as_str(), "Z" | "X") {
        return Presence::Absent;
    }
    match fs::read_to_string(format!("/proc/{pid}/cgroup")) {
        Ok(groups) if groups.contains(container) => Presence::There { started },
        Ok(_) => Presence::Other { started },
        Err(_) => Presence::Unknown,
    }
}

/// Whether there is no such process, without a look at what it is.
#[must_use]
pub fn is_absent(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0);
    pid.is_some_and(|pid| signal::kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH))
}

/// State and start of a process (proc(5), fields 3 and 22).
fn stat(pid: u32) -> Option<(String, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything, also brackets.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.to_owned();
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::{process::Command, thread, time::Duration};

    use super::*;

    #[test]
    fn a_process_is_a_containers_only_if_its_control_group_says_so() {
        let own = std::process::id();
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
        let group = groups.trim().rsplit(':').next().unwrap().to_owned();
        let Presence::There { started } = of(own, &group) else { panic!("{group}") };
        assert!(started > 0);
        assert_eq!(of(own, "0123456789abcdef"), Presence::Other { started });
        assert_eq!(of(0, &group), Presence::Unknown, "the engine tells no process");
        assert_eq!(of(own, ""), Presence::Unknown);
    }

    #[test]
    fn of_one_that_has_ended_nothing_is_left_also_where_nobody_has_asked_for_its_exit_code() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id();
        for _ in 0..500 {
            if of(pid, "0123") == Presence::Absent {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(of(pid, "0123"), Presence::Absent, "a zombie");
        child.wait().unwrap();
        assert_eq!(of(pid, "0123"), Presence::Absent);
    }
}
