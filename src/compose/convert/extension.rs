//! `x-sameport` of a service: what Compose has no words for.

use super::{
    super::{
        fields::{Fields, loose},
        keys,
        report::Problem,
        source::At,
    },
    hooks,
};
use crate::spec::{Balance, Before, PodName, Probe, ProbeKind, Service, Sharing};
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
    pub probe: Option<Probe>,
    pub probe_at: Option<At>,
    pub before: Option<Before>,
    pub pod: Option<PodName>,
}

impl Default for Extension {
    fn default() -> Self {
        Self {
            sharing: Sharing::default(),
            sharing_at: None,
            balance: Balance::default(),
            drain: Service::DRAIN,
            hold: Service::HOLD,
            probe: None,
            probe_at: None,
            before: None,
            pod: None,
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
    let drain = fields.duration("drain").unwrap_or(default.drain);
    let hold = fields.duration("hold").unwrap_or(default.hold);
    let probe = probe(&fields);
    let probe_at = fields.get("probe").map(|node| node.at);
    let ways = [("auto", Sharing::Auto), ("kernel", Sharing::Kernel), ("application", Sharing::Application)];
    let sharing = fields.choice("sharing", &ways).unwrap_or_default();
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
    let before = hooks::before(&fields);
    Extension { sharing, sharing_at, balance, drain, hold, probe, probe_at, before, pod }
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
    for key in ["balance", "drain", "hold", "probe"] {
        if extension.get(key).is_some() {
            let message = format!("`{key}` has no effect with `sharing: application`");
            let problem = Problem::warning(extension.key_at(key), message);
            extension.report.push(problem.help("leave it out, or write `sharing: auto`"));
        }
    }
}

/// `probe`: an HTTP path or a TCP port that tells whether a replica is ready.
fn probe(extension: &Fields<'_>) -> Option<Probe> {
    let report = extension.report;
    let fields = extension.get("probe").and_then(|node| Fields::of(node, "probe", report))?;
    keys::check(fields.node, "`probe`", keys::PROBE, report);
    let path = fields.get("http").map(|path| {
        if !loose(path).is_some_and(|path| path.starts_with('/')) {
            report
                .push(Problem::error(path.at, "`http` must be a path").help("write one such as `/healthz`"));
        }
        loose(path).unwrap_or_default().to_owned()
    });
    // `tcp: true`, or the port.
    let tcp = fields.get("tcp").and_then(|_| fields.loose_text("tcp"));
    let tcp_port = tcp.as_deref().and_then(|text| text.parse().ok());
    if let (Some(text), None, Some(node)) = (&tcp, tcp_port, fields.get("tcp"))
        && text != "true"
    {
        let problem = Problem::error(node.at, format!("`tcp` cannot be `{text}`"));
        report.push(problem.help("write `tcp: true`, or the port"));
    }
    let kind = match (path, tcp.is_some()) {
        (Some(_), true) => {
            let problem = Problem::error(fields.key_at("tcp"), "a probe asks `http` or `tcp`, not both");
            report.push(problem.help("leave one of them out: `http` needs a connection, too"));
            return None;
        }
        (Some(path), false) => ProbeKind::Http { path },
        (None, true) => ProbeKind::Tcp,
        (None, false) => {
            if fields.get("exec").is_none() {
                let problem = Problem::error(fields.node.at, "the probe does not say what is asked");
                report.push(problem.help("write `http: /healthz` or `tcp: true`"));
            }
            return None;
        }
    };
    Some(Probe {
        kind,
        port: fields.integer::<u16>("port").or(tcp_port),
        interval: fields.duration("interval").unwrap_or(Probe::INTERVAL),
        timeout: fields.duration("timeout").unwrap_or(Probe::TIMEOUT),
        failures: fields.integer::<u32>("failures").unwrap_or(Probe::FAILURES),
    })
}
