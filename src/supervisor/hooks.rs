//! Runs the `post_start` and `pre_stop` commands of replicas.

use std::time::Duration;

use tokio::time::timeout;

use super::graceful_close::GracefulClose;
use crate::{
    engine::{ContainerId, Engine, EngineError},
    plan::{Action, Observed},
    spec::Hook,
};

/// The commands that belong to an action: `post_start` for a replica that is being prepared, `pre_stop` for a running
/// replica that is being stopped.
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
/// If a command fails; the commands after it do not run.
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

/// Runs the `pre_stop` commands of a container, for at most `grace` in total, and then stops it, whether they succeeded
/// or not. Returns their error.
///
/// # Errors
/// If the engine does not stop the container.
pub async fn stop<E: Engine>(
    engine: &E,
    id: &ContainerId,
    grace: Duration,
    pre_stop: &[Hook],
    graceful_close: Option<GracefulClose>,
) -> Result<Option<EngineError>, EngineError> {
    // A container that is killed immediately, because it hangs or because of `--timeout 0`, runs no commands first.
    let pre_stop = if grace.is_zero() { &[] } else { pre_stop };
    let failure = match timeout(grace, run(engine, id, "pre_stop", pre_stop)).await {
        Ok(ran) => ran.err(),
        // Commands that still run end with the container.
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
    async fn without_a_timeout_no_pre_stop_command_runs() {
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
