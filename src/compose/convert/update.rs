//! How a service changes to another version: `deploy.update_config`, `deploy.rollback_config`, and the keys of
//! `x-sameport` that complete them.

use super::{
    super::{
        fields::{Fields, loose},
        keys,
        report::Problem,
    },
    deploy,
    extension::Extension,
};
use crate::spec::{Canary, FailureAction, Image, Order, Share, Update};

/// The settings for rollouts and for rollbacks.
pub(super) fn updates(service: &Fields<'_>, extension: &Extension) -> (Update, Update) {
    let Extension { deadline, budget, .. } = extension;
    let rules = |key: &str| {
        let rules = deploy::fields(service)
            .and_then(|deploy| Fields::of(deploy.get(key)?, key, deploy.report))
            .map(|fields| update(&fields, key));
        let rules = rules.unwrap_or_default();
        Update {
            deadline: deadline.unwrap_or(rules.deadline),
            budget: budget.unwrap_or(rules.budget),
            ..rules
        }
    };
    let back = rules("rollback_config");
    let back = match back.failure_action {
        // A failed rollback cannot be rolled back.
        FailureAction::Rollback => Update { failure_action: FailureAction::Pause, ..back },
        FailureAction::Pause | FailureAction::Continue => back,
    };
    (rules("update_config"), back)
}

fn update(fields: &Fields<'_>, key: &str) -> Update {
    keys::check(fields.node, &format!("`{key}`"), keys::UPDATE, fields.report);
    let default = Update::default();
    let orders = [("start-first", Order::StartFirst), ("stop-first", Order::StopFirst)];
    let actions = [
        ("pause", FailureAction::Pause),
        ("continue", FailureAction::Continue),
        ("rollback", FailureAction::Rollback),
    ];
    let actions = if key == "rollback_config" { &actions[..2] } else { &actions[..] };
    Update {
        parallelism: fields.integer("parallelism").unwrap_or(default.parallelism),
        delay: fields.duration("delay").unwrap_or(default.delay),
        order: fields.choice("order", &orders),
        monitor: fields.duration("monitor").unwrap_or(default.monitor),
        max_failure_ratio: fields
            .parsed(
                "max_failure_ratio",
                "a number from 0 to 1",
                "write the part of the replicas that may fail, such as `0.25`",
                |text| Share::from_ratio(text.parse().ok()?),
            )
            .unwrap_or(default.max_failure_ratio),
        failure_action: fields.choice("failure_action", actions).unwrap_or_default(),
        deadline: default.deadline,
        budget: default.budget,
    }
}

/// Reads `x-sameport.error_budget`.
pub(super) fn budget(extension: &Fields<'_>) -> Option<Share> {
    extension.parsed(
        "error_budget",
        "a percentage from 0 to 100",
        "write the part of a new version's connections that may end badly, such as `1%`; `100%` minds none",
        Share::from_percent,
    )
}

/// Reads `x-sameport.canary`.
pub(super) fn canary(extension: &Fields<'_>) -> Option<Canary> {
    let report = extension.report;
    let fields = extension.get("canary").and_then(|node| Fields::of(node, "canary", report))?;
    keys::check(fields.node, "`canary`", keys::CANARY, report);
    let missing = |key: &str, help: &str| {
        if fields.get(key).and_then(loose).is_none() {
            report.push(Problem::error(fields.node.at, format!("`canary` needs `{key}`")).help(help));
        }
    };
    missing("image", "write the image that gets a part of the traffic");
    missing("weight", "write the part of the new connections that it gets, such as `weight: 10%`");
    let image = fields.text("image");
    let share = fields.parsed(
        "weight",
        "a percentage from 0 to 100",
        "write the part of the new connections that it gets, such as `10%`",
        Share::from_percent,
    );
    Some(Canary { image: Image(image?), image_id: None, share: share? })
}
