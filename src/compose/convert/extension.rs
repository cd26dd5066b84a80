//! `x-sameport` of a service: settings that Compose has no keys for.

use super::{
    super::{
        fields::{Fields, loose},
        keys,
        report::Problem,
        source::At,
    },
    hooks, port_sharing, probe, update,
};
use crate::spec::{
    Balance, Canary, PodName, PortSet, PreDeploy, ProbeType, Probes, Service, Share, Sharing, Unhealthy,
};
use std::time::Duration;

/// The settings of `x-sameport`.
#[derive(Debug)]
pub(super) struct Extension {
    pub sharing: Sharing,
    /// The place of `sharing`, if it is set.
    pub sharing_at: Option<At>,
    pub balance: Balance,
    pub drain: Duration,
    pub hold: Duration,
    /// The place of `hold`, if it is set and not 0.
    pub hold_at: Option<At>,
    pub probe: Option<Probes>,
    /// The place of each probe.
    pub probes_at: Vec<(ProbeType, At)>,
    pub unhealthy: Unhealthy,
    pub pre_deploy: Option<PreDeploy>,
    pub pod: Option<PodName>,
    /// `progress_deadline`: how long a new replica may take to become ready.
    pub deadline: Option<Duration>,
    /// `error_budget`: the share of a new version's connections that may fail.
    pub budget: Option<Share>,
    pub canary: Option<Canary>,
    /// Ports that the file declares exclusive: only one replica at a time can bind them.
    pub exclusive_ports: PortSet,
    /// Ports that the file declares shared.
    pub shared_ports: PortSet,
}

impl Default for Extension {
    fn default() -> Self {
        Self {
            sharing: Sharing::default(),
            sharing_at: None,
            balance: Balance::default(),
            drain: Service::DRAIN,
            hold: Service::HOLD,
            hold_at: None,
            probe: None,
            probes_at: Vec::new(),
            unhealthy: Unhealthy::default(),
            pre_deploy: None,
            pod: None,
            deadline: None,
            budget: None,
            canary: None,
            exclusive_ports: PortSet::default(),
            shared_ports: PortSet::default(),
        }
    }
}

pub(super) fn extension(service: &Fields<'_>) -> Extension {
    let Some(fields) =
        service.get("x-sameport").and_then(|node| Fields::of(node, "x-sameport", service.report))
    else {
        return Extension::default();
    };
    keys::check(fields.node, "`x-sameport`", keys::SAMEPORT, service.report);
    let default = Extension::default();
    let balances = [
        ("least-connections", Balance::LeastConnections),
        ("hash", Balance::Hash),
        ("random", Balance::Random),
    ];
    let balance = fields.choice("balance", &balances).unwrap_or_default();
    let drain = match fields.get("drain").and_then(loose) {
        Some("none") => Service::NO_LIMIT,
        _ => fields.duration("drain").unwrap_or(default.drain),
    };
    let hold = fields.duration("hold").unwrap_or(default.hold);
    let unhealthy = match fields.boolean("replace_unhealthy") {
        Some(false) => Unhealthy::Keep,
        Some(true) | None => Unhealthy::Replace,
    };
    let ways = [("auto", Sharing::Auto), ("kernel", Sharing::Kernel), ("application", Sharing::Application)];
    let sharing = fields.choice("sharing", &ways).unwrap_or_default();
    let (probe, probes_at) = probe::probes(&fields, sharing);
    on_the_hosts_network(service, &fields, sharing);
    without_the_kernel(&fields, sharing);
    let pod = fields.get("pod").and_then(|node| {
        let name = PodName::new(fields.text("pod")?);
        name.map_err(|e| {
            service.report.push(
                Problem::error(node.at, format!("`{}` cannot be the name of a pod", e.name)).help(e.rule),
            )
        })
        .ok()
    });
    let sharing_at = fields.get("sharing").map(|node| node.at);
    let pre_deploy = hooks::pre_deploy(&fields);
    let (deadline, canary) = (fields.duration("progress_deadline"), update::canary(&fields));
    let budget = update::budget(&fields);
    let port_sharing::Written { exclusive, shared } = port_sharing::written(&fields);
    Extension {
        sharing,
        sharing_at,
        balance,
        drain,
        hold,
        hold_at: (fields.get("hold").is_some() && !hold.is_zero()).then(|| fields.key_at("hold")),
        probe,
        probes_at,
        unhealthy,
        pre_deploy,
        pod,
        deadline,
        budget,
        canary,
        exclusive_ports: exclusive,
        shared_ports: shared,
    }
}

/// Reports `sharing: kernel` on the host's network, which has sockets of other programs.
fn on_the_hosts_network(service: &Fields<'_>, extension: &Fields<'_>, sharing: Sharing) {
    let host = service.get("network_mode").and_then(loose) == Some("host");
    if let (true, Sharing::Kernel, Some(node)) = (host, sharing, extension.get("sharing")) {
        let problem = Problem::error(node.at, "`sharing: kernel` is not possible on the network of the host");
        service.report.push(problem.help(
            "leave out `network_mode: host`; or write `sharing: application`, and let the image set `SO_REUSEPORT`",
        ));
    }
}

/// Warns of keys that need the kernel if `sharing: application` is set.
fn without_the_kernel(extension: &Fields<'_>, sharing: Sharing) {
    if sharing != Sharing::Application {
        return;
    }
    for key in ["balance", "canary", "drain", "hold", "ports"] {
        if extension.get(key).is_some() {
            let message = format!("`{key}` has no effect with `sharing: application`");
            let problem = Problem::warning(extension.key_at(key), message);
            extension.report.push(problem.help("leave it out, or write `sharing: auto`"));
        }
    }
}
