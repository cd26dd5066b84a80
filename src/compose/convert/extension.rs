//! `x-sameport` of a service: what Compose has no words for.

use super::super::{
    fields::{Fields, loose},
    keys,
    report::Problem,
};
use crate::spec::{PodName, Sharing};

/// What a service says under `x-sameport`.
#[derive(Debug, Default)]
pub(super) struct Extension {
    pub sharing: Sharing,
    pub pod: Option<PodName>,
}

pub(super) fn extension(service: &Fields<'_>) -> Extension {
    let Some(fields) =
        service.get("x-sameport").and_then(|node| Fields::of(node, "x-sameport", service.report))
    else {
        return Extension::default();
    };
    keys::check(fields.node, "`x-sameport`", keys::SAMEPORT, service.report);
    let balances = [("least-connections", ()), ("hash", ()), ("random", ())];
    let _checked = (fields.choice("balance", &balances), fields.duration("drain"), fields.duration("hold"));
    probe(&fields);
    let ways = [("auto", Sharing::Auto), ("kernel", Sharing::Kernel), ("application", Sharing::Application)];
    let sharing = fields.choice("sharing", &ways).unwrap_or_default();
    if let (Sharing::Kernel, Some(node)) = (sharing, fields.get("sharing")) {
        let problem = Problem::warning(
            node.at,
            "`sharing: kernel` has no effect: this version does not set `SO_REUSEPORT`",
        );
        service
            .report
            .push(problem.help("the image has to set `SO_REUSEPORT` itself; write `sharing: application`"));
    }
    let pod = fields.get("pod").and_then(|node| {
        let name = PodName::new(fields.text("pod")?);
        name.map_err(|e| {
            service.report.push(
                Problem::error(node.at, format!("`{}` cannot be the name of a pod", e.name)).help(e.rule),
            )
        })
        .ok()
    });
    Extension { sharing, pod }
}

/// Checks a probe, which a later version runs.
fn probe(extension: &Fields<'_>) {
    let report = extension.report;
    let Some(fields) = extension.get("probe").and_then(|node| Fields::of(node, "probe", report)) else {
        return;
    };
    keys::check(fields.node, "`probe`", keys::PROBE, report);
    if let Some(path) = fields.get("http")
        && !loose(path).is_some_and(|path| path.starts_with('/'))
    {
        report.push(Problem::error(path.at, "`http` must be a path").help("write one such as `/healthz`"));
    }
    let _checked = (
        fields.integer::<u16>("port"),
        fields.duration("interval"),
        fields.duration("timeout"),
        fields.integer::<u32>("failures"),
        fields.list("exec"),
        fields.get("tcp").is_some_and(|_| fields.loose_text("tcp").is_some()),
    );
}
