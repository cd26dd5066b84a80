//! How a pod is connected: the networks of its sandbox, its names and addresses there, its published ports. What somebody
//! has changed of it by hand is put right in place, where the engine can do that.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::{
    engine::{Connections, ContainerState, Endpoint, EngineError},
    spec::{NetworkAttachment, Pod, PodName, PodNetwork, Project},
};

use super::{Action, Container, Planner, Target, status::StatusError};

/// What the engine calls the network of containers that name none.
const BRIDGE: &str = "bridge";
/// An engine that refuses so often to connect a sandbox will not do it.
const HOPELESS: u32 = 3;

/// The networks of a pod by the engine's names, the one that gives the default route first. Every service of the pod is
/// found under its own name there.
#[must_use]
pub fn attachments(project: &Project, name: &PodName, pod: &Pod) -> Vec<(String, NetworkAttachment)> {
    let PodNetwork::Networks(attachments) = &pod.network else { return Vec::new() };
    let mut found: Vec<_> = attachments
        .iter()
        .filter_map(|(key, attachment)| {
            let network = project.networks.get(key)?.name.clone();
            let mut attachment = attachment.clone();
            for service in project.services_of(name) {
                let alias = service.name.to_string();
                if !attachment.aliases.contains(&alias) {
                    attachment.aliases.push(alias);
                }
            }
            Some((network, attachment))
        })
        .collect();
    found.sort_by_key(|(_, attachment)| std::cmp::Reverse(attachment.priority));
    found
}

/// What is not as the pod wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Drift {
    /// It is not connected to a network.
    Disconnected { network: String, attachment: NetworkAttachment },
    /// None of its names is known in a network, or its fixed address is another one: somebody else has connected it.
    Misplaced { network: String, attachment: NetworkAttachment },
    /// It is connected, and some of its ports are not published. To connect it anew publishes them.
    Unpublished { network: String, attachment: NetworkAttachment, ports: BTreeSet<u16> },
}

impl Drift {
    fn parts(&self) -> (&String, &NetworkAttachment) {
        let (Self::Disconnected { network, attachment }
        | Self::Misplaced { network, attachment }
        | Self::Unpublished { network, attachment, .. }) = self;
        (network, attachment)
    }

    fn error(&self) -> String {
        match self {
            Self::Disconnected { network, .. } => {
                format!("its sandbox is not connected to network {network}")
            }
            Self::Misplaced { network, .. } => {
                format!("its sandbox has other names or another address in network {network}")
            }
            Self::Unpublished { ports, .. } => {
                let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
                format!("the engine does not publish port {}", ports.join(" and "))
            }
        }
    }
}

impl Planner<'_> {
    /// Puts the connections of a sandbox right that runs, one after the other. Where the engine refuses that for good, the
    /// pod is made anew.
    pub(super) fn connect(&mut self, name: &PodName, sandbox: &Container) {
        let Some(drift) = self.drift(name, sandbox) else {
            if sandbox.connections.is_some() {
                self.plan.connected.insert(sandbox.id.clone());
            }
            return;
        };
        let target = Target::Sandbox(name.clone());
        let history = self.observed.history.get(&target);
        let (network, attachment) = drift.parts();
        let reconnects = !matches!(drift, Drift::Disconnected { .. });
        let tried = history.and_then(|history| history.connects(&sandbox.id, network));
        if reconnects && tried.is_some_and(|tries| tries.reconnected) {
            return;
        }
        if let Some(at) = tried.and_then(|tries| tries.next(&target))
            && !self.due(at)
        {
            return;
        }
        let refused = history.and_then(|history| history.errors.as_ref()).is_some_and(|errors| {
            let is_final = matches!(errors.last, EngineError::Refused { .. } | EngineError::Conflict { .. });
            is_final && errors.count >= HOPELESS
        });
        let id = sandbox.id.clone();
        self.act(if refused && !reconnects {
            Action::Remove { target, id, volumes: crate::engine::RemoveVolumes::Remove }
        } else {
            let (network, attachment) = (network.clone(), attachment.clone());
            Action::Connect { target, id, network, attachment, reconnects }
        });
    }

    /// What is wrong with the connections of a pod, in words.
    pub(super) fn connection_error(&self, name: &PodName) -> Option<StatusError> {
        let sandbox = self.current_sandbox(name)?;
        let drift = self.drift(name, sandbox)?;
        Some(StatusError {
            target: Target::Sandbox(name.clone()),
            error: drift.error(),
            help: Some(format!(
                "if this persists, `docker rm -f {}` makes sameport recreate the pod",
                sandbox.name
            )),
            tries: 1,
        })
    }

    fn drift(&self, name: &PodName, sandbox: &Container) -> Option<Drift> {
        let pod = self.desired.project.pods.get(name)?;
        let connections = sandbox.connections.as_ref()?;
        let is_this_version = self.desired.project.is_pod(name, &sandbox.labels.generation);
        if !is_this_version || !matches!(sandbox.state, ContainerState::Running(_)) {
            return None;
        }
        let mut wanted = attachments(&self.desired.project, name, pod);
        if matches!(pod.network, PodNetwork::Bridge) {
            wanted.push((BRIDGE.to_owned(), NetworkAttachment::default()));
        }
        let is_there = |network: &String| network == BRIDGE || self.observed.networks.contains_key(network);
        for (network, attachment) in &wanted {
            if !connections.networks.contains_key(network) && is_there(network) {
                return Some(Drift::Disconnected {
                    network: network.clone(),
                    attachment: attachment.clone(),
                });
            }
        }
        for (network, attachment) in &wanted {
            let Some(endpoint) = connections.networks.get(network) else { continue };
            if is_misplaced(endpoint, attachment) {
                return Some(Drift::Misplaced { network: network.clone(), attachment: attachment.clone() });
            }
        }
        let (network, attachment) = wanted.into_iter().next()?;
        let ports = unpublished(pod, connections);
        let is_connected = connections.networks.contains_key(&network);
        (is_connected && !ports.is_empty()).then_some(Drift::Unpublished { network, attachment, ports })
    }
}

/// Whether somebody else has connected a sandbox: it has none of its names, or not its own address. A pod that came by
/// another service has a name less than is wanted, and keeps its connections.
fn is_misplaced(endpoint: &Endpoint, attachment: &NetworkAttachment) -> bool {
    let nameless = !attachment.aliases.is_empty()
        && !attachment.aliases.iter().any(|alias| endpoint.aliases.contains(alias));
    let elsewhere = |wanted: &Option<String>, found: &Option<String>| matches!((wanted, found), (Some(wanted), Some(found)) if wanted != found);
    nameless
        || elsewhere(&attachment.ipv4_address, &endpoint.ipv4)
        || elsewhere(&attachment.ipv6_address, &endpoint.ipv6)
}

/// Ports of a pod that lead to it from nowhere on the host, and should.
fn unpublished(pod: &Pod, connections: &Connections) -> BTreeSet<u16> {
    let missing = pod.ports.iter().filter(|binding| {
        !connections.published.iter().any(|(host, inside, protocol)| {
            (*inside, *protocol) == (binding.container_port, binding.protocol)
                && binding.host_port.is_none_or(|wanted| wanted == *host)
        })
    });
    missing.map(|binding| binding.host_port.unwrap_or(binding.container_port)).collect()
}

/// What was tried to put a connection right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connects {
    /// How often of late.
    count: u32,
    last: Option<Timestamp>,
    /// Whether it was connected anew though it was connected, and that has put nothing right so far: it interrupts the pod, and
    /// is done once.
    pub(super) reconnected: bool,
}

impl Connects {
    /// Takes note of a try that the engine says was successful.
    pub(super) fn note(&mut self, reconnects: bool, now: Timestamp) {
        /// What has held for so long was a success.
        const HELD: std::time::Duration = std::time::Duration::from_secs(60);
        let has_held = self.last.is_none_or(|last| super::history::later(last, HELD) <= now);
        self.count = if has_held { 1 } else { self.count.saturating_add(1) };
        self.last = Some(now);
        self.reconnected |= reconnects;
    }

    /// When it may be tried again: somebody who takes the connection away again and again is not raced.
    fn next(&self, target: &Target) -> Option<Timestamp> {
        self.last.map(|last| super::history::later(last, super::backoff::pause(self.count, target)))
    }
}
