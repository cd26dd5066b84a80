//! A supervisor whose project is on another engine than a command is for: both projects have one name.
//!
//! What is kept of a project on a host, its lock and its socket among it, goes by its name. A command with another
//! `DOCKER_HOST` finds that supervisor, and what it asks for would happen on the wrong engine.

use sameport::{
    api::Version,
    engine::{
        EngineIdentity,
        docker::{Docker, Surroundings},
    },
    spec::ProjectName,
};

use super::{context::Context, error::CliError};

/// A command is for another engine than the supervisor that runs.
#[derive(Debug, thiserror::Error)]
#[error(
    "project `{project}` on this host is one on another engine, {supervised}; this command is for {asked}"
)]
pub struct OtherEngine {
    project: ProjectName,
    /// Where the supervisor reaches its engine.
    supervised: String,
    /// Where the command reaches its own.
    asked: String,
}

impl OtherEngine {
    /// What to type.
    pub fn help(&self) -> String {
        format!(
            "give this project another name (`-p NAME`), or the command with DOCKER_HOST={}",
            self.supervised
        )
    }
}

/// The engine of a supervisor of this process. Without its id, commands go by its address alone.
pub async fn identity(docker: &Docker) -> EngineIdentity {
    let id = docker.id().await.unwrap_or_else(|error| {
        tracing::debug!(%error, "the engine does not report its id");
        None
    });
    EngineIdentity { address: docker.address().to_owned(), id }
}

/// Refuses a supervisor whose project is on another engine. The engine is asked only if it is reached in another way.
pub async fn check(context: &Context, project: &ProjectName, version: &Version) -> Result<(), CliError> {
    // One of an earlier release does not tell.
    let Some(EngineIdentity { address, id }) = version.engine.as_deref() else { return Ok(()) };
    let asked = Surroundings::from_env().endpoint()?.host;
    if asked == *address || (id.is_some() && context.engine().await?.id().await? == *id) {
        return Ok(());
    }
    Err(OtherEngine { project: project.clone(), supervised: address.clone(), asked }.into())
}
