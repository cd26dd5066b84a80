//! The number of replicas of a service, and its restart policy.

use super::super::{
    fields::{Fields, loose},
    keys,
    report::Problem,
};
use crate::spec::{Restart, RestartCondition, Service};

/// `deploy`, if it is a mapping. The module `resources` reads `deploy.resources`.
pub(super) fn fields<'a>(service: &Fields<'a>) -> Option<Fields<'a>> {
    let node = service.get("deploy").filter(|node| node.as_map().is_some())?;
    Some(Fields { node, report: service.report })
}

/// Reports keys of `deploy` that have no effect, and modes that are not supported.
pub(super) fn check(service: &Fields<'_>) {
    let Some(deploy) = fields(service) else { return };
    keys::check(deploy.node, "`deploy`", keys::DEPLOY, service.report);
    if let Some(mode) = deploy.get("mode")
        && loose(mode) != Some("replicated")
    {
        let is = loose(mode).unwrap_or_default();
        let problem = Problem::error(mode.at, format!("`mode: {is}` is not supported"));
        service
            .report
            .push(problem.help("sameport runs on one host: write `mode: replicated` and `replicas: N`"));
    }
}

/// The value of `scale` or `deploy.replicas`; 1 by default.
pub(super) fn replicas(service: &Fields<'_>) -> u32 {
    let report = service.report;
    let deploy = fields(service);
    let scale = service.integer::<u32>("scale");
    let replicas = deploy.and_then(|deploy| deploy.integer::<u32>("replicas"));
    if let (Some(a), Some(b), Some(deploy)) = (scale, replicas, deploy)
        && a != b
    {
        let problem =
            Problem::error(service.key_at("scale"), format!("`scale: {a}` and `replicas: {b}` differ"));
        report.push(problem.related(deploy.key_at("replicas"), "the other number").help("keep one of them"));
    }
    let count = scale.or(replicas).unwrap_or(1);
    if count > Service::MOST_REPLICAS {
        let at = match (scale, deploy) {
            (None, Some(deploy)) => deploy.key_at("replicas"),
            _ => service.key_at("scale"),
        };
        let problem = Problem::error(at, format!("{count} replicas are more than one host runs"));
        report.push(problem.help(format!("write a number up to {}", Service::MOST_REPLICAS)));
    }
    count
}

/// The restart policy, and where it comes from.
pub(super) enum Rule {
    /// From the file.
    Written(Restart),
    /// The default: containers are always restarted.
    Default(Restart),
}

/// Reads `deploy.restart_policy`, or else `restart`.
pub(super) fn restart(service: &Fields<'_>) -> Rule {
    let report = service.report;
    let policy = fields(service)
        .and_then(|deploy| Fields::of(deploy.get("restart_policy")?, "restart_policy", report));
    let short = service.get("restart").and_then(|_| short(service));
    if let Some(policy) = policy {
        keys::check(policy.node, "`restart_policy`", keys::RESTART_POLICY, report);
        if service.get("restart").is_some() {
            let problem = Problem::warning(service.key_at("restart"), "`restart` has no effect");
            let problem = problem.related(policy.node.at, "`deploy.restart_policy` is used");
            report.push(problem.help("remove one of them"));
        }
        let conditions = [
            ("none", RestartCondition::Never),
            ("on-failure", RestartCondition::OnFailure),
            ("any", RestartCondition::Always),
        ];
        return Rule::Written(Restart {
            condition: policy.choice("condition", &conditions).unwrap_or_default(),
            delay: policy.duration("delay"),
            max_attempts: policy.integer("max_attempts"),
            window: policy.duration("window"),
        });
    }
    short.map_or_else(|| Rule::Default(Restart::default()), Rule::Written)
}

/// Reads `restart: no | always | unless-stopped | on-failure[:N]`.
fn short(service: &Fields<'_>) -> Option<Restart> {
    let rule = |condition| Some(Restart { condition, ..Restart::default() });
    let node = service.get("restart")?;
    // YAML 1.1 reads an unquoted `no` as a boolean.
    if matches!(loose(node), Some("false" | "False" | "FALSE")) {
        return rule(RestartCondition::Never);
    }
    if let Some(tries) = loose(node).and_then(|text| text.strip_prefix("on-failure:")) {
        let Ok(tries) = tries.parse::<u32>() else {
            let problem = Problem::error(node.at, format!("`{tries}` is not a number of tries"));
            service.report.push(problem.help("write `on-failure:3`"));
            return None;
        };
        let max_attempts = Some(tries).filter(|&tries| tries > 0);
        return Some(Restart { max_attempts, condition: RestartCondition::OnFailure, ..Restart::default() });
    }
    let words = [
        ("no", RestartCondition::Never),
        ("always", RestartCondition::Always),
        ("unless-stopped", RestartCondition::Always),
        ("on-failure", RestartCondition::OnFailure),
    ];
    service.choice("restart", &words).and_then(rule)
}
