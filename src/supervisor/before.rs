//! Takes note of how jobs before a new version ended (`x-sameport.before`).

use jiff::Timestamp;

use crate::{
    engine::{ContainerId, ContainerState, Engine, Exit},
    plan::{Autopsy, Desired, Observed, Target, before, status::ExitStatus},
};

use super::{
    EventKind,
    journal::Event,
    watch::{self, Told},
};

/// A job that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    target: Target,
    container: ContainerId,
    exit: Exit,
}

/// The jobs that failed since it was asked last.
pub fn failures(desired: &Desired, observed: &mut Observed) -> Vec<Failure> {
    let failed = before::failed(desired, observed).filter_map(|(target, job)| match &job.state {
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

/// Reads a failed job's last words.
pub async fn autopsy<E: Engine>(engine: &E, failure: Failure, now: Timestamp) -> Told {
    let Failure { target, container, exit } = failure;
    let log = watch::last_words(engine, &container, exit.started_at).await;
    let exit = ExitStatus::from(&exit);
    let kind = EventKind::JobFailed { target: target.clone(), exit: exit.clone(), log: log.clone() };
    let autopsy = Autopsy { exit, log, port_not_shared: None, other_user: None, exclusive_port: None };
    Told { target, autopsy, events: vec![Event { time: now, kind }], excuse: None }
}
