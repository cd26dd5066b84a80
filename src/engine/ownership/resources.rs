//! Networks and volumes that are ours.

use crate::{
    engine::{Engine, EngineError, Resource},
    spec::ProjectName,
};

use super::{Expected, Foreign, ForeignKind, judge_resource};

/// The networks and volumes that carry a project's label.
#[derive(Clone, Debug, Default)]
pub struct CheckedResources {
    /// Names of the networks that we made.
    pub networks: Vec<String>,
    /// Names of the volumes that we made.
    pub volumes: Vec<String>,
    /// The others.
    pub foreign: Vec<Foreign>,
}

/// Lists the networks and volumes that carry a project's label, and tells which of them are ours.
///
/// # Errors
/// When the engine does not answer.
pub async fn resources<E: Engine>(
    engine: &E,
    project: &ProjectName,
    expected: &Expected,
) -> Result<CheckedResources, EngineError> {
    let mut foreign = Vec::new();
    let mut ours = |kind, resources: Vec<Resource>| {
        let mut ours = Vec::new();
        for Resource { name, labels } in resources {
            match judge_resource(project, kind, &name, &labels, expected) {
                None => ours.push(name),
                Some(reason) => foreign.push(Foreign::resource(kind, name, reason)),
            }
        }
        ours
    };
    let networks = ours(ForeignKind::Network, engine.networks(project).await?);
    let volumes = ours(ForeignKind::Volume, engine.volumes(project).await?);
    Ok(CheckedResources { networks, volumes, foreign })
}
