//! Which goes first when a replica is replaced, how it goes, and how long others wait for the next one.

use std::{sync::Arc, time::Duration};

use super::{Is, NOTHING, Scene};
use crate::{
    engine::Health,
    kernel::{
        sockets::Transport,
        steering::{PodReport, ReplicaReport, Report, Traffic},
    },
    plan::{BindSource, Direction, OrderReason, Outages, Rollout, Sharing, Strategy, replacement_order},
    spec::{Image, Mount, MountSource, Order, Pod, Service},
};

fn mount(target: &str, source: MountSource) -> Mount {
    Mount { target: target.to_owned(), source, read_only: false }
}

fn volume(name: &str) -> Mount {
    mount("/data", MountSource::Volume { name: name.to_owned(), no_copy: false, subpath: None })
}

fn bind(path: &str) -> Mount {
    let source = MountSource::Bind { path: path.to_owned(), create: true, propagation: None, selinux: None };
    mount("/data", source)
}

fn read_only(mount: Mount) -> Mount {
    Mount { read_only: true, ..mount }
}

fn tmpfs() -> Mount {
    mount("/data", MountSource::Tmpfs { size: None, mode: None, options: Vec::new() })
}

/// A service of that name, with these mounts.
fn scene(replicas: u32, mounts: Vec<Mount>) -> Scene {
    let mut scene =
        Scene::up(&[("web", replicas)]).edit("web", |service| service.container.mounts = mounts.clone());
    for (path, source) in [
        ("/srv/data", BindSource::Folder),
        ("/srv/app.conf", BindSource::Other),
        ("/srv/journal", BindSource::Data),
    ] {
        scene.observed.bind_sources.insert(path.to_owned(), source);
    }
    scene
}

impl Scene {
    fn order(&self) -> Option<(Order, OrderReason)> {
        let service = &self.desired.project.services[&"web".parse().unwrap()];
        let found = replacement_order(&self.desired, &self.observed, service, &service.update);
        found.map(|found| (found.order, found.reason))
    }

    /// Another version is wanted, by a rollout.
    fn renewed(self) -> Self {
        let mut scene = self.edit("web", |service| service.container.image = Image("web:2".to_owned()));
        let rollout = Rollout {
            direction: Direction::Forward { previous: None },
            paused: false,
            strategy: Strategy::Rolling,
            began: scene.now,
        };
        scene.desired.rollouts.insert("web".parse().unwrap(), rollout);
        scene
    }

    /// The kernel steers, and shows that replicas have a connection each.
    fn with_a_connection_each(mut self) -> Self {
        let traffic = Traffic { live: 1, listens: true, ..Traffic::default() };
        let replicas = self.observed.containers.values().filter(|container| container.joined.is_some());
        let report = |pid| ReplicaReport {
            pid,
            weight: 100,
            ports: [((Transport::Tcp, 80), traffic)].into(),
            ..ReplicaReport::default()
        };
        let replicas = replicas.map(|container| (container.id.clone(), report(42))).collect();
        let pod = PodReport { netns: super::NETNS, replicas, ..PodReport::default() };
        let report = Report { pods: [("web".parse().unwrap(), pod)].into() };
        self.observed.sharing = Sharing::ByKernel(Arc::new(report));
        self.edit("web", |service| service.sharing = crate::spec::Sharing::Kernel)
    }

    fn hold(&self) -> Duration {
        self.plan().steering_configs[&"web".parse().unwrap()].rules[&"web".parse().unwrap()].hold
    }
}

#[test]
fn two_never_write_to_the_data_of_one() {
    let storage = || (Order::StopFirst, OrderReason::Storage { target: "/data".to_owned() });
    let connections = || (Order::StartFirst, OrderReason::Connections);
    for (case, mount) in [
        ("a named volume", volume("data")),
        ("one of its slot", volume("data-{{.Slot}}")),
        ("an anonymous volume", mount("/data", MountSource::Anonymous)),
        ("a folder", bind("/srv/data")),
        ("a file that is written to", bind("/srv/journal")),
    ] {
        assert_eq!(scene(1, vec![mount.clone()]).order(), Some(storage()), "{case}");
        assert_eq!(scene(1, vec![read_only(mount)]).order(), Some(connections()), "{case}, only read");
    }
    for (case, mount) in [("a configuration file", bind("/srv/app.conf")), ("memory", tmpfs())] {
        assert_eq!(scene(1, vec![mount]).order(), Some(connections()), "{case}");
    }
    // What an image asks for is in no file.
    let mut of_image = scene(1, Vec::new());
    of_image.container("web-1").volumes.insert("/var/lib/db".to_owned());
    let reason = OrderReason::Storage { target: "/var/lib/db".to_owned() };
    assert_eq!(of_image.order(), Some((Order::StopFirst, reason)));
}

#[test]
fn several_that_share_a_port_share_their_storage_anyway_but_not_what_each_has() {
    let first = |scene: Scene| scene.order().map(|(order, _)| order);
    for (mount, wanted) in [
        (volume("data"), Order::StartFirst),
        (bind("/srv/data"), Order::StartFirst),
        (volume("data-{{.Slot}}"), Order::StopFirst),
        (mount("/data", MountSource::Anonymous), Order::StopFirst),
    ] {
        assert_eq!(first(scene(3, vec![mount])), Some(wanted));
    }
    // A socket in a folder is removed by the old one when it ends.
    let no_port = scene(2, vec![bind("/srv/data")]).edit_pod("web", |pod| *pod = Pod::default());
    assert_eq!(first(no_port), Some(Order::StopFirst));
    // A user's count counts, and not only the file's.
    let scaled = scene(1, vec![volume("data")]).goal("web", crate::plan::Goal::Run { replicas: 2 });
    assert_eq!(first(scaled), Some(Order::StartFirst));
}

#[test]
fn one_without_a_port_has_nothing_to_hand_over_and_the_file_has_the_last_word() {
    let without_port = |replicas| scene(replicas, Vec::new()).edit_pod("web", |pod| *pod = Pod::default());
    assert_eq!(without_port(1).order(), Some((Order::StopFirst, OrderReason::NoPort)));
    assert_eq!(without_port(2).order(), Some((Order::StartFirst, OrderReason::Replicas)));
    assert_eq!(scene(1, Vec::new()).order(), Some((Order::StartFirst, OrderReason::Connections)));
    for order in [Order::StartFirst, Order::StopFirst] {
        let told = scene(1, vec![volume("data")]).edit("web", |service| service.update.order = Some(order));
        assert_eq!(told.order(), Some((order, OrderReason::File)));
    }
}

#[test]
fn what_is_mounted_is_looked_at_first() {
    let unknown = || scene(1, vec![bind("/srv/new")]);
    assert_eq!(unknown().order(), None);
    assert_eq!(unknown().renewed().lines(), NOTHING);
    let mut known = unknown().renewed();
    known.observed.bind_sources.insert("/srv/new".to_owned(), BindSource::Folder);
    assert_eq!(known.lines(), ["stop web-1"]);
}

#[test]
fn a_lone_replica_that_makes_way_serves_until_it_is_told_to_end() {
    // It has a connection open, and an hour to finish it: others would wait all that time.
    let own = || mount("/data", MountSource::Anonymous);
    let scene = |replicas, mount| {
        scene(replicas, vec![mount])
            .edit("web", |service| service.drain = Duration::from_secs(3600))
            .with_a_connection_each()
    };
    let alone = scene(1, own()).renewed();
    assert_eq!(alone.lines(), ["stop web-1"]);
    assert_eq!(scene(1, own()).restarted().lines(), ["stop web-1"]);
    // Where others serve meanwhile, it finishes its connections.
    let others = scene(2, own()).renewed();
    assert_eq!(others.lines(), NOTHING);
    assert!(!others.plan().draining.is_empty());
}

#[test]
fn connections_wait_for_a_planned_replacement_as_long_as_it_takes() {
    let scene = || scene(1, vec![volume("data")]).with_a_connection_each();
    assert_eq!(scene().hold(), Service::HOLD);
    let serving = || scene().renewed();
    assert_eq!(serving().hold(), Service::HOLD);
    let coming = |is| serving().replica("web", 1, is);
    assert_eq!(coming(Is::UpAnd(Health::Starting, 60)).hold(), crate::spec::Update::DEADLINE);
    assert_eq!(coming(Is::Up(60)).hold(), Service::HOLD);
    let refuses =
        coming(Is::UpAnd(Health::Starting, 60)).edit("web", |service| service.hold = Duration::ZERO);
    assert_eq!(refuses.hold(), Duration::ZERO);
    // A crash is no plan.
    let crashed = scene().replica("web", 1, Is::UpAnd(Health::Starting, 60));
    assert_eq!(crashed.hold(), Service::HOLD);
}

#[test]
fn it_is_counted_how_long_nobody_served() {
    let mut scene = scene(1, vec![volume("data")]).renewed();
    let web = "web".parse().unwrap();
    let mut outages = Outages::default();
    let after = |scene: &Scene, seconds: i64| scene.now + jiff::SignedDuration::from_secs(seconds);
    outages.note(&scene.desired, &scene.observed, scene.now);
    assert_eq!(outages.of(&web, after(&scene, 5)), Some(Duration::ZERO));
    let ready = std::mem::take(&mut scene.observed.ready_since);
    outages.note(&scene.desired, &scene.observed, after(&scene, 5));
    assert_eq!(outages.of(&web, after(&scene, 7)), Some(Duration::from_secs(2)));
    scene.observed.ready_since = ready;
    outages.note(&scene.desired, &scene.observed, after(&scene, 8));
    assert_eq!(outages.of(&web, after(&scene, 60)), Some(Duration::from_secs(3)));
    scene.desired.rollouts.clear();
    outages.note(&scene.desired, &scene.observed, after(&scene, 61));
    assert_eq!(outages.of(&web, after(&scene, 62)), None);
}
