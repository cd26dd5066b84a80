//! Converts rollouts and versions.

use crate::{
    api::schema::{
        Failure, FailureCode, Order, OrderReason, Pinned, Reason, ReplacementOrder, Revision, RevisionState,
        Rollout, RolloutResult, RolloutStatus, Steps, Summary,
    },
    plan::{
        self, FailureReason, RolloutSummary,
        status::RolloutStatus as Progress,
        versions::{self, Versions, Why},
    },
    spec::{self, ServiceName, Share},
};

use super::status::termination;

/// The versions of a service, with the rollout in progress as reported by its supervisor.
#[must_use]
pub fn rollout_status(
    service: &ServiceName,
    versions: &Versions,
    in_progress: Option<Rollout>,
) -> RolloutStatus {
    let stable = versions.revision(versions.stable);
    RolloutStatus {
        service: service.to_string(),
        stable_version: stable.map(|revision| revision.number),
        image: stable.map(|revision| revision.service.container.image.to_string()),
        in_progress,
        pinned: versions.pin.as_ref().map(|pin| Pinned { version: pin.revision, trigger: reason(&pin.why) }),
        last: versions.last.as_ref().map(result),
    }
}

fn result(ended: &versions::Ended) -> RolloutResult {
    RolloutResult {
        version: ended.to,
        ended_at: ended.at.into(),
        failed_version: ended.failed.as_ref().map(|(version, _)| *version),
        failure: ended.failed.as_ref().map(|(_, failed)| failure(failed)),
        summary: ended.rollout_summary.map(summary),
    }
}

/// Whether values of environment variables are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    /// Names only.
    Hidden,
    /// Names and values.
    Shown,
}

/// The known versions of a service, oldest first.
#[must_use]
pub fn revisions(versions: &Versions, environment: Environment) -> Vec<Revision> {
    let revision = |revision: &versions::Revision| {
        let container = &revision.service.container;
        let state = match &versions.underway {
            Some(underway) if underway.to == revision.number => RevisionState::InProgress,
            _ if versions.stable == revision.number => RevisionState::Stable,
            _ => RevisionState::Previous,
        };
        Revision {
            version: revision.number,
            created_at: revision.at.into(),
            created_by: revision.by.clone(),
            cause: revision.cause.clone(),
            image: container.image.to_string(),
            image_id: container.image_id.clone(),
            generation: revision.service.generation().to_string(),
            state,
            served: revision.served,
            failure: revision.failure.as_ref().map(failure),
            environment: container
                .environment
                .iter()
                .map(|(name, value)| {
                    (name.clone(), value.clone().filter(|_| environment == Environment::Shown))
                })
                .collect(),
        }
    };
    versions.revisions.iter().map(revision).collect()
}

/// Converts a rollout in progress.
pub(super) fn rollout(progress: &Progress) -> Rollout {
    let Progress { service, underway, done, of, image, previous_image } = progress;
    Rollout {
        service: service.to_string(),
        previous_version: underway.from,
        previous_image: previous_image.as_ref().map(ToString::to_string),
        version: underway.to,
        image: image.as_ref().map(ToString::to_string),
        rollback: underway.back.as_ref().map(reason),
        paused: underway.paused.as_ref().map(reason),
        traffic_steps: underway.steps.as_ref().map(|steps| self::steps(steps, *of)),
        started_at: underway.began.into(),
        done: *done,
        total: *of,
    }
}

fn steps(steps: &versions::Steps, of: u32) -> Steps {
    Steps {
        percents: steps.shares.iter().copied().map(percent).collect(),
        current: steps.at,
        current_percent: percent(steps.share()),
        new_replicas: if steps.whole { of } else { steps.share().of(of) },
        interval_seconds: steps.every.map(Into::into),
    }
}

/// A share in percent, with a resolution of 0.1.
pub(super) fn percent(share: Share) -> f64 {
    f64::from(share.thousandths()) / 10.0
}

pub(super) fn reason(why: &Why) -> Reason {
    match why {
        Why::Requested => Reason::Requested,
        Why::Failed(failed) => Reason::Failed { failure: Box::new(failure(failed)) },
    }
}

pub(super) fn failure(failure: &plan::Failure) -> Failure {
    use FailureReason as R;
    let reason = &failure.reason;
    let code = match reason {
        R::Ended { .. } => FailureCode::Ended,
        R::Refused { .. } => FailureCode::Refused,
        R::Job { .. } => FailureCode::JobFailed,
        R::Unhealthy => FailureCode::Unhealthy,
        R::ListensElsewhere { .. } => FailureCode::ListensElsewhere,
        R::TooSlow { .. } => FailureCode::DeadlineExceeded,
        R::Ill { .. } => FailureCode::NotWorking,
        R::Resets { .. } => FailureCode::Resets,
        R::Overflows { .. } => FailureCode::Overflows,
        R::Queues { .. } => FailureCode::Queues,
        R::OtherUser { .. } => FailureCode::UserConflict,
    };
    Failure {
        slot: failure.slot.number(),
        code,
        message: reason.to_string(),
        termination: match reason {
            R::Ended { last_termination } => Some(termination(last_termination)),
            _ => None,
        },
        user_conflict: match reason {
            R::OtherUser { other } => Some((*other).into()),
            _ => None,
        },
    }
}

/// The order in which replicas are replaced, and its reason.
pub(super) fn order(found: &plan::ReplacementOrder) -> ReplacementOrder {
    let (order_reason, mount) = match &found.reason {
        plan::OrderReason::File => (OrderReason::ComposeFile, None),
        plan::OrderReason::Storage { target } => (OrderReason::Storage, Some(target.clone())),
        plan::OrderReason::NoPort => (OrderReason::NoPort, None),
        plan::OrderReason::Connections => (OrderReason::Connections, None),
        plan::OrderReason::Replicas => (OrderReason::Replicas, None),
    };
    let order = match found.order {
        spec::Order::StartFirst => Order::StartFirst,
        spec::Order::StopFirst => Order::StopFirst,
    };
    ReplacementOrder { order, order_reason, order_message: found.reason.to_string(), mount }
}

pub(super) fn summary(rollout_summary: RolloutSummary) -> Summary {
    let RolloutSummary { connections, migrated, refused, reset } = rollout_summary;
    Summary { connections, migrated, refused, reset }
}
