//! The supervisor's interface to steering: starts it, sends it the steering configuration, and compares its reports.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use tokio::sync::watch;

use super::{EventKind, Kernel, graceful_close::GracefulClose, kernel::Beginning};
use crate::{
    engine::{ContainerId, Role},
    kernel::{
        sockets::Transport,
        steering::{Report, Steering, SteeringConfigs},
    },
    plan::{Action, Observed, Sharing, weight_in_force},
    spec::{Project, ProjectName},
};

/// Steering of the project's connections, started on demand.
pub struct Traffic {
    kernel: Arc<dyn Kernel>,
    state: State,
    told: Option<SteeringConfigs>,
}

enum State {
    /// Not requested yet.
    Idle,
    /// Starting: loading the BPF programs takes a moment.
    Beginning(Beginning),
    /// The start failed, with this reason.
    Impossible(String),
    On(Arc<dyn Steering>, watch::Receiver<Arc<Report>>),
}

impl Traffic {
    /// Steering that has not been requested yet.
    pub fn new(kernel: Arc<dyn Kernel>) -> Self {
        Self { kernel, state: State::Idle, told: None }
    }

    /// Starts steering if the project needs it and it was not tried before.
    pub fn begin(&mut self, project: &Project) {
        let wanted = project.pods.keys().any(|pod| project.wants_kernel(pod));
        if wanted && matches!(self.state, State::Idle) {
            self.state = State::Beginning(self.kernel.steer(&project.name));
        }
    }

    /// Whether the start is in progress.
    pub fn is_beginning(&self) -> bool {
        matches!(self.state, State::Beginning(_))
    }

    /// How ports are shared, with the kernel's latest report.
    pub fn sharing(&mut self) -> Sharing {
        match &mut self.state {
            State::Idle => Sharing::ByImages,
            // With an empty report, no replica is started in a pod yet, but the actions before that are possible.
            State::Beginning(_) => Sharing::ByKernel(Arc::default()),
            State::Impossible(reason) => Sharing::NoKernel(reason.clone()),
            State::On(_, reports) => Sharing::ByKernel(Arc::clone(&reports.borrow_and_update())),
        }
    }

    /// Waits for a new report, forever if there is no steering. Returns the result of the start, once.
    pub async fn changed(&mut self) -> Option<EventKind> {
        match &mut self.state {
            State::Beginning(beginning) => {
                let (state, event) = match beginning.await {
                    Ok(steering) => {
                        let reports = steering.reports();
                        (State::On(steering, reports), EventKind::SharedByKernel)
                    }
                    Err(error) => {
                        let reason = error.to_string();
                        (State::Impossible(reason.clone()), EventKind::SharedByApplication { reason })
                    }
                };
                self.state = state;
                Some(event)
            }
            State::On(_, reports) => match reports.changed().await {
                Ok(()) => None,
                // The steering thread has ended, and has reported the reason.
                Err(_) => std::future::pending().await,
            },
            State::Idle | State::Impossible(_) => std::future::pending().await,
        }
    }

    /// Requests a report with current counters.
    pub fn refresh(&self) {
        if let State::On(steering, _) = &self.state {
            steering.look();
        }
    }

    /// Sends the steering configuration, if it changed.
    pub fn want(&mut self, steering_configs: SteeringConfigs) {
        if let State::On(steering, _) = &self.state
            && self.told.as_ref() != Some(&steering_configs)
        {
            steering.want(steering_configs.clone());
            self.told = Some(steering_configs);
        }
    }

    /// The graceful close that must precede an action, if the action stops a replica that may have connections.
    pub fn graceful_close(&self, action: &Action, observed: &Observed) -> Option<GracefulClose> {
        let Action::Stop { id, grace, .. } = action else { return None };
        let (State::On(steering, _), Sharing::ByKernel(report)) = (&self.state, &observed.sharing) else {
            return None;
        };
        let replica = report.pods.values().find_map(|pod| pod.replicas.get(id))?;
        let process = observed.containers.get(id)?.process()?;
        if grace.is_zero() || process.pid != replica.pid {
            return None;
        }
        let tcp = replica.ports.keys().filter(|(transport, _)| *transport == Transport::Tcp);
        let ports = tcp.map(|(_, port)| *port).collect();
        Some(GracefulClose { steering: Arc::clone(steering), pid: replica.pid, ports })
    }

    /// Removes all kernel state that outlives the supervisor. Returns an event if that fails.
    pub fn remove(&mut self, project: &ProjectName) -> Option<EventKind> {
        let result = match &self.state {
            State::On(steering, _) => steering.remove(),
            State::Idle | State::Beginning(_) | State::Impossible(_) => self.kernel.clear(project),
        };
        result.err().map(|error| EventKind::KernelStateLeft { error: error.to_string() })
    }
}

/// Records since when each replica is out of rotation.
pub fn note_out(
    steering_configs: &SteeringConfigs,
    out_since: &mut BTreeMap<ContainerId, Timestamp>,
    now: Timestamp,
) {
    let out = |id: &ContainerId| {
        steering_configs
            .values()
            .flat_map(|pod| &pod.replicas)
            .any(|replica| &replica.id == id && replica.weight == 0)
    };
    out_since.retain(|id, _| out(id));
    for replica in
        steering_configs.values().flat_map(|pod| &pod.replicas).filter(|replica| replica.weight == 0)
    {
        out_since.entry(replica.id.clone()).or_insert(now);
    }
}

/// Compares two reports: changes of rotation, foreign listeners, and errors.
pub fn compare(project: &Project, before: &Sharing, observed: &Observed) -> Vec<EventKind> {
    let Sharing::ByKernel(now) = &observed.sharing else { return Vec::new() };
    let empty = Arc::default();
    let before = if let Sharing::ByKernel(before) = before { before } else { &empty };
    let mut events = Vec::new();
    for (name, pod) in &now.pods {
        let old = before.pods.get(name).cloned().unwrap_or_default();
        for (id, replica) in &pod.replicas {
            let was = old.replicas.get(id).filter(|was| was.pid == replica.pid);
            let Some(Role::Replica { service, slot }) = observed.containers.get(id).map(|c| &c.labels.role)
            else {
                continue;
            };
            let in_force = |report| weight_in_force(project, service, report);
            let (then, since) = (was.map_or(0, in_force), in_force(replica));
            if then != since {
                events.push(EventKind::Rotation {
                    service: service.clone(),
                    slot: *slot,
                    weight: since,
                    live: replica.ports.values().map(|traffic| traffic.live).sum(),
                    total: replica.ports.values().map(|traffic| traffic.total).sum(),
                    queue: replica.ports.values().map(|traffic| traffic.queue).sum(),
                });
            }
        }
        // The report keeps replicas that once had such listeners, so this is reported once for each.
        for (id, listeners) in pod.unsteered.iter().filter(|(id, _)| !old.unsteered.contains_key(*id)) {
            if let Some(Role::Replica { service, slot }) = observed.containers.get(id).map(|c| &c.labels.role)
            {
                let (service, slot, listeners) = (service.clone(), *slot, *listeners);
                events.push(EventKind::UnsteeredListeners { service, slot, listeners });
            }
        }
        let ignored = pod.ignored_programs.iter().filter(|(id, _)| !old.ignored_programs.contains_key(*id));
        for (id, (transport, port)) in ignored {
            let role = id.as_ref().and_then(|id| observed.containers.get(id)).map(|c| &c.labels.role);
            let replica = match role {
                Some(Role::Replica { service, slot }) => Some((service.clone(), *slot)),
                _ => None,
            };
            events.push(EventKind::ReuseportProgramIgnored {
                pod: name.clone(),
                replica,
                port: *port,
                protocol: (*transport).into(),
            });
        }
        if let Some(most) = pod.too_few_files.filter(|most| old.too_few_files != Some(*most)) {
            events.push(EventKind::TooFewFiles { pod: name.clone(), most });
        }
        for foreign_listener in pod.foreign_listeners.difference(&old.foreign_listeners) {
            events.push(EventKind::ForeignListener {
                pod: name.clone(),
                foreign_listener: foreign_listener.clone(),
            });
        }
        for (port, waiting) in &pod.waiting {
            let waited = old.waiting.get(port).is_some_and(|waiting| waiting.connections > 0);
            if (waiting.connections > 0) != waited {
                events.push(EventKind::Waiting {
                    pod: name.clone(),
                    port: *port,
                    connections: waiting.connections,
                });
            }
        }
        if let Some(error) = &pod.error
            && old.error.as_ref() != Some(error)
        {
            events.push(EventKind::SteeringUnavailable { pod: name.clone(), error: error.clone() });
        }
    }
    events
}
