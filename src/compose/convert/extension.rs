//! `x-sameport` of a service: what Compose has no words for.

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

/// What a service says under `x-sameport`.
#[derive(Debug)]
pub(super) struct Extension {
    pub sharing: Sharing,
    /// Where the file says so.
    pub sharing_at: Option<At>,
    pub balance: Balance,
    pub drain: Duration,
    pub hold: Duration,
    /// Where it says how long connections wait, if they shall.
    pub hold_at: Option<At>,
    pub probe: Option<Probes>,
    /// Where each of them stands.
    pub probes_at: Vec<(ProbeType, At)>,
    pub unhealthy: Unhealthy,
    pub pre_deploy: Option<PreDeploy>,
    pub pod: Option<PodName>,
    /// How long a new replica may take to get ready.
    pub deadline: Option<Duration>,
    /// How many connections of a new version may end badly.
    pub budget: Option<Share>,
    pub canary: Option<Canary>,
    /// Ports that only one replica can hold at a time, as it says.
    pub exclusive_ports: PortSet,
    /// Ports that replicas share, as it says.
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

/// The network of the host has ports of others, which are not ours to share.
fn on_the_hosts_network(service: &Fields<'_>, extension: &Fields<'_>, sharing: Sharing) {
    let host = service.get("network_mode").and_then(loose) == Some("host");
    if let (true, Sharing::Kernel, Some(node)) = (host, sharing, extension.get("sharing")) {
        let problem = Problem::error(node.at, "`sharing: kernel` is not possible on the network of the host");
        service.report.push(problem.help(
            "leave out `network_mode: host`; or write `sharing: application`, and let the image set `SO_REUSEPORT`",
        ));
    }
}

/// What only the kernel can do is not done where it shall not.
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
