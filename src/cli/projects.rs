//! All projects on the engine, whoever supervises them.

use std::collections::BTreeMap;

use sameport::{
    engine::{
        Engine, EngineError, Labels,
        docker::Docker,
        ownership::{Checked, Foreign, OwnershipChecker, resources},
    },
    spec::ProjectName,
};

use super::context::Context;

/// The containers that carry our labels, by project.
///
/// # Errors
/// When the engine does not answer.
pub async fn containers(
    context: &Context,
    docker: &Docker,
) -> Result<Vec<(ProjectName, Checked)>, EngineError> {
    let mut rows = BTreeMap::<ProjectName, Vec<_>>::new();
    for row in docker.list_all().await? {
        // What cannot be a project's name is not of us, and of no project.
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

/// The projects of which something runs.
///
/// # Errors
/// When the engine does not answer.
pub async fn running(context: &Context, docker: &Docker) -> Result<Vec<ProjectName>, EngineError> {
    let runs = |checked: &Checked| checked.ours.iter().any(|owned| owned.row.state == "running");
    let all = containers(context, docker).await?.into_iter();
    Ok(all.filter(|(_, checked)| runs(checked)).map(|(name, _)| name).collect())
}

/// What carries the labels of these projects and is not ours.
///
/// # Errors
/// When the engine does not answer.
pub async fn foreign(context: &Context, docker: &Docker) -> Result<Vec<Foreign>, EngineError> {
    let mut all = Vec::new();
    for (name, checked) in containers(context, docker).await? {
        all.extend(checked.foreign);
        all.extend(resources(docker, &name, &context.expected(&name, None)).await?.foreign);
    }
    Ok(all)
}
