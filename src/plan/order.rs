//! Which of the two goes first when a replica is replaced: the old one or its successor, and why.
//!
//! Start-first gains something where the successor takes over connections that the old replica would have got. It costs
//! something where both would write to the same data, or where there must be only one.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::spec::{Mount, MountSource, Order, Project, Service, ServiceName, Update};

use super::{Desired, Goal, Observed, Planner};

/// What is at the host's end of a bind mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindSource {
    /// A folder.
    Folder,
    /// A file that holds data: by its name, or because a replica has it open for writing.
    Data,
    /// A configuration file, a socket, a device.
    Other,
}

/// The order in which a service's replicas are replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacementOrder {
    /// Which one goes first.
    pub order: Order,
    /// Why.
    pub reason: OrderReason,
}

/// Why replicas are replaced in that order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderReason {
    /// The file says so.
    File,
    /// A replica and its successor would write to the same storage.
    Storage {
        /// Where it is mounted in the container.
        target: String,
    },
    /// The only replica declares no port, so its successor has no connections to take over.
    NoPort,
    /// The successor takes over new connections.
    Connections,
    /// Its replicas do the same work, and share what they write to if they write at all.
    Replicas,
}

impl fmt::Display for OrderReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("the Compose file says so"),
            Self::Storage { target } => write!(f, "two replicas must not write to {target} at once"),
            Self::NoPort => f.write_str("it has one replica and declares no port"),
            Self::Connections => f.write_str("the new replica takes over connections"),
            Self::Replicas => f.write_str("it has several replicas"),
        }
    }
}

/// Whose storage it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// Each slot has its own.
    Slot,
    /// All replicas have the same.
    Service,
}

/// How a service is replaced; none: it is not known yet what one of its bind mounts is.
#[must_use]
pub fn replacement_order(
    desired: &Desired,
    observed: &Observed,
    service: &Service,
    rules: &Update,
) -> Option<ReplacementOrder> {
    if let Some(order) = rules.order {
        return Some(ReplacementOrder { order, reason: OrderReason::File });
    }
    let replicas = match desired.goals.get(&service.name) {
        Some(Goal::Run { replicas }) => *replicas,
        Some(Goal::Stop) | None => service.replicas,
    };
    let has_port = declares_port(&desired.project, service);
    let storage = storage(observed, service)?;
    let stops = storage.iter().find(|(_, whose)| match whose {
        Whose::Slot => true,
        // Replicas that share a port share their storage all the time: whoever scaled them wanted that.
        Whose::Service => replicas <= 1 || !has_port,
    });
    let (order, reason) = match stops {
        Some((target, _)) => (Order::StopFirst, OrderReason::Storage { target: target.clone() }),
        None if has_port => (Order::StartFirst, OrderReason::Connections),
        None if replicas <= 1 => (Order::StopFirst, OrderReason::NoPort),
        None => (Order::StartFirst, OrderReason::Replicas),
    };
    Some(ReplacementOrder { order, reason })
}

/// How long new connections wait while a rollout has stopped the only replica: for what it comes to, which has a deadline of
/// its own.
#[must_use]
pub fn hold_in_rollout(service: &Service, rules: &Update) -> Duration {
    if service.hold.is_zero() { service.hold } else { service.hold.max(rules.deadline) }
}

/// Whether the file declares a port by which a service is reached.
fn declares_port(project: &Project, service: &Service) -> bool {
    project
        .pods
        .get(&service.pod)
        .is_some_and(|pod| pod.published_by(&service.name).next().is_some() || !pod.expose.is_empty())
}

/// What replicas of a service write to that outlives them: where it is mounted, and whose it is.
fn storage(observed: &Observed, service: &Service) -> Option<Vec<(String, Whose)>> {
    let mut found = Vec::new();
    for mount in service.container.mounts.iter().filter(|mount| !mount.read_only) {
        let whose = |name: &str| if name.contains("{{") { Whose::Slot } else { Whose::Service };
        let whose = match &mount.source {
            MountSource::Volume { name, .. } => whose(name),
            MountSource::Anonymous => Whose::Slot,
            MountSource::Bind { path, .. } => match observed.bind_sources.get(path)? {
                BindSource::Folder | BindSource::Data => whose(path),
                BindSource::Other => continue,
            },
            MountSource::Tmpfs { .. } => continue,
        };
        found.push((mount.target.clone(), whose));
    }
    // Volumes that an image asks for are in no file.
    let of_images = observed.service(&service.name).flat_map(|(_, replica)| &replica.volumes);
    for target in of_images {
        // The engine tells paths without a slash at the end.
        let is_at = |mount: &Mount| mount.target.trim_end_matches('/') == target.trim_end_matches('/');
        let is_known = service.container.mounts.iter().any(is_at);
        if !is_known && found.iter().all(|(known, _)| known != target) {
            found.push((target.clone(), Whose::Slot));
        }
    }
    Some(found)
}

impl Desired {
    /// Paths of the host that services mount and may write to.
    pub fn writable_binds(&self) -> impl Iterator<Item = (&ServiceName, &str)> {
        self.project.services.values().flat_map(|service| {
            let mounts = service.container.mounts.iter().filter(|mount| !mount.read_only);
            mounts.filter_map(|mount| match &mount.source {
                MountSource::Bind { path, .. } => Some((&service.name, path.as_str())),
                _ => None,
            })
        })
    }
}

impl Planner<'_> {
    /// Which goes first, by the rules that are in force; none: that is not known yet.
    pub(super) fn order(&self, service: &Service) -> Option<Order> {
        let rules = self.rules_of(service);
        replacement_order(self.desired, self.observed, service, rules).map(|found| found.order)
    }
}
