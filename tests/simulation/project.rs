//! Random projects.

use std::{collections::BTreeMap, time::Duration};

use sameport::spec::{
    Balance, Container, Dependency, DependencyCondition, FailureAction, Hook, Hooks, Image, Mount,
    MountSource, Network, Order, Pod, PodName, PortBinding, PortSet, PreDeploy, Project, Protocol,
    PullPolicy, Restart, Service, ServiceName, Share, Sharing, Unhealthy, Update, Volume,
};

/// A project of one to three services.
pub fn random(chance: &mut fastrand::Rng, sharing: Sharing) -> Project {
    let mut project = Project {
        name: "sim".parse().unwrap(),
        services: BTreeMap::new().into(),
        pods: BTreeMap::new(),
        networks: BTreeMap::from([("default".to_owned(), network("sim_default"))]),
        volumes: BTreeMap::from([("data".to_owned(), volume("sim_data-{{.Slot}}"))]),
    };
    for name in ["api", "db", "web"].into_iter().take(chance.usize(1..=3)) {
        add_service(&mut project, name, chance);
    }
    for service in project.services.values_mut() {
        service.sharing = sharing;
    }
    project
}

/// Changes something about a project, as an edit of its file would.
pub fn edit(project: &mut Project, chance: &mut fastrand::Rng) {
    let names: Vec<_> = project.services.keys().cloned().collect();
    let name = names[chance.usize(..names.len())].clone();
    let service = project.services.get_mut(&name).unwrap();
    match chance.u32(0..6) {
        0 => service.replicas = chance.u32(0..6),
        1 => service.container.image = Image(format!("app:{}", chance.u32(0..100))),
        2 => {
            let pod = project.pods.get_mut(&service.pod).unwrap();
            pod.hostname = Some(format!("host-{}", chance.u32(0..100)));
        }
        3 => service.restart.delay = Some(Duration::from_millis(chance.u64(0..2000))),
        // Taken away again now and then.
        4 => service.container.resources.memory = (chance.u32(0..3) > 0).then(|| chance.u64(1..4) << 26),
        _ if names.len() > 1 => {
            let pod = service.pod.clone();
            project.services.remove(&name);
            project.pods.remove(&pod);
            for other in project.services.values_mut() {
                other.depends_on.remove(&name);
            }
        }
        _ => {}
    }
}

fn add_service(project: &mut Project, name: &str, chance: &mut fastrand::Rng) {
    let service_name: ServiceName = name.parse().unwrap();
    let pod: PodName = name.parse().unwrap();
    let mut container = Container::new(Image("app:1".to_owned()));
    if chance.bool() {
        container.mounts.push(Mount {
            target: "/data".to_owned(),
            source: MountSource::Volume {
                name: "sim_data-{{.Slot}}".to_owned(),
                no_copy: false,
                subpath: None,
            },
            read_only: false,
        });
    }
    let mut restart = fastrand::Rng::with_seed(chance.u64(..));
    let depends_on = project
        .services
        .keys()
        .filter(|_| chance.bool())
        .map(|other| {
            (
                other.clone(),
                Dependency {
                    condition: DependencyCondition::Started,
                    required: true,
                    restart: restart.bool(),
                },
            )
        })
        .collect();
    let service = Service {
        name: service_name.clone(),
        pod: pod.clone(),
        container,
        replicas: chance.u32(0..6),
        container_name: None,
        restart: Restart::default(),
        stop_grace: Service::STOP_GRACE,
        depends_on,
        pull_policy: PullPolicy::Missing,
        sharing: Sharing::Application,
        balance: Balance::default(),
        drain: Service::DRAIN,
        hold: Service::HOLD,
        probe: None,
        unhealthy: Unhealthy::default(),
        hooks: Hooks { post_start: hooks(chance), pre_stop: hooks(chance) },
        pre_deploy: chance.bool().then(|| PreDeploy {
            command: vec!["migrate".to_owned()],
            image: None,
            environment: BTreeMap::new(),
            timeout: Duration::from_millis(chance.u64(5000..20_000)),
        }),
        update: update(chance),
        rollback: Update { failure_action: FailureAction::Pause, ..update(chance) },
        canary: None,
        exclusive_ports: PortSet::default(),
        shared_ports: PortSet::default(),
    };
    let ports = vec![PortBinding {
        service: service_name.clone(),
        host_ip: None,
        host_port: Some(8000 + u16::try_from(project.services.len()).unwrap()),
        container_port: 80,
        protocol: Protocol::Tcp,
    }];
    project.pods.insert(pod, Pod { ports, ..Pod::default() });
    project.services.insert(service_name, service);
}

/// None, mostly; else one or two.
fn hooks(chance: &mut fastrand::Rng) -> Vec<Hook> {
    let count = chance.usize(0..6).saturating_sub(3);
    let hook = || Hook {
        command: vec!["hook".to_owned()],
        user: None,
        privileged: false,
        working_dir: None,
        environment: BTreeMap::new(),
    };
    (0..count).map(|_| hook()).collect()
}

fn update(chance: &mut fastrand::Rng) -> Update {
    let orders = [None, Some(Order::StartFirst), Some(Order::StopFirst)];
    let actions = [FailureAction::Rollback, FailureAction::Pause, FailureAction::Continue];
    Update {
        parallelism: chance.u32(0..4),
        delay: Duration::from_millis(chance.u64(0..3000)),
        order: orders[chance.usize(..orders.len())],
        monitor: Duration::from_millis(chance.u64(0..4000)),
        max_failure_ratio: Share::of_thousand(chance.u16(0..500)).unwrap(),
        failure_action: actions[chance.usize(..actions.len())],
        deadline: Update::DEADLINE,
        budget: Update::BUDGET,
    }
}

fn network(name: &str) -> Network {
    Network::new(name.to_owned())
}

fn volume(name: &str) -> Volume {
    Volume::new(name.to_owned())
}
