//! Runs the commands of a replica that come after its start and before its end.

use std::time::Duration;

use tokio::time::timeout;

use crate::{
    engine::{ContainerId, Engine, EngineError},
    plan::{Action, Observed},
    spec::Hook,
};

/// The commands that belong to an action: of a replica that is to be prepared those after its start, of one that runs
/// and is to be stopped those before its end.
pub fn of(action: &Action, observed: &Observed) -> Vec<Hook> {
    let container = |id: &ContainerId| observed.containers.get(id).filter(|c| c.process().is_some());
    match action {
        Action::Prepare { id, .. } => container(id).map(|c| c.hooks.post_start.clone()),
        Action::Stop { id, .. } => container(id).map(|c| c.hooks.pre_stop.clone()),
        _ => None,
    }
    .unwrap_or_default()
}

/// Runs commands one after the other.
///
/// # Errors
/// When one does not succeed; those after it are not run.
pub async fn run<E: Engine>(
    engine: &E,
    id: &ContainerId,
    key: &str,
    hooks: &[Hook],
) -> Result<(), EngineError> {
    for hook in hooks {
        let ran = engine.run(id, &hook.into()).await?;
        if ran.code != 0 {
            let (what, how) = (named(key, hook), format!("exit code {}", ran.code));
            return Err(EngineError::CommandFailed { what, how, output: ran.output });
        }
    }
    Ok(())
}

/// Runs the commands before the end of a container, which may take so long together, and stops it, whatever became of
/// them. Tells what did.
///
/// # Errors
/// When the engine does not stop it.
pub async fn stop<E: Engine>(
    engine: &E,
    id: &ContainerId,
    grace: Duration,
    pre_stop: &[Hook],
) -> Result<Option<EngineError>, EngineError> {
    let failure = match timeout(grace, run(engine, id, "pre_stop", pre_stop)).await {
        Ok(ran) => ran.err(),
        // What still runs ends with the container.
        Err(_) => Some(EngineError::CommandFailed {
            what: "pre_stop".to_owned(),
            how: format!("not done after {grace:?}, which is its `stop_grace_period`"),
            output: Vec::new(),
        }),
    };
    engine.stop(id, grace).await?;
    Ok(failure)
}

fn named(key: &str, hook: &Hook) -> String {
    let line = hook.command.join(" ");
    let short: String = line.chars().take(60).collect();
    let dots = if short.len() < line.len() { "…" } else { "" };
    format!("{key} `{short}{dots}`")
}
