//! Plans as sentences: a scene is put together, and the plan for it is read as lines such as `stop web.1`.

mod connections;
mod dependents;
mod down;
mod hooks;
mod limits;
mod order;
mod pre_deploy;
mod replicas;
mod restarts;
mod rollout;
mod rotation;
mod sandboxes;
mod status;
mod unhealthy;
mod versions;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{Timestamp, ToSpan};

use crate::{
    engine::{ContainerId, ContainerState, Exit, Health, Labels, Process, Role},
    plan::{Container, Desired, Goal, Observed, Owner, Plan, Target, Verb, Versioned, plan},
    spec::{
        self, Balance, Dependency, DependencyCondition, Generation, Hooks, Image, Network, Pod, PortSet,
        Project, Protocol, PullPolicy, Restart, Service, Sharing, Slot, Unhealthy,
    },
};

/// The inode of every pod's network namespace, as long as nothing goes wrong.
const NETNS: u64 = 7;

/// A state in the words of a test. Times are seconds.
#[derive(Clone, Copy)]
enum Is {
    Created,
    /// Without a health check, since so long.
    Up(i64),
    /// With a health check that says so, since so long.
    UpAnd(Health, i64),
    Paused,
    /// Ended with a code, having run so long.
    Exited(i64, i64),
    Dead,
}

/// A project and what the engine shows of it.
#[derive(Clone)]
struct Scene {
    desired: Desired,
    observed: Observed,
    now: Timestamp,
}

impl Scene {
    /// A project of services that run so many replicas each, of which nothing is there yet but the network.
    fn of(services: &[(&str, u32)]) -> Self {
        let services: BTreeMap<_, _> = services
            .iter()
            .map(|(name, replicas)| (name.parse().unwrap(), service(name, *replicas)))
            .collect();
        let project = Project {
            name: "shop".parse().unwrap(),
            pods: services.values().map(|s| (s.pod.clone(), pod())).collect(),
            services: services.into(),
            networks: BTreeMap::from([("default".to_owned(), network())]),
            volumes: BTreeMap::new(),
        };
        let observed = Observed {
            networks: BTreeMap::from([("shop_default".to_owned(), Owner::Us)]),
            ..Observed::default()
        };
        Self { desired: Desired::all(project), observed, now: Timestamp::from_second(1_000_000).unwrap() }
    }

    /// A project with an open pod and every replica up for a minute.
    fn up(services: &[(&str, u32)]) -> Self {
        let mut scene = Self::of(services);
        for (name, replicas) in services {
            scene = scene.sandbox(name, Is::Up(60));
            for slot in 1..=*replicas {
                scene = scene.replica(name, slot, Is::Up(60));
            }
        }
        scene
    }

    /// The file says something else about a service from now on; what runs is as before.
    fn edit(mut self, name: &str, change: impl FnOnce(&mut Service)) -> Self {
        let mut project = Project::clone(&self.desired.project);
        let service = project.services.get_mut(&name.parse().unwrap()).unwrap();
        change(service);
        if self.desired.goals.get(&service.name).is_some_and(|goal| matches!(goal, Goal::Run { .. })) {
            self.desired.goals.insert(service.name.clone(), Goal::Run { replicas: service.replicas });
        }
        self.desired.project = Versioned::from(project);
        self
    }

    /// The file says something else about a pod from now on.
    fn edit_pod(mut self, name: &str, change: impl FnOnce(&mut Pod)) -> Self {
        let mut project = Project::clone(&self.desired.project);
        change(project.pods.get_mut(&name.parse().unwrap()).unwrap());
        self.desired.project = Versioned::from(project);
        self
    }

    fn goal(mut self, name: &str, goal: Goal) -> Self {
        self.desired.goals.insert(name.parse().unwrap(), goal);
        self
    }

    fn depends(self, name: &str, on: &str, condition: DependencyCondition) -> Self {
        self.edit(name, |service| {
            service
                .depends_on
                .insert(on.parse().unwrap(), Dependency { condition, required: true, restart: false });
        })
    }

    fn restart(self, name: &str, rule: Restart) -> Self {
        self.edit(name, |service| service.restart = rule)
    }

    fn sandbox(mut self, pod: &str, is: Is) -> Self {
        let generation = self.desired.project.pods[&pod.parse().unwrap()].generation();
        self.add(format!("{pod}-sandbox"), pod, generation, Role::Sandbox, is);
        self
    }

    fn replica(self, service: &str, slot: u32, is: Is) -> Self {
        self.replica_named(&format!("{service}-{slot}"), service, slot, is)
    }

    fn replica_named(mut self, container: &str, service: &str, slot: u32, is: Is) -> Self {
        let name = service.parse().unwrap();
        let generation = self.desired.project.services[&name].generation();
        let role = Role::Replica { service: name, slot: Slot::new(slot).unwrap() };
        self.add(container.to_owned(), service, generation, role, is);
        self
    }

    /// The job before the version of a service that the file has now.
    fn job(mut self, service: &str, is: Is) -> Self {
        let name = service.parse().unwrap();
        let generation = self.desired.project.services[&name].generation();
        self.add(format!("{service}-before"), service, generation, Role::PreDeploy { service: name }, is);
        self
    }

    /// A replica of the version that is wanted, which is to take the place of another one.
    fn replacement(self, service: &str, slot: u32, is: Is) -> Self {
        let name = format!("shop-{service}-{slot}-next");
        self.replica_named(&name, service, slot, is)
    }

    fn add(&mut self, id: String, pod: &str, generation: Generation, role: Role, is: Is) {
        let joined = (role != Role::Sandbox).then(|| ContainerId(format!("{pod}-sandbox")));
        let state = self.state(is);
        let replica = match &role {
            Role::Replica { service, .. } => self.desired.project.services.get(service),
            Role::Sandbox | Role::PreDeploy { .. } => None,
        };
        let container = Container {
            id: ContainerId(id.clone()),
            name: if id.starts_with("shop-") { id.clone() } else { format!("shop-{id}") },
            labels: Labels {
                project: "shop".parse().unwrap(),
                pod: pod.parse().unwrap(),
                generation,
                role: role.clone(),
            },
            joined,
            image_id: None,
            hooks: replica.map(|service| service.hooks.clone()).unwrap_or_default(),
            limits: replica.map(|service| service.container.resources.limits()).unwrap_or_default(),
            recreated: false,
            volumes: BTreeSet::new(),
            check: None,
            connections: None,
            since: self.since(is),
            netns: matches!(state, ContainerState::Running(_) | ContainerState::Paused(_)).then_some(NETNS),
            state,
        };
        if let Role::Replica { service, .. } = &role {
            let rule = self.desired.project.services[service].restart;
            let target = self.desired.target_of(&container);
            self.observed.history.entry(target).or_default().note(&container, &rule);
        }
        if matches!(is, Is::Up(_) | Is::UpAnd(Health::Healthy, _)) {
            self.observed.ready_since.insert(container.id.clone(), container.since);
        }
        self.observed.containers.insert(ContainerId(id), container);
    }

    fn state(&self, is: Is) -> ContainerState {
        let ago = |seconds: i64| self.now - seconds.seconds();
        let process = |health, age| Process {
            pid: 42,
            started_at: ago(age),
            health,
            complaint: None,
            check_error: None,
        };
        match is {
            Is::Created => ContainerState::Created,
            Is::Up(age) => ContainerState::Running(process(Health::None, age)),
            Is::UpAnd(health, age) => ContainerState::Running(process(health, age)),
            Is::Paused => ContainerState::Paused(process(Health::None, 60)),
            Is::Exited(code, ran) => ContainerState::Exited(Exit {
                code,
                out_of_memory: false,
                error: None,
                started_at: ago(ran),
                finished_at: self.now,
            }),
            Is::Dead => ContainerState::Dead,
        }
    }

    fn since(&self, is: Is) -> Timestamp {
        match is {
            Is::Up(age) | Is::UpAnd(_, age) => self.now - age.seconds(),
            _ => self.now,
        }
    }

    fn container(&mut self, id: &str) -> &mut Container {
        self.observed.containers.get_mut(&ContainerId(id.to_owned())).unwrap()
    }

    fn busy(mut self, target: Target) -> Self {
        self.observed.busy.insert(target, Verb::Stop);
        self
    }

    /// Every replica that runs was asked to restart.
    fn restarted(mut self) -> Self {
        let processes = self.observed.containers.values().filter(|c| c.labels.role != Role::Sandbox);
        self.desired.superseded =
            processes.filter_map(|c| Some(((c.id.clone(), c.started_at()?), None))).collect();
        self
    }

    fn later(mut self, time: Duration) -> Self {
        self.now = self.now.checked_add(time).unwrap();
        self
    }

    fn plan(&self) -> Plan {
        plan(&self.desired, &self.observed, self.now)
    }

    /// The actions of the plan, as lines.
    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.plan().actions.iter().map(ToString::to_string).collect();
        lines.sort();
        lines
    }
}

fn service(name: &str, replicas: u32) -> Service {
    Service {
        name: name.parse().unwrap(),
        pod: name.parse().unwrap(),
        container: spec::Container::new(Image(format!("{name}:1"))),
        replicas,
        container_name: None,
        restart: Restart::default(),
        stop_grace: Service::STOP_GRACE,
        depends_on: BTreeMap::new(),
        pull_policy: PullPolicy::Missing,
        sharing: Sharing::Application,
        balance: Balance::default(),
        drain: Service::DRAIN,
        hold: Service::HOLD,
        probe: None,
        unhealthy: Unhealthy::default(),
        hooks: Hooks::default(),
        pre_deploy: None,
        update: spec::Update::default(),
        rollback: spec::Update::default(),
        canary: None,
        exclusive_ports: PortSet::default(),
        shared_ports: PortSet::default(),
    }
}

/// A pod with a port that others are told of.
fn pod() -> Pod {
    Pod { expose: BTreeSet::from([(80, Protocol::Tcp)]), ..Pod::default() }
}

fn network() -> Network {
    Network::new("shop_default".to_owned())
}

fn replica(service: &str, slot: u32) -> Target {
    Target::Replica(service.parse().unwrap(), Slot::new(slot).unwrap())
}

/// A change that makes another version of a service, and lets old replicas go before their successors come.
fn new_version(service: &mut Service) {
    service.container.image = Image("app:2".to_owned());
    service.update.order = Some(spec::Order::StopFirst);
}

/// No action at all.
const NOTHING: [&str; 0] = [];

/// The time of the fastest of some plans of so many services, all of which run.
fn fastest(services: usize) -> Duration {
    let names: Vec<_> = (0..services).map(|number| format!("s{number:05}")).collect();
    let mut scene = Scene::of(&names.iter().map(|name| (name.as_str(), 1)).collect::<Vec<_>>());
    for name in &names {
        scene = scene.sandbox(name, Is::Up(1)).replica(name, 1, Is::Up(1));
    }
    let times = (0..3).map(|_| {
        let begun = std::time::Instant::now();
        assert!(scene.plan().actions.is_empty());
        begun.elapsed()
    });
    times.min().unwrap()
}

#[test]
fn a_plan_takes_as_much_longer_as_there_are_more_services() {
    let (few, many) = (fastest(250), fastest(2000));
    // Eight times as many: with a look at all containers for each it would be 64 times.
    assert!(many < 24 * few, "{few:?}, {many:?}");
}
