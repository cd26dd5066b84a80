//! The replicas on the engine, for commands that need neither file nor supervisor.

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

/// The container of a replica, as the engine lists it.
#[derive(Clone, Debug)]
pub struct Replica {
    pub service: ServiceName,
    /// The slot in its service.
    pub slot: Slot,
    pub id: ContainerId,
    /// The name of the container.
    pub name: String,
    /// Whether the container's process runs.
    pub running: bool,
    /// The engine's description of the status, such as `Up 3 minutes (healthy)`.
    pub status: String,
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&replica_name(&self.service, self.slot))
    }
}

/// Finds the containers of a project that sameport created.
#[derive(Clone, Debug)]
pub struct Finder {
    project: ProjectName,
    expected: Expected,
    ownership: OwnershipChecker,
}

impl Finder {
    /// A finder for the selected project.
    ///
    /// # Errors
    /// If no project is selected.
    pub fn new(context: &Context) -> Result<Self, CliError> {
        let (name, loaded) = context.load_if_possible()?;
        Ok(Self::of(context, &name, loaded.as_ref().map(|loaded| &loaded.project)))
    }

    /// A finder for a project, with its file if there is one.
    pub fn of(context: &Context, project: &ProjectName, file: Option<&Project>) -> Self {
        let expected = context.expected(project, file);
        Self { project: project.clone(), expected, ownership: OwnershipChecker::default() }
    }

    /// The name of the project.
    pub fn project(&self) -> &ProjectName {
        &self.project
    }

    /// All containers with the project's label, sorted by ownership.
    ///
    /// # Errors
    /// If the engine does not answer.
    pub async fn containers(&mut self, engine: &impl Engine) -> Result<Checked, EngineError> {
        self.ownership.list(engine, &self.project, &self.expected).await
    }

    /// The selected replicas, ordered by service and slot; an empty list selects all.
    ///
    /// # Errors
    /// If the engine does not answer.
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
        // A replica that is only draining comes after the one that has its slot now.
        found.sort_by_cached_key(|r| (r.service.clone(), r.slot, r.id.is_set_aside_name(&r.name)));
        Ok(found)
    }

    /// The running replicas among those selected.
    ///
    /// # Errors
    /// If there is none, or the engine does not answer.
    pub async fn running(
        &mut self,
        engine: &impl Engine,
        wanted: &Selector,
    ) -> Result<Vec<Replica>, CliError> {
        let mut found = self.list(engine, std::slice::from_ref(wanted)).await?;
        found.retain(|replica| replica.running);
        if found.is_empty() { Err(none_runs(wanted)) } else { Ok(found) }
    }

    /// The first of the running replicas.
    ///
    /// # Errors
    /// Those of [`Self::running`].
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
