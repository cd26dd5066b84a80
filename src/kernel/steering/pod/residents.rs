//! The replicas that live in a pod.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use super::Pod;
use crate::{
    kernel::{
        KernelError,
        processes::Cgroup,
        raw::Member,
        socket_filter,
        steering::{
            config::SteeringConfig,
            pace::Allowance,
            project::{InKernel, Life},
        },
    },
    spec::ServiceName,
};

/// In thousandths of a processor, what looks at a replica's listeners may take in the long run; and how much at once.
const SHARE: u32 = 10;
const AT_ONCE: Duration = Duration::from_millis(100);

/// A replica that runs in the pod.
pub(super) struct Resident {
    pub service: ServiceName,
    pub address: Ipv4Addr,
    pub weight: u32,
    pub cgroup: Cgroup,
    /// As the host's programs know it.
    pub member: Member,
    /// Whether it is in the supervisor's own group, as a process that tries out what this host can do is: what comes from
    /// there is never a replica's.
    pub is_ours: bool,
    /// Its group's id, and those of groups below it.
    pub ids: BTreeSet<u64>,
    /// What looks at its listeners may use.
    pub allowance: Allowance,
}

impl Pod {
    /// Takes note of who lives in the pod.
    pub(super) fn settle(
        &mut self,
        kernel: &mut InKernel,
        config: &SteeringConfig,
    ) -> Result<(), KernelError> {
        let wanted: BTreeMap<Life, _> = config
            .replicas
            .iter()
            .map(|replica| (Life { id: replica.id.clone(), pid: replica.pid }, replica))
            .collect();
        let gone: Vec<_> = self.residents.keys().filter(|life| !wanted.contains_key(life)).cloned().collect();
        for life in gone {
            if let Some(resident) = self.residents.remove(&life) {
                kernel.host.maps.remove_replica(resident.cgroup.id, resident.member);
                self.exclusive_conflicts.remove(&life.id);
                self.choosers.retain(|group, _| !resident.ids.contains(group));
                self.port_requests.remove(&life.id);
                self.crowded.remove(&life.id);
                self.searches.remove(&life);
            }
        }
        for (life, replica) in wanted {
            let service = self.kernel.service(&replica.service)?;
            if let Some(resident) = self.residents.get_mut(&life) {
                // Of two in one slot, the one that serves is whom neighbours ask for.
                if resident.weight == 0 && replica.weight > 0 && !resident.is_ours {
                    kernel.host.maps.add_replica(resident.cgroup.id, resident.member)?;
                }
                resident.weight = replica.weight;
                resident.address = replica.address;
                continue;
            }
            // It may have ended just now: then it is no longer wanted soon.
            let Ok(cgroup) = Cgroup::of(replica.pid) else { continue };
            let member = Member { netns: self.kernel.netns, service, slot: replica.slot };
            let is_ours = cgroup.id == Cgroup::of(std::process::id())?.id;
            if !is_ours {
                kernel.host.maps.add_replica(cgroup.id, member)?;
            }
            // A supervisor before us may have been killed while this one was about to end.
            if let Err(error) = socket_filter::lift(&cgroup) {
                tracing::warn!(%error, pid = replica.pid, "some of its connections may get nothing");
            }
            let resident = Resident {
                service: replica.service.clone(),
                address: replica.address,
                weight: replica.weight,
                ids: cgroup.ids().into_iter().collect(),
                cgroup,
                member,
                is_ours,
                allowance: allowance(),
            };
            for (_, port) in self.early_conflicts.extract_if(.., |(group, _)| resident.ids.contains(group)) {
                self.exclusive_conflicts.entry(life.id.clone()).or_default().insert(port);
            }
            for (_, other) in self.early_requests.extract_if(.., |(group, _)| resident.ids.contains(group)) {
                self.port_requests.insert(life.id.clone(), other);
            }
            self.residents.insert(life, resident);
        }
        Ok(())
    }
}

/// What looks at the listeners of a replica may take.
pub(super) fn allowance() -> Allowance {
    Allowance::new(SHARE, AT_ONCE, Instant::now())
}
