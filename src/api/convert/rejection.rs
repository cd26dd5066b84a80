//! Converts rejections.

use crate::{
    api::schema::{Rejection, RejectionCode},
    plan::versions::Impossible,
    supervisor,
};

/// Converts a rejection to the public schema.
#[must_use]
pub fn rejection(refusal: &supervisor::Rejection) -> Rejection {
    use supervisor::Rejection as R;
    let code = match refusal {
        R::UnknownService { .. } => RejectionCode::UnknownService,
        R::UnknownReplica { .. } => RejectionCode::UnknownReplica,
        R::NotDraining { .. } => RejectionCode::NotDraining,
        R::NotSteered { .. } => RejectionCode::NotSteered,
        R::Rollout { .. } => RejectionCode::RolloutNotPossible,
        R::FixedName { .. } => RejectionCode::FixedName,
        R::TooMany { .. } => RejectionCode::TooManyReplicas,
        R::NotWatched { .. } => RejectionCode::NotWatched,
        R::Closing => RejectionCode::Closing,
        R::GoingDown => RejectionCode::GoingDown,
        R::NotSaved { .. } => RejectionCode::NotSaved,
    };
    let help = match refusal {
        R::NotWatched { help, .. } => Some(help.clone()),
        R::NotDraining { service, slot } => {
            Some(format!("`sameport restart {service}-{slot}` replaces its process"))
        }
        R::NotSaved { .. } => Some(
            "make it possible to write that file, such as by freeing space, then run this command again"
                .to_owned(),
        ),
        R::Closing | R::GoingDown => {
            Some("wait until that has ended, then run this command again".to_owned())
        }
        R::Rollout { service, reason: Impossible::NothingToAbort } => {
            Some(format!("`sameport rollout undo {service}` goes back to the last version that has served"))
        }
        R::Rollout { service, reason: Impossible::NoneServed } => Some(format!(
            "`sameport rollout history {service}` lists the versions; `sameport rollout undo {service} --to N` goes to one of \
             them whatever became of it"
        )),
        R::Rollout { reason: Impossible::SharedData { .. }, .. } => Some(
            "roll it out without a canary; or write `update_config: { order: start-first }` in the Compose file, if its data \
             allows that"
                .to_owned(),
        ),
        _ => None,
    };
    Rejection { code, message: refusal.to_string(), help }
}
