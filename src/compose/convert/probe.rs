//! `x-sameport.probe`: how the state of replicas is checked.

use super::super::{
    fields::{Fields, loose, text},
    keys,
    node::{Node, Value},
    report::Problem,
    source::At,
};
use crate::spec::{Probe, ProbeKind, ProbeType, Probes, Sharing};

const HELP: &str = "write `http: /healthz`, `tcp: true` or `exec: [\"program\", \"argument\"]`";

/// The probes of a service, and the place of each.
pub(super) fn probes(extension: &Fields<'_>, sharing: Sharing) -> (Option<Probes>, Vec<(ProbeType, At)>) {
    let Some(fields) = extension.get("probe").and_then(|node| Fields::of(node, "probe", extension.report))
    else {
        return (None, Vec::new());
    };
    keys::check(fields.node, "`probe`", keys::PROBE, fields.report);
    let named: Vec<_> =
        ProbeType::ALL.into_iter().filter(|probe_type| fields.get(word(*probe_type)).is_some()).collect();
    let mut probes = Probes::default();
    let mut places = Vec::new();
    let mut enter = |probe_type, fields: Fields<'_>, key: At, name: &str| {
        let Some(probe) = probe(&fields) else { return };
        without_the_kernel(&fields, key, name, &probe, sharing);
        places.push((probe_type, fields.node.at));
        let place = match probe_type {
            ProbeType::Startup => &mut probes.startup,
            ProbeType::Readiness => &mut probes.readiness,
            ProbeType::Liveness => &mut probes.liveness,
        };
        *place = Some(probe);
    };
    if named.is_empty() {
        enter(ProbeType::Readiness, fields, extension.key_at("probe"), "probe");
        return (Some(probes), places);
    }
    mixed(&fields, &named);
    for probe_type in named {
        let name = word(probe_type);
        let Some(own) = fields.get(name).and_then(|node| Fields::of(node, name, fields.report)) else {
            continue;
        };
        keys::check(own.node, &format!("`{name}`"), keys::PROBE_OF, fields.report);
        enter(probe_type, own, fields.key_at(name), name);
    }
    (Some(probes), places)
}

fn word(probe_type: ProbeType) -> &'static str {
    match probe_type {
        ProbeType::Startup => "startup",
        ProbeType::Readiness => "readiness",
        ProbeType::Liveness => "liveness",
    }
}

/// Reports probe settings outside of `startup`, `readiness` and `liveness` if one of these exists.
fn mixed(fields: &Fields<'_>, named: &[ProbeType]) {
    let own = |key: &&String| keys::PROBE_OF.iter().any(|(known, _)| known == key);
    if let (Some(key), Some(probe_type)) =
        (fields.node.as_map().into_iter().flatten().map(|(key, _)| key).find(own), named.first())
    {
        let (at, name) = (fields.key_at(key), word(*probe_type));
        let problem = Problem::error(at, format!("`{key}` belongs beside `{name}`, not below one of them"));
        let help = format!("write it below `startup`, `readiness` or `liveness`; or leave out `{name}`");
        fields.report.push(problem.related(fields.key_at(name), "this is one of them").help(help));
    }
}

/// Warns of probes that need a port if `sharing: application` is set. Without the kernel, replicas cannot be addressed
/// separately; only a command within a replica checks that replica.
fn without_the_kernel(fields: &Fields<'_>, key: At, name: &str, probe: &Probe, sharing: Sharing) {
    if sharing == Sharing::Application && probe.needs_port() {
        let problem = Problem::warning(key, format!("`{name}` has no effect with `sharing: application`"));
        fields.report.push(problem.help("ask by `exec`, which works there; or write `sharing: auto`"));
    }
}

fn probe(fields: &Fields<'_>) -> Option<Probe> {
    let (kind, tcp_port) = kind(fields)?;
    let times = |key: &str, usual: u32| {
        let number = fields.integer::<u32>(key);
        if let (Some(0), Some(node)) = (number, fields.get(key)) {
            let problem = Problem::error(node.at, format!("`{key}` cannot be 0"));
            fields.report.push(problem.help("write how many answers in a row count, such as `3`"));
        }
        number.unwrap_or(usual)
    };
    Some(Probe {
        kind,
        port: fields.integer::<u16>("port").or(tcp_port),
        interval: fields.duration("interval").unwrap_or(Probe::INTERVAL),
        timeout: fields.duration("timeout").unwrap_or(Probe::TIMEOUT),
        failures: times("failures", Probe::FAILURES),
        successes: times("successes", Probe::SUCCESSES),
        start_period: fields.duration("start_period"),
    })
}

/// The kind of the probe, and the port if `tcp` gives one.
fn kind(fields: &Fields<'_>) -> Option<(ProbeKind, Option<u16>)> {
    let report = fields.report;
    let asked: Vec<_> = ["http", "tcp", "exec"].into_iter().filter(|key| fields.get(key).is_some()).collect();
    match asked.as_slice() {
        [] => {
            report.push(Problem::error(fields.node.at, "the probe does not say what to check").help(HELP));
            None
        }
        [only] if *only == "http" => Some((ProbeKind::Http { path: path(fields)? }, None)),
        [only] if *only == "tcp" => Some((ProbeKind::Tcp, tcp(fields))),
        [_] => Some((ProbeKind::Exec { command: exec(fields.get("exec")?, fields)? }, None)),
        [first, second, ..] => {
            let problem = Problem::error(
                fields.key_at(second),
                format!("a probe asks `{first}` or `{second}`, not both"),
            );
            let help = match *second {
                "tcp" => "leave one of them out: `http` needs a connection, too",
                _ => "leave one of them out; `startup`, `readiness` and `liveness` can each use another one",
            };
            report.push(problem.help(help));
            None
        }
    }
}

fn path(fields: &Fields<'_>) -> Option<String> {
    let node = fields.get("http")?;
    if !loose(node).is_some_and(|path| path.starts_with('/')) {
        let problem = Problem::error(node.at, "`http` must be a path");
        fields.report.push(problem.help("write one such as `/healthz`"));
    }
    Some(loose(node).unwrap_or_default().to_owned())
}

/// The port of `tcp`; `None` for `tcp: true`.
fn tcp(fields: &Fields<'_>) -> Option<u16> {
    let text = fields.loose_text("tcp")?;
    let port = text.parse().ok();
    if let (None, Some(node)) = (port, fields.get("tcp"))
        && text != "true"
    {
        let problem = Problem::error(node.at, format!("`tcp` cannot be `{text}`"));
        fields.report.push(problem.help("write `tcp: true`, or the port"));
    }
    port
}

/// A command as a list, or as a line for the image's shell.
fn exec(node: &Node, fields: &Fields<'_>) -> Option<Vec<String>> {
    let report = fields.report;
    match &node.value {
        Value::List(list) if list.is_empty() => {
            report.push(Problem::error(node.at, "`exec` is an empty list").help(HELP));
            None
        }
        Value::List(list) => list.iter().map(|item| text(item, "exec", report)).collect(),
        _ => {
            let line = fields.text("exec")?;
            Some(["/bin/sh", "-c", &line].map(str::to_owned).to_vec())
        }
    }
}
