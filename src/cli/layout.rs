//! Guards objects that a newer release has created.

use sameport::{
    engine::{Labels, docker::Docker},
    spec::{Project, ProjectName},
};

use super::{context::Context, error::CliError, replicas::Finder};

/// Checks that no newer release has created containers of a project.
///
/// # Errors
/// If one has, or the engine does not answer.
pub async fn check(
    context: &Context,
    name: &ProjectName,
    file: Option<&Project>,
    docker: &Docker,
) -> Result<(), CliError> {
    let checked = Finder::of(context, name, file).containers(docker).await?;
    let Some((foreign, layout)) = checked.newer() else { return Ok(()) };
    let message = format!(
        "project `{name}` is managed by a newer sameport: {foreign} has layout {layout}, and this release knows layouts up \
         to {}; nothing was changed",
        Labels::CURRENT_LAYOUT
    );
    let help = format!(
        "update sameport here (this is {}); or, if the container is not needed, `docker rm -f {}`",
        env!("CARGO_PKG_VERSION"),
        foreign.name
    );
    Err(CliError::failed(message, Some(&help)))
}
