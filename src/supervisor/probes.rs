//! Probes of the replicas that run: a task for each, whose opinion counts as the replica's health.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    engine::{ContainerId, ContainerState, Health, Role},
    kernel::Netns,
    plan::{Container, Desired, Observed, Phase, Sharing},
    probe::{self, Opinion, Thresholds},
    spec::Probe,
};

/// One life of a replica: its container and its process.
type Life = (ContainerId, u32);

/// What is probed, how, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    address: Ipv4Addr,
    port: u16,
    probe: Probe,
}

/// All probes of a project.
pub struct Probes {
    running: BTreeMap<Life, Running>,
    /// What the engine's own checks said at the last look.
    checked: BTreeMap<ContainerId, Health>,
    opinions: mpsc::UnboundedReceiver<(Life, Opinion)>,
    sender: mpsc::UnboundedSender<(Life, Opinion)>,
}

struct Running {
    subject: Subject,
    opinion: Opinion,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Probes {
    /// Nothing is probed yet.
    pub fn new() -> Self {
        let (sender, opinions) = mpsc::unbounded_channel();
        Self { running: BTreeMap::new(), checked: BTreeMap::new(), opinions, sender }
    }

    /// Takes in what was just seen: from the first moment on, the health of whoever is probed is what its probe says.
    pub fn see(&mut self, desired: &Desired, observed: &mut Observed) {
        self.checked.clear();
        for (id, container) in &observed.containers {
            if let ContainerState::Running(process) = &container.state {
                self.checked.insert(id.clone(), process.health);
            }
        }
        self.follow(desired, observed);
        self.apply(&mut observed.containers);
    }

    /// Probes every replica that runs and whose service has a probe, where it can be reached alone, and nobody else.
    pub fn follow(&mut self, desired: &Desired, observed: &Observed) {
        let mut wanted = BTreeMap::new();
        if desired.phase == Phase::Up && matches!(observed.sharing, Sharing::ByKernel(_)) {
            let subjects = observed.containers.values().filter_map(|container| subject(desired, container));
            wanted.extend(subjects);
        }
        self.running.retain(|life, running| wanted.get(life) == Some(&running.subject));
        for (life, subject) in wanted {
            self.running.entry(life.clone()).or_insert_with(|| {
                let task = tokio::spawn(watch(life, subject.clone(), self.sender.clone()));
                Running { subject, opinion: Opinion::Starting, task }
            });
        }
    }

    /// Waits until a probe has changed its mind.
    pub async fn changed(&mut self) {
        while let Some((life, opinion)) = self.opinions.recv().await {
            if let Some(running) = self.running.get_mut(&life)
                && running.opinion != opinion
            {
                running.opinion = opinion;
                return;
            }
        }
    }

    /// Lets opinions count as health, where the engine's own check does not object. Returns whose health is another one
    /// now.
    pub fn apply(&self, containers: &mut BTreeMap<ContainerId, Container>) -> Vec<ContainerId> {
        let mut changed = Vec::new();
        for ((id, pid), running) in &self.running {
            let checked = self.checked.get(id).copied().unwrap_or(Health::None);
            if let Some(ContainerState::Running(process)) = containers.get_mut(id).map(|c| &mut c.state)
                && process.pid == *pid
            {
                let health = together(checked, running.opinion);
                if std::mem::replace(&mut process.health, health) != health {
                    changed.push(id.clone());
                }
            }
        }
        changed
    }
}

/// What both say: the worse.
fn together(checked: Health, opinion: Opinion) -> Health {
    match checked {
        Health::Starting | Health::Unhealthy => checked,
        Health::None | Health::Healthy => opinion.into(),
    }
}

fn subject(desired: &Desired, container: &Container) -> Option<(Life, Subject)> {
    let Role::Replica { service, slot } = &container.labels.role else { return None };
    let service = desired.project.services.get(service)?;
    let probe = service.probe.clone()?;
    if !desired.project.wants_kernel(&service.pod) || !matches!(container.state, ContainerState::Running(_)) {
        return None;
    }
    let subject = Subject {
        address: desired.project.own_address(service, *slot)?,
        port: desired.project.probe_port(service)?,
        probe,
    };
    Some(((container.id.clone(), container.process()?.pid), subject))
}

/// Asks again and again.
async fn watch(life: Life, subject: Subject, opinions: mpsc::UnboundedSender<(Life, Opinion)>) {
    let mut thresholds = Thresholds::new(subject.probe.failures);
    let to = SocketAddr::from((subject.address, subject.port));
    loop {
        let (pid, probe) = (life.1, subject.probe.clone());
        let asked = tokio::task::spawn_blocking(move || probe::ask(&Netns::of(pid)?, to, &probe)).await;
        let is_good = match asked {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::debug!(%error, container = %life.0, "probe");
                false
            }
            Err(_) => false,
        };
        let opinion = thresholds.note(is_good);
        if opinions.send((life.clone(), opinion)).is_err() {
            return;
        }
        // Until it is ready for the first time, it is waited for.
        let pause = if opinion == Opinion::Starting {
            probe::first_pause(&subject.probe)
        } else {
            subject.probe.interval
        };
        tokio::time::sleep(pause.max(Duration::from_millis(10))).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        engine::{Labels, Process},
        spec::{ProbeKind, Project, Slot},
    };

    fn project() -> Project {
        let image = crate::spec::Image("localhost/demo".to_owned());
        let mut project = crate::demo::project::project(image, 1, "127.0.0.1:4000".parse().unwrap()).unwrap();
        for service in project.services.values_mut() {
            service.probe = Some(Probe {
                kind: ProbeKind::Tcp,
                port: Some(80),
                interval: Probe::INTERVAL,
                timeout: Probe::TIMEOUT,
                failures: Probe::FAILURES,
            });
        }
        project
    }

    /// A replica that runs, and about which nothing is known yet.
    fn running(project: &Project) -> Container {
        let service = project.services.values().next().unwrap();
        Container {
            id: ContainerId("one".to_owned()),
            name: "one".to_owned(),
            labels: Labels {
                project: project.name.clone(),
                pod: service.pod.clone(),
                generation: service.generation(),
                role: Role::Replica { service: service.name.clone(), slot: Slot::new(1).unwrap() },
            },
            joined: None,
            hooks: crate::spec::Hooks::default(),
            limits: crate::spec::Limits::default(),
            state: ContainerState::Running(Process {
                pid: u32::MAX,
                started_at: jiff::Timestamp::UNIX_EPOCH,
                health: Health::None,
            }),
            since: jiff::Timestamp::UNIX_EPOCH,
            netns: None,
        }
    }

    #[tokio::test]
    async fn whoever_is_probed_is_not_ready_from_the_first_moment_on() {
        let project = project();
        let container = running(&project);
        let mut observed = Observed { sharing: Sharing::ByKernel(Arc::default()), ..Observed::default() };
        observed.containers.insert(container.id.clone(), container);
        let (mut probes, desired) = (Probes::new(), Desired::all(project));
        probes.see(&desired, &mut observed);
        let health =
            |observed: &Observed| observed.containers.values().next().unwrap().process().unwrap().health;
        assert_eq!(health(&observed), Health::Starting);
        // Where nobody can be reached alone, nobody is probed.
        observed.sharing = Sharing::ByImages;
        observed.containers = [running(&desired.project)].map(|c| (c.id.clone(), c)).into();
        probes.see(&desired, &mut observed);
        assert_eq!(health(&observed), Health::None);
    }

    #[test]
    fn of_the_engines_check_and_the_probe_the_worse_counts() {
        for (checked, opinion, expected) in [
            (Health::None, Opinion::Starting, Health::Starting),
            (Health::None, Opinion::Ready, Health::Healthy),
            (Health::Healthy, Opinion::Failing, Health::Unhealthy),
            (Health::Unhealthy, Opinion::Ready, Health::Unhealthy),
            (Health::Starting, Opinion::Ready, Health::Starting),
        ] {
            assert_eq!(together(checked, opinion), expected, "{checked:?}, {opinion:?}");
        }
    }
}
