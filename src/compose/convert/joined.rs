//! `network_mode: service:NAME`: a service in the network of another one, and so in its pod.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{
        fields::Fields,
        report::{Problem, Report},
        source::At,
    },
    depends_on::{self, Dependencies, Services},
    pod::Part,
    service::Draft,
};
use crate::spec::{Dependency, DependencyCondition, ServiceName};

/// For each service: the service whose network it joins, and the place in the file.
pub(super) type Joined = BTreeMap<ServiceName, (ServiceName, At)>;

/// The name of the service whose network a service joins, unchecked.
pub(super) fn written(service: &Fields<'_>) -> Option<(String, At)> {
    let text = service.get("network_mode").and_then(|_| service.text("network_mode"))?;
    let name = text.strip_prefix("service:")?;
    Some((name.to_owned(), service.get("network_mode")?.at))
}

/// The service whose network a service joins. As in Compose, this implies a dependency. It does not imply a restart
/// with that service, since a pod keeps its network.
pub(super) fn of_service(
    service: &Fields<'_>,
    services: &Services<'_>,
    waits_for: &mut Dependencies,
) -> Option<(ServiceName, At)> {
    let (name, at) = written(service)?;
    let Some(other) = ServiceName::new(name.as_str()).ok().filter(|name| services.on.contains(name)) else {
        service.report.push(depends_on::unknown(&name, at, services, service.report));
        return None;
    };
    let started = Dependency { condition: DependencyCondition::Started, required: true, restart: false };
    waits_for.entry(other.clone()).or_insert((started, at));
    Some((other, at))
}

/// Puts each service into the pod of the service whose network it joins.
pub(super) fn settle(
    joined: &Joined,
    drafts: &mut BTreeMap<ServiceName, Draft>,
    parts: &BTreeMap<ServiceName, Part>,
    report: &Report,
) {
    for (name, (other, at)) in joined {
        if let Some(port) = parts.get(name).and_then(|part| part.ports.first()) {
            let message = format!("`{name}` is in the network of `{other}` and cannot publish a port");
            report.push(Problem::error(port.at, message).help(format!("publish it in `{other}`")));
        }
        let Some(pod) = drafts.get(end(name, joined)).map(|draft| draft.pod.clone()) else { continue };
        let Some(draft) = drafts.get_mut(name) else { continue };
        if draft.pod != name.into() && draft.pod != pod {
            let message = format!("`{name}` is in the pod `{}` and in the network of `{other}`", draft.pod);
            report.push(Problem::error(*at, message).help(format!("remove `pod`, or write `pod: {pod}`")));
        }
        draft.pod = pod.clone();
        if let Some(service) = &mut draft.service {
            service.pod = pod;
        }
    }
}

/// The service at the end of a chain of joins. For a cycle, which is reported as one of dependencies, any of its
/// services.
fn end<'a>(name: &'a ServiceName, joined: &'a Joined) -> &'a ServiceName {
    let (mut name, mut seen) = (name, BTreeSet::new());
    while let Some((other, _)) = joined.get(name) {
        if !seen.insert(name) {
            break;
        }
        name = other;
    }
    name
}
