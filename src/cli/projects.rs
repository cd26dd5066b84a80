//! All projects on the engine, with or without a supervisor.

use std::{collections::BTreeMap, time::Duration};

use sameport::{
    compose::LoadError,
    engine::{
        Engine, EngineError, Labels,
        docker::Docker,
        ownership::{Checked, Foreign, OwnershipChecker, resources},
    },
    spec::ProjectName,
};

use super::context::Context;

/// Limit for the engine's answer where it only improves a message.
const AT_ONCE: Duration = Duration::from_secs(1);
/// The largest number of projects in a message.
const MAX_NAMED: usize = 10;

/// The containers with labels of sameport, by project.
///
/// # Errors
/// If the engine does not answer.
pub async fn containers(
    context: &Context,
    docker: &Docker,
) -> Result<Vec<(ProjectName, Checked)>, EngineError> {
    let mut rows = BTreeMap::<ProjectName, Vec<_>>::new();
    for row in docker.list_all().await? {
        // A label that is not a valid project name was not set by sameport.
        if let Some(Ok(name)) = row.labels.get(Labels::PROJECT).map(|name| name.parse()) {
            rows.entry(name).or_default().push(row);
        }
    }
    let mut found = Vec::new();
    for (name, rows) in rows {
        let checked =
            OwnershipChecker::default().check(docker, &name, rows, &context.expected(&name, None)).await?;
        found.push((name, checked));
    }
    Ok(found)
}

/// Adds the names of existing projects to the error that there is no Compose file, since most commands need only a
/// name.
pub async fn name_them(context: &Context, error: LoadError) -> LoadError {
    let look = async {
        let docker = context.engine().await.ok()?;
        containers(context, &docker).await.ok()
    };
    // The error is about the file. An engine that does not answer is reported where it is needed.
    let found = tokio::time::timeout(AT_ONCE, look).await.ok().flatten().unwrap_or_default();
    let ours = found.into_iter().filter(|(_, checked)| !checked.ours.is_empty());
    let names: Vec<_> = ours.map(|(name, _)| name.to_string()).collect();
    let Some(first) = names.first() else { return error };
    let shown = match names.get(..MAX_NAMED) {
        Some(some) if names.len() > MAX_NAMED => format!("{}, …", some.join(", ")),
        _ => names.join(", "),
    };
    error.with_help(&format!("or name a project, as in `sameport -p {first} ps`: this engine has {shown}"))
}

/// The projects with at least one running container.
///
/// # Errors
/// If the engine does not answer.
pub async fn running(context: &Context, docker: &Docker) -> Result<Vec<ProjectName>, EngineError> {
    let runs = |checked: &Checked| checked.ours.iter().any(|owned| owned.row.state == "running");
    let all = containers(context, docker).await?.into_iter();
    Ok(all.filter(|(_, checked)| runs(checked)).map(|(name, _)| name).collect())
}

/// Containers, networks and volumes that carry labels of these projects but that sameport did not create.
///
/// # Errors
/// If the engine does not answer.
pub async fn foreign(context: &Context, docker: &Docker) -> Result<Vec<Foreign>, EngineError> {
    let mut all = Vec::new();
    for (name, checked) in containers(context, docker).await? {
        all.extend(checked.foreign);
        all.extend(resources(docker, &name, &context.expected(&name, None)).await?.foreign);
    }
    Ok(all)
}
