//! A supervisor's side of steering: when it begins, what is told to it, and what is new in what it shows.

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

/// Steering, once there is any.
pub struct Traffic {
    kernel: Arc<dyn Kernel>,
    state: State,
    told: Option<SteeringConfigs>,
}

enum State {
    /// Nobody has asked for it.
    Idle,
    /// It begins, which takes a moment: the programs are loaded.
    Beginning(Beginning),
    /// It was tried.
    Impossible(String),
    On(Arc<dyn Steering>, watch::Receiver<Arc<Report>>),
}

impl Traffic {
    /// Nobody has asked for it yet.
    pub fn new(kernel: Arc<dyn Kernel>) -> Self {
        Self { kernel, state: State::Idle, told: None }
    }

    /// Begins if a project wants it, and nobody has tried before.
    pub fn begin(&mut self, project: &Project) {
        let wanted = project.pods.keys().any(|pod| project.wants_kernel(pod));
        if wanted && matches!(self.state, State::Idle) {
            self.state = State::Beginning(self.kernel.steer(&project.name));
        }
    }

    /// Whether it has begun to begin, and it is not known how that ends.
    pub fn is_beginning(&self) -> bool {
        matches!(self.state, State::Beginning(_))
    }

    /// Who shares ports, and what is seen of it now.
    pub fn sharing(&mut self) -> Sharing {
        match &mut self.state {
            State::Idle => Sharing::ByImages,
            // Nothing is seen yet, so nobody is started in a pod. What comes before can be done.
            State::Beginning(_) => Sharing::ByKernel(Arc::default()),
            State::Impossible(reason) => Sharing::NoKernel(reason.clone()),
            State::On(_, reports) => Sharing::ByKernel(Arc::clone(&reports.borrow_and_update())),
        }
    }

    /// Waits until something is seen anew; for ever where there is nothing to see. Tells how it began, once.
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
                        (State::Impossible(reason.clone()), EventKind::SharedByImages { reason })
                    }
                };
                self.state = state;
                Some(event)
            }
            State::On(_, reports) => match reports.changed().await {
                Ok(()) => None,
                // Its thread has ended, and has told why.
                Err(_) => std::future::pending().await,
            },
            State::Idle | State::Impossible(_) => std::future::pending().await,
        }
    }

    /// Has it look at once, so that counts are those of now.
    pub fn refresh(&self) {
        if let State::On(steering, _) = &self.state {
            steering.look();
        }
    }

    /// Says what is wanted, if that is new.
    pub fn want(&mut self, steering_configs: SteeringConfigs) {
        if let State::On(steering, _) = &self.state
            && self.told.as_ref() != Some(&steering_configs)
        {
            steering.want(steering_configs.clone());
            self.told = Some(steering_configs);
        }
    }

    /// What has to be quiet before this action, if it ends a replica that may have connections.
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

    /// Takes everything away that outlives us. Tells if something stays.
    pub fn remove(&mut self, project: &ProjectName) -> Option<EventKind> {
        let result = match &self.state {
            State::On(steering, _) => steering.remove(),
            State::Idle | State::Beginning(_) | State::Impossible(_) => self.kernel.clear(project),
        };
        result.err().map(|error| EventKind::LeftInKernel { error: error.to_string() })
    }
}

/// Notes since when each replica gets nothing new.
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

/// What is new in what is seen: who went in or out of rotation, whose sockets are strange, what cannot be done.
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
        // Who has had some stays among them: it is told once, however often they come and go.
        for (id, listeners) in pod.unsteered.iter().filter(|(id, _)| !old.unsteered.contains_key(*id)) {
            if let Some(Role::Replica { service, slot }) = observed.containers.get(id).map(|c| &c.labels.role)
            {
                let (service, slot, listeners) = (service.clone(), *slot, *listeners);
                events.push(EventKind::Unsteered { service, slot, listeners });
            }
        }
        let ignored = pod.ignored_programs.iter().filter(|(id, _)| !old.ignored_programs.contains_key(*id));
        for (id, (transport, port)) in ignored {
            let role = id.as_ref().and_then(|id| observed.containers.get(id)).map(|c| &c.labels.role);
            let replica = match role {
                Some(Role::Replica { service, slot }) => Some((service.clone(), *slot)),
                _ => None,
            };
            events.push(EventKind::IgnoredProgram {
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
            events.push(EventKind::CannotSteer { pod: name.clone(), error: error.clone() });
        }
    }
    events
}
