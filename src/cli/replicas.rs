//! The replicas that the engine has: for commands that need neither file nor supervisor.

use std::fmt;

use sameport::{
    api::schema::replica_name,
    engine::{
        ContainerId, Engine, EngineError, Role,
        ownership::{Checked, Expected, Owned, OwnershipChecker},
    },
    spec::{Project, ProjectName, ServiceName, Slot},
    supervisor::Selector,
};

use super::{context::Context, error::CliError, selector};

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

/// Finds the containers of a project that are ours.
#[derive(Clone, Debug)]
pub struct Finder {
    project: ProjectName,
    expected: Expected,
    ownership: OwnershipChecker,
}

impl Finder {
    /// For the project that is meant here.
    ///
    /// # Errors
    /// When none is.
    pub fn new(context: &Context) -> Result<Self, CliError> {
        let (name, loaded) = context.load_if_possible()?;
        Ok(Self::of(context, &name, loaded.as_ref().map(|loaded| &loaded.project)))
    }

    /// For a project, with its file if there is one.
    pub fn of(context: &Context, project: &ProjectName, file: Option<&Project>) -> Self {
        let expected = context.expected(project, file);
        Self { project: project.clone(), expected, ownership: OwnershipChecker::default() }
    }

    /// For which project.
    pub fn project(&self) -> &ProjectName {
        &self.project
    }

    /// Everything that carries the project's label, sorted by whether it is ours.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn containers(&mut self, engine: &impl Engine) -> Result<Checked, EngineError> {
        self.ownership.list(engine, &self.project, &self.expected).await
    }

    /// The replicas that are wanted, or all if none is named; in order of services and slots.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn list(
        &mut self,
        engine: &impl Engine,
        wanted: &[Selector],
    ) -> Result<Vec<Replica>, EngineError> {
        let ours = self.containers(engine).await?.ours.into_iter();
        let replicas = ours.filter_map(|Owned { row, labels, .. }| match labels.role {
            Role::Replica { service, slot } => Some(Replica {
                service,
                slot,
                name: row.name,
                running: row.state == "running",
                id: row.id,
                status: row.status,
            }),
            Role::Sandbox | Role::PreDeploy { .. } => None,
        });
        let is_wanted =
            |replica: &Replica| wanted.is_empty() || wanted.iter().any(|selector| is_of(replica, selector));
        let mut found: Vec<_> = replicas.filter(is_wanted).collect();
        // Who only finishes its connections comes after the one that has its slot.
        found.sort_by_cached_key(|r| (r.service.clone(), r.slot, r.id.is_set_aside_name(&r.name)));
        Ok(found)
    }

    /// Those that run of the replicas that a user named.
    ///
    /// # Errors
    /// When there is none.
    pub async fn running(
        &mut self,
        engine: &impl Engine,
        wanted: &Selector,
    ) -> Result<Vec<Replica>, CliError> {
        let mut found = self.list(engine, std::slice::from_ref(wanted)).await?;
        found.retain(|replica| replica.running);
        if found.is_empty() { Err(none_runs(wanted)) } else { Ok(found) }
    }

    /// The first of them.
    ///
    /// # Errors
    /// As [`Self::running`].
    pub async fn first_running(
        &mut self,
        engine: &impl Engine,
        wanted: &Selector,
    ) -> Result<Replica, CliError> {
        let found = self.running(engine, wanted).await?;
        found.into_iter().next().ok_or_else(|| none_runs(wanted))
    }
}

fn is_of(replica: &Replica, wanted: &Selector) -> bool {
    replica.service == wanted.service && wanted.slot.is_none_or(|slot| replica.slot == slot)
}

fn none_runs(wanted: &Selector) -> CliError {
    CliError::failed(
        format!("no replica of {} is running", selector::name(wanted)),
        Some("`sameport ps` shows what there is"),
    )
}
