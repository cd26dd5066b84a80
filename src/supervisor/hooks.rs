//! Runs the commands of a replica that come after its start and before its end.

use std::time::Duration;

use tokio::time::timeout;

use super::graceful_close::GracefulClose;
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
    graceful_close: Option<GracefulClose>,
) -> Result<Option<EngineError>, EngineError> {
    // Whoever is killed at once, because it hangs or by `--timeout 0`, is not asked for anything before.
    let pre_stop = if grace.is_zero() { &[] } else { pre_stop };
    let failure = match timeout(grace, run(engine, id, "pre_stop", pre_stop)).await {
        Ok(ran) => ran.err(),
        // What still runs ends with the container.
        Err(_) => Some(EngineError::CommandFailed {
            what: "pre_stop".to_owned(),
            how: format!("not done after {grace:?}, which is its `stop_grace_period`"),
            output: Vec::new(),
        }),
    };
    if let Some(graceful_close) = graceful_close {
        graceful_close.filter().await;
    }
    engine.stop(id, grace).await?;
    Ok(failure)
}

fn named(key: &str, hook: &Hook) -> String {
    let line = hook.command.join(" ");
    let short: String = line.chars().take(60).collect();
    let dots = if short.len() < line.len() { "…" } else { "" };
    format!("{key} `{short}{dots}`")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{clock::Clock, engine::memory::Memory};

    #[tokio::test(start_paused = true)]
    async fn without_any_time_nothing_is_run_before_the_end() {
        let hook = Hook {
            command: vec!["save".to_owned()],
            user: None,
            privileged: false,
            working_dir: None,
            environment: BTreeMap::new(),
        };
        for (grace, runs) in [(Duration::ZERO, 0), (Duration::from_secs(600), 1)] {
            let engine = Memory::new(Clock::starting_at(jiff::Timestamp::UNIX_EPOCH), 1);
            let id = engine.world().add_foreign("web-1", BTreeMap::new());
            let failure = stop(&engine, &id, grace, std::slice::from_ref(&hook), None).await.unwrap();
            assert_eq!((failure, engine.world().ran(&id)), (None, runs), "{grace:?}");
        }
    }
}
