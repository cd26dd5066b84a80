//! `ipc`: the IPC namespace of a service, which holds shared memory, semaphores and message queues.

use std::collections::BTreeMap;

use super::{
    super::{
        fields::Fields,
        report::{Problem, Report},
        source::At,
    },
    service::Draft,
};
use crate::spec::{Ipc, PodName, ServiceName};

/// The value of `ipc` and its place.
pub(super) struct Written {
    mode: Mode,
    at: At,
}

enum Mode {
    Private,
    Shareable,
    Host,
    /// Any other value, such as `service:NAME` or `container:NAME`.
    Other(String),
}

pub(super) fn written(service: &Fields<'_>) -> Option<Written> {
    let at = service.get("ipc")?.at;
    let mode = match service.text("ipc")?.as_str() {
        "" | "private" => Mode::Private,
        "shareable" => Mode::Shareable,
        "host" => Mode::Host,
        other => Mode::Other(other.to_owned()),
    };
    Some(Written { mode, at })
}

/// Decides the IPC namespaces of all services, once their pods are known.
pub(super) fn settle(drafts: &mut BTreeMap<ServiceName, Draft>, report: &Report) {
    let pods: BTreeMap<ServiceName, PodName> =
        drafts.iter().map(|(name, draft)| (name.clone(), draft.pod.clone())).collect();
    for draft in drafts.values_mut() {
        let Some(Written { mode, at }) = &draft.ipc else { continue };
        let is_named = pods.keys().all(|name| PodName::from(name) != draft.pod);
        let is_in_pod = |other: &str| {
            let other = other.strip_prefix("service:");
            pods.iter().any(|(name, pod)| Some(name.as_str()) == other && *pod == draft.pod)
        };
        let ipc = match mode {
            Mode::Private => is_named.then_some(Ipc::Own),
            Mode::Host => Some(Ipc::Host),
            Mode::Shareable => (!is_named).then_some(Ipc::Pod),
            Mode::Other(other) if is_in_pod(other) => (!is_named).then_some(Ipc::Pod),
            Mode::Other(other) => {
                let problem = Problem::warning(*at, format!("`ipc: {other}` has no effect"));
                report.push(
                    problem.help("only services of one pod can share it: see `network_mode: service:NAME`"),
                );
                None
            }
        };
        if let Some(service) = &mut draft.service {
            service.container.ipc = ipc;
        }
    }
}
