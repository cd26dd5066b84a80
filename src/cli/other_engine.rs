//! Detects a supervisor that manages a project of the same name on another engine.
//!
//! Locks, sockets and state of a project on a host are found by its name. A command with another `DOCKER_HOST` would
//! find that supervisor and change the project on the wrong engine.

use sameport::{
    api::Version,
    engine::{
        EngineIdentity,
        docker::{Docker, Surroundings},
    },
    spec::ProjectName,
};

use super::{context::Context, error::CliError};

/// The command and the running supervisor use different engines.
#[derive(Debug, thiserror::Error)]
#[error(
    "project `{project}` on this host is one on another engine, {supervised}; this command is for {asked}"
)]
pub struct OtherEngine {
    project: ProjectName,
    /// The supervisor's engine address.
    supervised: String,
    /// The command's engine address.
    asked: String,
}

impl OtherEngine {
    /// How to resolve it.
    pub fn help(&self) -> String {
        format!(
            "give this project another name (`-p NAME`), or the command with DOCKER_HOST={}",
            self.supervised
        )
    }
}

/// The identity of the engine for a supervisor in this process. Without an id, commands compare only addresses.
pub async fn identity(docker: &Docker) -> EngineIdentity {
    let id = docker.id().await.unwrap_or_else(|error| {
        tracing::debug!(%error, "the engine does not report its id");
        None
    });
    EngineIdentity { address: docker.address().to_owned(), id }
}

/// Returns an error if the supervisor uses another engine. Asks the engine for its id only if the addresses differ.
pub async fn check(context: &Context, project: &ProjectName, version: &Version) -> Result<(), CliError> {
    // A supervisor of an earlier release does not report its engine.
    let Some(EngineIdentity { address, id }) = version.engine.as_deref() else { return Ok(()) };
    let asked = Surroundings::from_env().endpoint()?.host;
    if asked == *address || (id.is_some() && context.engine().await?.id().await? == *id) {
        return Ok(());
    }
    Err(OtherEngine { project: project.clone(), supervised: address.clone(), asked }.into())
}
