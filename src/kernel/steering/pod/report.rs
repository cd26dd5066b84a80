//! What a pod's sockets and counts show.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use super::{Pod, Socket, key};
use crate::{
    engine::ContainerId,
    kernel::{
        Counters, KernelError, netns, processes,
        raw::Counts,
        sockets::{Bound, Row, Transport},
        steering::{
            config::{PodReport, Port, ReplicaReport, SteeringConfig, Traffic, Waiting},
            hold,
            port::Part,
            project::Life,
        },
    },
    spec::Service,
};

/// A listener that is not known after that long is foreign.
pub(super) const STRANGE: Duration = Duration::from_secs(3);

/// How long no datagram has come. In whole seconds, and not beyond what matters, so that a report stays as it is while
/// datagrams come, and once they have not for long.
fn udp_idle(counts: &Counts, now: Duration) -> Option<Duration> {
    let idle = now.saturating_sub(Duration::from_nanos(counts.last));
    (counts.last > 0).then(|| Duration::from_secs(idle.as_secs()).min(Service::UDP_IDLE))
}

/// An address of these, if IPv4 from outside of the pod reaches none of them. One that IPv6 reaches, if there is one.
fn only_at<'a>(bounds: impl Iterator<Item = &'a Bound>) -> Option<IpAddr> {
    let bounds: Vec<_> = bounds.collect();
    if bounds.iter().any(|bound| bound.is_open_v4()) {
        return None;
    }
    let open = bounds.iter().find(|bound| bound.is_open_v6());
    open.or(bounds.first()).map(|bound| bound.address.ip().to_canonical())
}

impl Pod {
    fn parts_of<'a>(&'a self, life: &'a Life) -> impl Iterator<Item = u32> + 'a {
        self.ports.values().filter_map(|port| Some(port.endpoints.get(life)?.number))
    }

    /// What was counted so far at each endpoint.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn totals(&self) -> Result<BTreeMap<u32, u64>, KernelError> {
        let parts = self.ports.values().flat_map(|port| port.endpoints.values());
        parts.map(|part| Ok((part.number, self.counts(part)?.total))).collect()
    }

    /// What was counted at a replica's part in a port, by this layout and by the one before.
    pub(super) fn counts(&self, part: &Part) -> Result<Counts, KernelError> {
        let mut counts = self.kernel.counts(part.number)?;
        if let (Some(previous_layout), Some(number)) = (&self.previous_layout, part.previous_layout) {
            let before = previous_layout.counts(number)?;
            counts.live += before.live.max(0);
            counts.unfinished += before.unfinished.max(0);
            counts.total += before.total;
            counts.reset += before.reset;
            counts.last = counts.last.max(before.last);
        }
        Ok(counts)
    }

    /// How many sockets each replica that gets nothing new has on its UDP ports that are connected to one client each. What
    /// comes to those passes by our programs.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub(super) fn connected_udp(&mut self) -> Result<BTreeMap<(Life, Port), u64>, KernelError> {
        let mut found = BTreeMap::new();
        let drains = |life: &Life| self.residents.get(life).is_some_and(|resident| resident.weight == 0);
        let mut udp = self.ports.iter().filter(|((transport, _), _)| *transport == Transport::Udp);
        if !udp.any(|(_, port)| port.endpoints.keys().any(drains)) {
            return Ok(found);
        }
        for row in self.diagnosis.connected_udp()? {
            let port = key(&row.bound);
            let is_of = |life: &&Life| {
                let resident = self.residents.get(life);
                row.cgroup.is_some_and(|group| resident.is_some_and(|resident| resident.ids.contains(&group)))
            };
            let life = self.ports.get(&port).and_then(|port| port.endpoints.keys().find(is_of));
            if let Some(life) = life {
                *found.entry((life.clone(), port)).or_default() += 1;
            }
        }
        Ok(found)
    }

    /// Tells how it stands. `totals` were counted before `rows` were looked at.
    ///
    /// # Errors
    /// When what was counted cannot be read.
    pub(super) fn report(
        &self,
        config: &SteeringConfig,
        totals: &BTreeMap<u32, u64>,
        rows: &[Row],
        connected_udp: &BTreeMap<(Life, Port), u64>,
        waiting: BTreeMap<u16, Waiting>,
        error: Option<KernelError>,
    ) -> Result<PodReport, KernelError> {
        // The clock of `bpf_ktime_get_coarse_ns`.
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now = Duration::try_from(now).unwrap_or_default();
        let mut replicas: BTreeMap<_, _> = config
            .replicas
            .iter()
            .filter_map(|replica| {
                let life = Life { id: replica.id.clone(), pid: replica.pid };
                let resident = self.residents.get(&life)?;
                let (address, weight) = (Some(resident.address), resident.weight);
                Some((life, ReplicaReport { pid: replica.pid, address, weight, ..ReplicaReport::default() }))
            })
            .collect();
        let rows: BTreeMap<u64, &Row> = rows.iter().map(|row| (row.cookie, row)).collect();
        for (name, port) in &self.ports {
            for (life, part) in &port.endpoints {
                let Some(replica) = replicas.get_mut(life) else { continue };
                let counts = self.counts(part)?;
                let cookies = part.listeners.iter().flatten().map(|(cookie, _)| cookie);
                let own: Vec<_> = cookies.filter_map(|cookie| rows.get(cookie)).collect();
                let queue = own.iter().map(|row| u64::from(row.waiting)).sum();
                let dropped = own.iter().map(|row| u64::from(row.dropped)).sum();
                let is_tcp = name.0 == Transport::Tcp;
                // Counted before the queue was looked at: what came in between must not look as if it were accepted.
                let counted = totals.get(&part.number).copied().unwrap_or(counts.total).min(counts.total);
                let traffic = Traffic {
                    live: match connected_udp.get(&(life.clone(), *name)) {
                        Some(connected) if replica.weight == 0 => *connected,
                        _ => u64::try_from(counts.live).unwrap_or(0),
                    },
                    unfinished: u64::try_from(counts.unfinished).unwrap_or(0),
                    total: counts.total,
                    // Of UDP it tells lives apart: see `PodKernel::take_endpoint`.
                    reset: if is_tcp { counts.reset } else { 0 },
                    overflowed: if is_tcp { dropped } else { 0 },
                    accepted: counted.saturating_sub(queue),
                    queue: if is_tcp { queue } else { 0 },
                    udp_idle: if replica.weight == 0 { udp_idle(&counts, now) } else { None },
                    listens: part.listens(),
                    only_at: only_at(port.bounds_of(part)),
                    shared: true,
                };
                replica.ports.insert(*name, traffic);
            }
        }
        for (life, report) in &mut replicas {
            let waits = report.ports.values().any(|traffic| traffic.queue > 0);
            let is_silent = report.ports.values().any(|traffic| traffic.live > 0)
                && self.parts_of(life).all(|number| self.counted.get(&number) == totals.get(&number));
            if (waits || is_silent)
                && let Some(resident) = self.residents.get(life)
            {
                report.pulse = Some(processes::pulse(life.pid, &resident.cgroup.processes()));
            }
        }
        let mut alone = BTreeMap::<(&Life, Port), Vec<&Bound>>::new();
        for socket in self.sockets.values() {
            if let Socket::Alone { life, bound } = socket {
                alone.entry((life, key(bound))).or_default().push(bound);
            }
        }
        for ((life, name), own) in alone {
            let Some(replica) = replicas.get_mut(life) else { continue };
            let traffic = replica.ports.entry(name).or_default();
            let others = self.ports.get(&name).and_then(|port| Some((port, port.endpoints.get(life)?)));
            let others = others.into_iter().flat_map(|(port, part)| port.bounds_of(part));
            traffic.listens = true;
            traffic.only_at = only_at(own.into_iter().chain(others));
        }
        let mut foreign_listeners = BTreeSet::new();
        for socket in self.sockets.values() {
            match socket {
                Socket::Unknown { since, foreign_listener, .. } if since.elapsed() >= STRANGE => {
                    foreign_listeners.insert(foreign_listener.clone());
                }
                Socket::Entered(_)
                | Socket::Alone { .. }
                | Socket::Unknown { .. }
                | Socket::Ignored
                | Socket::LeftAlone { .. }
                | Socket::Refused { .. } => {}
            }
        }
        Ok(PodReport {
            netns: self.netns.inode,
            error: error.map(|error| error.to_string()),
            replicas: replicas.into_iter().map(|(life, report)| (life.id, report)).collect(),
            waiting,
            foreign_listeners,
            other_users: self.other_users.iter().map(|(port, (other, _))| (*port, *other)).collect(),
            port_requests: self.port_requests.clone(),
            refused_users: self.refused_users.clone(),
            exclusive_conflicts: self.exclusive_conflicts.clone(),
            ignored_programs: self.ignored_programs(),
            unsteered: self.unsteered(),
            too_few_files: self.is_short_of_files.then(hold::most_files).flatten(),
            refused: self.refused()?,
            counters: self.counters(config.pid),
        })
    }

    fn refused(&self) -> Result<u64, KernelError> {
        let ports = self.ports.iter().filter(|((transport, _), _)| *transport == Transport::Tcp);
        ports.map(|(_, port)| Ok(self.kernel.counts(port.hold)?.reset)).sum()
    }

    /// How many listeners there is no room for, by replica.
    fn unsteered(&self) -> BTreeMap<ContainerId, u64> {
        let mut unsteered: BTreeMap<_, _> = self.crowded.iter().map(|id| (id.clone(), 0)).collect();
        for socket in self.sockets.values() {
            if let Socket::LeftAlone { life, .. } = socket {
                *unsteered.entry(life.id.clone()).or_default() += 1;
            }
        }
        unsteered
    }

    /// What the kernel itself has counted in the pod's network, which a process shares.
    fn counters(&self, pid: u32) -> Option<Counters> {
        let counters = Counters::of(pid)
            // They are for whoever looks: nothing is decided by them.
            .inspect_err(|error| tracing::debug!(%error, "a pod's counters are not known"))
            .ok()?;
        // Else the process has ended, and another one has its number.
        (netns::inode(pid) == Some(self.netns.inode)).then_some(counters)
    }
}
