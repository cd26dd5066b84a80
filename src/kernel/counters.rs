//! What the kernel itself counts of TCP in a network, since that network is there.
//!
//! Each network namespace has counters of its own, in two tables of proc(5): `net/netstat` has the group `TcpExt`,
//! `net/snmp` the group `Tcp`. They count for all of a network: the shared ports, those of single replicas, and whatever
//! replicas connect to.

use std::fs;

use serde::{Deserialize, Serialize};

use super::KernelError;

/// Counters of a network. They only ever grow, and begin anew with a new network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Connections that were accepted by the kernel for a listener (`Tcp: PassiveOpens`).
    pub opened: u64,
    /// Connections that no program had accepted yet when their listener closed, and that went on to another one
    /// (`TcpExt: TCPMigrateReqSuccess`, Linux 5.14 and newer). Those that waited for a replica to be ready are among them
    /// once they are handed on.
    pub migrated: u64,
    /// Such connections that could not go on, because nobody was there to take them: they were reset
    /// (`TcpExt: TCPMigrateReqFailure`).
    pub lost_in_migration: u64,
    /// Handshakes that found the queue of their listener full (`TcpExt: ListenOverflows`). The client tries again, so
    /// one that was slow may count several times.
    pub overflowed: u64,
    /// Connections that were reset by either side (`Tcp: EstabResets`). Where both ends are in
    /// this network, each end counts.
    pub reset: u64,
}

impl Counters {
    /// Those of the network of a process of this host.
    ///
    /// # Errors
    /// When there is no such process, or its kernel does not count one of these.
    pub fn of(pid: u32) -> Result<Self, KernelError> {
        let read = |table: &str| {
            let path = format!("/proc/{pid}/net/{table}");
            fs::read_to_string(&path).map_err(KernelError::io(format!("read {path}")))
        };
        Self::parse(&read("netstat")?, &read("snmp")?)
    }

    /// Finds them in the two tables.
    ///
    /// # Errors
    /// When one is missing, or is no number.
    pub fn parse(netstat: &str, snmp: &str) -> Result<Self, KernelError> {
        Ok(Self {
            opened: find(snmp, "Tcp", "PassiveOpens")?,
            migrated: find(netstat, "TcpExt", "TCPMigrateReqSuccess")?,
            lost_in_migration: find(netstat, "TcpExt", "TCPMigrateReqFailure")?,
            overflowed: find(netstat, "TcpExt", "ListenOverflows")?,
            reset: find(snmp, "Tcp", "EstabResets")?,
        })
    }

    /// What was counted since `earlier`; of another network's, which may be ahead, nothing.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            opened: self.opened.saturating_sub(earlier.opened),
            migrated: self.migrated.saturating_sub(earlier.migrated),
            lost_in_migration: self.lost_in_migration.saturating_sub(earlier.lost_in_migration),
            overflowed: self.overflowed.saturating_sub(earlier.overflowed),
            reset: self.reset.saturating_sub(earlier.reset),
        }
    }
}

/// The value of one counter. A group is two lines that begin alike: the names, and the values in the same order.
fn find(table: &str, group: &str, name: &str) -> Result<u64, KernelError> {
    let broken = |reason: String| KernelError::Unsupported {
        what: format!("read how often the kernel has counted {group}: {name}"),
        reason,
    };
    let of_group = |line: &'_ str| line.split_once(':').is_some_and(|(begin, _)| begin == group);
    let mut lines = table.lines().filter(|line| of_group(line)).map(|line| line.split_whitespace().skip(1));
    let (Some(mut names), Some(mut values)) = (lines.next(), lines.next()) else {
        return Err(broken("it does not have this group".to_owned()));
    };
    let at =
        names.position(|found| found == name).ok_or_else(|| broken("it does not count this".to_owned()))?;
    let value = values.nth(at).ok_or_else(|| broken("there are more names than values".to_owned()))?;
    value.parse().map_err(|_| broken(format!("`{value}` is no number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETSTAT: &str = "\
TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPMigrateReqSuccess TCPMigrateReqFailure
TcpExt: 9 1 2 3 4
IpExt: InNoRoutes ListenOverflows
IpExt: 0 77
";
    const SNMP: &str = "\
Ip: Forwarding DefaultTTL
Ip: 1 64
Tcp: RtoAlgorithm MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets
Tcp: 1 -1 29 18446744073709551615 0 6
";
    const FOUND: Counters =
        Counters { opened: u64::MAX, migrated: 3, lost_in_migration: 4, overflowed: 1, reset: 6 };

    #[test]
    fn counters_are_found_by_group_and_name() {
        assert_eq!(Counters::parse(NETSTAT, SNMP).unwrap(), FOUND);
    }

    #[test]
    fn what_cannot_be_read_is_told_by_name() {
        let netstat = |from: &str, to: &str| Counters::parse(&NETSTAT.replace(from, to), SNMP);
        let snmp = |from: &str, to: &str| Counters::parse(NETSTAT, &SNMP.replace(from, to));
        for (found, name, reason) in [
            (netstat(" TCPMigrateReqSuccess", ""), "TCPMigrateReqSuccess", "does not count this"),
            (netstat("TCPMigrateReqFailure", ""), "TCPMigrateReqFailure", "does not count this"),
            (netstat(" 3 4", ""), "TCPMigrateReqSuccess", "more names than values"),
            (netstat(" 3 4", " three 4"), "TCPMigrateReqSuccess", "`three` is no number"),
            (netstat("TcpExt: 9 1 2 3 4\n", ""), "TCPMigrateReqSuccess", "does not have this group"),
            (netstat("TcpExt", "TcpExtra"), "TCPMigrateReqSuccess", "does not have this group"),
            (snmp(" PassiveOpens", ""), "PassiveOpens", "does not count this"),
            (snmp(" 6\n", " -6\n"), "EstabResets", "`-6` is no number"),
            (snmp(SNMP, ""), "PassiveOpens", "does not have this group"),
            (snmp(SNMP, "\0\u{fffd}:\n:\n"), "PassiveOpens", "does not have this group"),
        ] {
            let error = found.unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(reason), "{name}, {reason}: {error}");
        }
    }

    #[test]
    fn this_kernel_counts_them_and_a_process_that_is_gone_has_none() {
        Counters::of(std::process::id()).unwrap();
        let gone = Counters::of(u32::MAX);
        assert!(matches!(gone, Err(KernelError::Gone { .. })), "{gone:?}");
    }

    #[test]
    fn the_difference_is_what_came_since_and_never_less_than_nothing() {
        let earlier = Counters { opened: 5, migrated: 1, lost_in_migration: 4, overflowed: 0, reset: 7 };
        let since = FOUND.since(&earlier);
        assert_eq!(
            since,
            Counters { opened: u64::MAX - 5, migrated: 2, lost_in_migration: 0, overflowed: 1, reset: 0 }
        );
        assert_eq!(FOUND.since(&FOUND), Counters::default());
    }
}
