//! Checks whether a request is possible for the project.

use std::collections::BTreeSet;

use super::super::Rejection;
use crate::{
    plan::{Desired, Observed, OrderReason, ReplacementOrder, replacement_order, versions::Impossible},
    spec::{Order, Project, Service, ServiceName},
};

pub(super) fn known(project: &Project, name: &ServiceName) -> Result<(), Rejection> {
    if project.services.contains_key(name) {
        return Ok(());
    }
    let known = project.services.keys().map(ToString::to_string).collect();
    Err(Rejection::UnknownService { name: name.clone(), known })
}

pub(super) fn check_scale(project: &Project, name: &ServiceName, replicas: u32) -> Result<(), Rejection> {
    known(project, name)?;
    let fixed = project.services.get(name).is_some_and(|service| service.container_name.is_some());
    if fixed && replicas > 1 {
        return Err(Rejection::FixedName { service: name.clone() });
    }
    check_count(name, replicas)
}

/// Checks the replica counts of a file that arrived over the control socket, which does not pass the checks of the file
/// reader.
pub(super) fn check_counts(project: &Project) -> Result<(), Rejection> {
    project.services.values().try_for_each(|service| check_count(&service.name, service.replicas))
}

fn check_count(service: &ServiceName, replicas: u32) -> Result<(), Rejection> {
    let most = Service::MOST_REPLICAS;
    if replicas > most {
        return Err(Rejection::TooMany { service: service.clone(), replicas, most });
    }
    Ok(())
}

/// Rejects a rollout if two versions of the service cannot run at the same time.
pub(super) fn check_beside(
    desired: &Desired,
    observed: &Observed,
    service: &Service,
) -> Result<(), Rejection> {
    match replacement_order(desired, observed, service, &service.update) {
        Some(ReplacementOrder { order: Order::StopFirst, reason: OrderReason::Storage { target } }) => {
            let reason = Impossible::SharedData { target };
            Err(Rejection::Rollout { service: service.name.clone(), reason })
        }
        _ => Ok(()),
    }
}

pub(super) fn with_dependencies(
    project: &Project,
    services: Vec<ServiceName>,
) -> Result<BTreeSet<ServiceName>, Rejection> {
    let mut selected = BTreeSet::new();
    let mut open = services;
    while let Some(name) = open.pop() {
        known(project, &name)?;
        if let Some(service) = project.services.get(&name)
            && selected.insert(name)
        {
            open.extend(service.depends_on.keys().filter(|d| project.services.contains_key(*d)).cloned());
        }
    }
    Ok(selected)
}
