//! Detects failed pre-deploy jobs (`x-sameport.pre_deploy`).

use jiff::Timestamp;

use crate::{
    engine::{ContainerId, ContainerState, Engine, Exit},
    plan::{Desired, LastTermination, Observed, Target, pre_deploy, status::ExitStatus},
};

use super::{
    EventKind,
    journal::Event,
    watch::{self, TerminationReport},
};

/// A pre-deploy job that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    target: Target,
    container: ContainerId,
    exit: Exit,
}

/// The jobs that failed since the last call.
pub fn failures(desired: &Desired, observed: &mut Observed) -> Vec<Failure> {
    let failed = pre_deploy::failed(desired, observed).filter_map(|(target, job)| match &job.state {
        ContainerState::Exited(exit) => {
            Some(Failure { target, container: job.id.clone(), exit: exit.clone() })
        }
        _ => None,
    });
    let mut failed: Vec<_> = failed.collect();
    failed.retain(|failure| {
        let history = observed.history.entry(failure.target.clone()).or_default();
        history.note_end(&failure.container, failure.exit.finished_at)
    });
    failed
}

/// Reads the last log lines of a failed job.
pub async fn last_termination<E: Engine>(engine: &E, failure: Failure, now: Timestamp) -> TerminationReport {
    let Failure { target, container, exit } = failure;
    let log = watch::log_tail(engine, &container, exit.started_at).await;
    let exit = ExitStatus::from(&exit);
    let kind = EventKind::JobFailed { target: target.clone(), exit: exit.clone(), log: log.clone() };
    let last_termination =
        LastTermination { exit, log, port_not_shared: None, other_user: None, exclusive_port: None };
    TerminationReport { target, last_termination, events: vec![Event { time: now, kind }], excuse: None }
}
