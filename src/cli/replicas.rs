//! The replicas that the engine has, found by their labels: for commands that need neither file nor supervisor.

use std::fmt;

use sameport::{
    api::schema::replica_name,
    engine::{ContainerId, Engine, EngineError, Labels, Role},
    spec::{ProjectName, ServiceName, Slot},
    supervisor::Selector,
};

use super::{error::CliError, selector};

/// A replica's container, as the engine lists it.
#[derive(Clone, Debug)]
pub struct Replica {
    /// Of which service.
    pub service: ServiceName,
    /// Its number there.
    pub slot: Slot,
    /// The container.
    pub id: ContainerId,
    /// The container's name.
    pub name: String,
    /// Whether its process runs.
    pub running: bool,
    /// The engine's sentence about it, such as `Up 3 minutes (healthy)`.
    pub status: String,
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&replica_name(&self.service, self.slot))
    }
}

/// Those of a project that are wanted, or all if none is named; in order of services and slots.
///
/// # Errors
/// When the engine does not answer.
pub async fn list(
    engine: &impl Engine,
    project: &ProjectName,
    wanted: &[Selector],
) -> Result<Vec<Replica>, EngineError> {
    let mut found: Vec<_> = engine
        .list(project)
        .await?
        .into_iter()
        .filter_map(|row| match Labels::from_map(&row.labels)?.role {
            Role::Replica { service, slot } => Some(Replica {
                service,
                slot,
                name: row.name,
                running: row.state == "running",
                id: row.id,
                status: row.status,
            }),
            Role::Sandbox | Role::Before { .. } => None,
        })
        .filter(|replica| wanted.is_empty() || wanted.iter().any(|selector| is_of(replica, selector)))
        .collect();
    found.sort_by(|a, b| (&a.service, a.slot).cmp(&(&b.service, b.slot)));
    Ok(found)
}

fn is_of(replica: &Replica, wanted: &Selector) -> bool {
    replica.service == wanted.service && wanted.slot.is_none_or(|slot| replica.slot == slot)
}

/// Those that run of the replicas that a user named.
///
/// # Errors
/// When there is none.
pub async fn running(
    engine: &impl Engine,
    project: &ProjectName,
    wanted: &Selector,
) -> Result<Vec<Replica>, CliError> {
    let mut found = list(engine, project, std::slice::from_ref(wanted)).await?;
    found.retain(|replica| replica.running);
    if found.is_empty() { Err(none_runs(wanted)) } else { Ok(found) }
}

/// The first of them.
///
/// # Errors
/// As [`running`].
pub async fn first_running(
    engine: &impl Engine,
    project: &ProjectName,
    wanted: &Selector,
) -> Result<Replica, CliError> {
    let found = running(engine, project, wanted).await?;
    found.into_iter().next().ok_or_else(|| none_runs(wanted))
}

fn none_runs(wanted: &Selector) -> CliError {
    CliError::failed(
        format!("no replica of {} is running", selector::name(wanted)),
        Some("`sameport ps` shows what there is"),
    )
}
