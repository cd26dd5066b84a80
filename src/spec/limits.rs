//! Limits of a container that the engine can change while it runs.

use serde::{Deserialize, Serialize};

use super::Resources;

/// Limits that can be changed in place. They are no part of a service's version: another limit is no reason to end a
/// process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Most memory, in bytes.
    pub memory: Option<u64>,
    /// Memory that is kept for it under pressure, in bytes.
    pub memory_reservation: Option<u64>,
    /// Billionths of a CPU.
    pub nano_cpus: Option<u64>,
    /// CPUs it may run on, such as `0-1`.
    pub cpuset: Option<String>,
    /// Most processes; -1 is unlimited, and only [`Limits::changes_to`] gives it.
    pub pids: Option<i64>,
}

impl Limits {
    /// What has to be asked for to get from these limits to others: what is `None` stays as it is. Nothing if there is
    /// no way, because the engine takes no limit away from a container that is there, but the one of processes.
    #[must_use]
    pub fn changes_to(&self, wanted: &Self) -> Option<Self> {
        Some(Self {
            memory: change(self.memory.as_ref(), wanted.memory.as_ref())?,
            memory_reservation: change(self.memory_reservation.as_ref(), wanted.memory_reservation.as_ref())?,
            nano_cpus: change(self.nano_cpus.as_ref(), wanted.nano_cpus.as_ref())?,
            cpuset: change(self.cpuset.as_ref(), wanted.cpuset.as_ref())?,
            pids: change(self.pids.as_ref(), Some(&wanted.pids.unwrap_or(-1)))?
                .filter(|pids| *pids != -1 || self.pids.is_some()),
        })
    }

    /// These limits with changes made, as [`Limits::changes_to`] gives them.
    #[must_use]
    pub fn with(&self, changes: &Self) -> Self {
        let changes = changes.clone();
        Self {
            memory: changes.memory.or(self.memory),
            memory_reservation: changes.memory_reservation.or(self.memory_reservation),
            nano_cpus: changes.nano_cpus.or(self.nano_cpus),
            cpuset: changes.cpuset.or_else(|| self.cpuset.clone()),
            pids: changes.pids.or(self.pids).filter(|pids| *pids > 0),
        }
    }
}

/// The new value if it is another one; nothing at all if one is to be taken away.
fn change<T: Clone + PartialEq>(now: Option<&T>, wanted: Option<&T>) -> Option<Option<T>> {
    match (now, wanted) {
        (Some(_), None) => None,
        (now, wanted) if now == wanted => Some(None),
        (_, wanted) => Some(wanted.cloned()),
    }
}

impl Resources {
    /// These limits, and of others what cannot be changed in place.
    #[must_use]
    pub fn with_fixed_of(&self, other: &Self) -> Self {
        Self { shm_size: other.shm_size, ..self.clone() }
    }

    /// Those that can be changed in place, as the engine shows them: a limit that is none is not there.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            memory: self.memory.filter(|bytes| *bytes > 0),
            memory_reservation: self.memory_reservation.filter(|bytes| *bytes > 0),
            nano_cpus: self.nano_cpus.filter(|cpus| *cpus > 0),
            cpuset: self.cpuset.clone().filter(|cpus| !cpus.is_empty()),
            pids: self.pids.filter(|pids| *pids > 0),
        }
    }

    /// What is left without those that can be changed in place.
    #[must_use]
    pub fn fixed(&self) -> Self {
        Self { shm_size: self.shm_size, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(memory: Option<u64>, pids: Option<i64>) -> Limits {
        Limits { memory, pids, ..Limits::default() }
    }

    #[test]
    fn only_what_is_another_limit_is_asked_for() {
        for (now, wanted, changes) in [
            ((None, None), (None, None), Some((None, None))),
            ((None, None), (Some(5), None), Some((Some(5), None))),
            ((Some(5), None), (Some(5), Some(9)), Some((None, Some(9)))),
            ((Some(5), Some(9)), (Some(7), None), Some((Some(7), Some(-1)))),
            ((Some(5), None), (None, None), None),
        ] {
            let (now, wanted) = (limits(now.0, now.1), limits(wanted.0, wanted.1));
            let found = now.changes_to(&wanted);
            assert_eq!(found, changes.map(|(memory, pids)| limits(memory, pids)), "{now:?} to {wanted:?}");
            if let Some(changes) = found {
                assert_eq!(now.with(&changes), wanted);
            }
        }
    }
}
