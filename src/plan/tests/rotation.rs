use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Is, NETNS, NOTHING, Scene, new_version};
use crate::{
    engine::{ContainerId, Health},
    kernel::{
        sockets::Transport,
        steering::{PodReport, ReplicaReport, Traffic},
    },
    plan::{Goal, OutOfReach, Phase, Sharing, WEIGHT, status::ReplicaState, status::status},
    spec::{self, PortBinding, PortRange, PortSet, Protocol},
};

const HTTP: (Transport, u16) = (Transport::Tcp, 80);
const DNS: (Transport, u16) = (Transport::Udp, 53);

impl Scene {
    /// The kernel shares the ports of `web`, of which each replica that runs listens on port 80 and is in rotation.
    pub(super) fn steered(replicas: u32) -> Self {
        let mut scene = Self::up(&[("web", replicas)])
            .edit("web", |service| service.sharing = spec::Sharing::Auto)
            .edit_pod("web", |pod| {
                pod.ports.push(PortBinding {
                    service: "web".parse().unwrap(),
                    host_ip: None,
                    host_port: Some(8080),
                    container_port: 80,
                    protocol: Protocol::Tcp,
                });
            });
        let generation = scene.desired.project.pods[&"web".parse().unwrap()].generation();
        scene.container("web-sandbox").labels.generation = generation;
        for slot in 1..=replicas {
            scene = scene.shows(slot, WEIGHT, Some(0));
        }
        scene
    }

    /// The kernel shows a replica with that weight, and so many open connections if it listens.
    pub(super) fn shows(self, slot: u32, weight: u32, live: Option<u64>) -> Self {
        self.reports(|pod| {
            let traffic = |live| (HTTP, Traffic { live, listens: true, shared: true, ..Traffic::default() });
            let ports = live.map(traffic).into_iter().collect();
            let replica = ReplicaReport { pid: 42, address: None, weight, ports, pulse: None };
            pod.replicas.insert(ContainerId(format!("web-{slot}")), replica);
        })
    }

    /// The kernel shows a replica that is out of rotation since so long, serves TCP and UDP, has so many open connections,
    /// and has had no datagram for so many seconds; none if none ever came.
    fn drains(self, slot: u32, out: i64, live: u64, idle: Option<u64>) -> Self {
        self.shows(slot, 0, Some(live)).out(slot, out).reports(|pod| {
            let replica = pod.replicas.get_mut(&ContainerId(format!("web-{slot}"))).unwrap();
            let udp_idle = idle.map(Duration::from_secs);
            let traffic = Traffic { listens: true, shared: true, udp_idle, ..Traffic::default() };
            replica.ports.insert(DNS, traffic);
        })
    }

    pub(super) fn reports(mut self, change: impl FnOnce(&mut PodReport)) -> Self {
        let mut report = match &self.observed.sharing {
            Sharing::ByKernel(report) => (**report).clone(),
            _ => crate::kernel::steering::Report::default(),
        };
        let pod = report.pods.entry("web".parse().unwrap()).or_default();
        pod.netns = NETNS;
        change(pod);
        self.observed.sharing = Sharing::ByKernel(Arc::new(report));
        self
    }

    /// A supervisor has just begun: the kernel has not shown it anything.
    fn unseen(mut self) -> Self {
        self.observed.sharing = Sharing::ByKernel(Arc::default());
        self
    }

    /// It gets nothing new since so long.
    pub(super) fn out(mut self, slot: u32, seconds: i64) -> Self {
        let since = self.now - jiff::ToSpan::seconds(seconds);
        self.observed.out_since.insert(ContainerId(format!("web-{slot}")), since);
        self
    }

    /// The weights that the kernel is told.
    pub(super) fn weights(&self) -> Vec<u32> {
        let steering_configs = self.plan().steering_configs;
        steering_configs.values().flat_map(|pod| &pod.replicas).map(|replica| replica.weight).collect()
    }
}

#[test]
fn who_is_ready_is_in_rotation() {
    for (is, wanted) in [
        (Is::Up(60), WEIGHT),
        (Is::UpAnd(Health::Healthy, 60), WEIGHT),
        (Is::UpAnd(Health::Starting, 60), 0),
        (Is::UpAnd(Health::Unhealthy, 60), 0),
        (Is::Paused, 0),
    ] {
        let scene = Scene::steered(2).replica("web", 2, is);
        assert_eq!(scene.weights(), [WEIGHT, wanted]);
        assert_eq!(scene.lines(), NOTHING);
    }
}

#[test]
fn a_user_may_say_how_much_a_replica_gets() {
    let mut scene = Scene::steered(2);
    let slot = spec::Slot::new(2).unwrap();
    scene.desired.weights = BTreeMap::from([("web".parse().unwrap(), BTreeMap::from([(slot, 10)]))]);
    assert_eq!(scene.weights(), [WEIGHT, 10]);
    assert_eq!(scene.replica("web", 2, Is::UpAnd(Health::Starting, 1)).weights(), [WEIGHT, 0]);
}

#[test]
fn whoever_is_to_end_is_taken_out_first_then_finishes_and_only_then_is_told() {
    let surplus = || Scene::steered(2).goal("web", Goal::Run { replicas: 1 });
    let drain = spec::Service::DRAIN;
    for (case, scene, lines) in [
        ("it is still in rotation, and busy", surplus().shows(2, WEIGHT, Some(3)), vec![]),
        ("it is still in rotation, and idle", surplus(), vec![]),
        ("it is out, and busy", surplus().shows(2, 0, Some(3)).out(2, 1), vec![]),
        ("it is out, and idle", surplus().shows(2, 0, Some(0)).out(2, 1), vec!["stop web-2"]),
        ("it had the time", surplus().shows(2, 0, Some(3)).out(2, 30), vec!["stop web-2"]),
        (
            "it listens no more, and is busy",
            surplus().shows(2, 0, Some(3)).out(2, 1).reports(|pod| {
                let ports = pod.replicas.values_mut().flat_map(|replica| replica.ports.values_mut());
                ports.for_each(|traffic| traffic.listens = false);
            }),
            vec![],
        ),
        ("it does not listen", surplus().shows(2, 0, None).out(2, 1), vec!["stop web-2"]),
        (
            "the kernel says nothing, and it had the time",
            surplus().shows(2, WEIGHT, Some(3)).out(2, 30),
            vec!["stop web-2"],
        ),
    ] {
        assert_eq!(scene.lines(), lines, "{case}");
        assert_eq!(scene.weights(), [WEIGHT, 0], "{case}");
        if lines.is_empty() {
            let wake = scene.plan().wake.unwrap();
            assert!(wake <= scene.now.checked_add(drain).unwrap(), "{case}: it is thought of again in time");
            let told = status(&scene.desired, &scene.observed, scene.now);
            assert!(!told.settled, "{case}: something is left to do");
        }
    }
}

#[test]
fn whoever_serves_datagrams_has_finished_when_none_has_come_for_a_while() {
    let surplus = || Scene::steered(2).goal("web", Goal::Run { replicas: 1 });
    let no_drain = Scene::steered(2)
        .edit("web", |service| service.drain = Duration::ZERO)
        .goal("web", Goal::Run { replicas: 1 });
    let stop = vec!["stop web-2"];
    for (case, scene, lines) in [
        ("they come", surplus().drains(2, 1, 0, Some(0)), vec![]),
        ("they come, after long", surplus().drains(2, 29, 0, Some(0)), vec![]),
        ("they come, and it had the time", surplus().drains(2, 30, 0, Some(0)), stop.clone()),
        ("one came lately", surplus().drains(2, 20, 0, Some(4)), vec![]),
        ("none came for long", surplus().drains(2, 20, 0, Some(5)), stop.clone()),
        ("none came for long before it was out", surplus().drains(2, 1, 0, Some(5)), stop.clone()),
        ("none ever came", surplus().drains(2, 1, 0, None), stop.clone()),
        ("none came for long, and a connection is open", surplus().drains(2, 20, 1, Some(5)), vec![]),
        ("one came lately, and there is no time to finish", no_drain.drains(2, 0, 0, Some(1)), stop),
    ] {
        assert_eq!(scene.lines(), lines, "{case}");
        assert_eq!(scene.weights(), [WEIGHT, 0], "{case}");
        if lines.is_empty() {
            assert!(!scene.plan().draining.is_empty(), "{case}");
            let end = scene.observed.out_since[&ContainerId("web-2".to_owned())] + spec::Service::DRAIN;
            assert_eq!(scene.plan().wake, Some(end), "{case}: what comes before, the kernel shows");
        }
    }
    let idle = |scene: &Scene| {
        let told = status(&scene.desired, &scene.observed, scene.now);
        told.replicas[1].traffic.as_ref().unwrap().udp_idle
    };
    assert_eq!(idle(&Scene::steered(2).drains(2, 1, 0, Some(3))), Some(Duration::from_secs(3)));
    assert_eq!(idle(&Scene::steered(2)), None);
    // A user who takes it out of rotation does not want it to end.
    let mut drained = Scene::steered(2).drains(2, 60, 0, Some(5));
    let slot = spec::Slot::new(2).unwrap();
    drained.desired.weights = BTreeMap::from([("web".parse().unwrap(), BTreeMap::from([(slot, 0)]))]);
    assert_eq!(drained.lines(), NOTHING);
}

#[test]
fn a_rollout_waits_for_flows_of_datagrams_of_each_replica_in_turn() {
    let scene = Scene::steered(3).edit("web", new_version).drains(1, 3, 0, Some(2));
    assert_eq!((scene.weights(), scene.lines()), (vec![0, WEIGHT, WEIGHT], vec![]));
    assert_eq!(scene.drains(1, 6, 0, Some(5)).lines(), ["stop web-1"]);
}

#[test]
fn whoever_a_supervisor_before_us_left_in_rotation_is_not_told_before_the_kernel_shows_it() {
    let unseen = |since| {
        let scene = Scene::steered(2).edit("web", |service| service.drain = Duration::from_secs(1));
        scene.goal("web", Goal::Run { replicas: 1 }).out(2, since).unseen()
    };
    for (since, lines) in [(0, vec![]), (9, vec![]), (10, vec!["stop web-2"])] {
        assert_eq!(unseen(since).lines(), lines, "after {since} s");
        assert_eq!(unseen(since).weights(), [WEIGHT, 0], "after {since} s");
    }
    // Where the kernel cannot share the pod's ports, there is nothing to wait for.
    let mut scene = unseen(0);
    scene.observed.sharing = Sharing::NoKernel("why".to_owned());
    assert_eq!(scene.lines(), ["stop web-2"]);
    let scene = unseen(0).reports(|pod| (pod.netns, pod.error) = (0, Some("why".to_owned())));
    assert_eq!(scene.lines(), ["stop web-2"]);
}

#[test]
fn a_short_time_to_end_is_a_short_time_to_finish() {
    let mut scene = Scene::steered(1).goal("web", Goal::Stop).shows(1, 0, Some(3)).out(1, 2);
    assert_eq!(scene.lines(), NOTHING);
    scene.desired.stop_timeouts.insert("web".parse().unwrap(), Duration::from_secs(1));
    assert_eq!(scene.lines(), ["stop web-1"]);
}

#[test]
fn whoever_is_wanted_again_is_back_in_rotation() {
    let scene = Scene::steered(2).goal("web", Goal::Run { replicas: 1 }).shows(2, 0, Some(3)).out(2, 5);
    let again = scene.goal("web", Goal::Run { replicas: 2 });
    assert_eq!((again.weights(), again.lines()), (vec![WEIGHT, WEIGHT], vec![]));
}

#[test]
fn whoever_is_being_told_to_end_gets_nothing_even_if_it_is_wanted_again() {
    let scene = Scene::steered(2).busy(super::replica("web", 2));
    assert_eq!(scene.weights(), [WEIGHT, 0]);
}

#[test]
fn replicas_are_replaced_one_at_a_time_each_after_it_has_finished() {
    let scene = Scene::steered(3).edit("web", new_version);
    assert_eq!((scene.weights(), scene.lines()), (vec![0, WEIGHT, WEIGHT], vec![]));
    let scene = scene.shows(1, 0, Some(1)).out(1, 1);
    assert_eq!((scene.weights(), scene.lines()), (vec![0, WEIGHT, WEIGHT], vec![]));
    assert_eq!(scene.shows(1, 0, Some(0)).lines(), ["stop web-1"]);
}

#[test]
fn the_next_one_waits_until_the_last_one_listens() {
    let replaced = || Scene::steered(2).edit("web", new_version).replica("web", 1, Is::Up(60));
    let silent = replaced().shows(1, WEIGHT, None);
    assert_eq!((silent.weights(), silent.lines()), (vec![WEIGHT, WEIGHT], vec![]));
    assert_eq!(replaced().weights(), [WEIGHT, 0]);
}

#[test]
fn a_replica_that_does_not_listen_is_not_up() {
    let scene = Scene::steered(1).shows(1, WEIGHT, None);
    let status = status(&scene.desired, &scene.observed, scene.now);
    assert_eq!(status.replicas[0].state, ReplicaState::NotListening { ports: vec![80], out_of_reach: None });
    assert!(!status.converged);
}

#[test]
fn a_project_is_as_wanted_once_the_kernel_does_what_it_is_told() {
    for (case, scene, converged) in [
        ("it does", Scene::steered(2), true),
        ("it has shown nothing yet", Scene::steered(2).unseen(), false),
        ("it shows another network", Scene::steered(2).reports(|pod| pod.netns = NETNS + 1), false),
        ("it shows one as not ready yet", Scene::steered(2).shows(2, 0, Some(0)), false),
        (
            "it does not show one yet",
            Scene::steered(2).reports(|pod| {
                pod.replicas.remove(&ContainerId("web-2".to_owned()));
            }),
            false,
        ),
        (
            "it shows the process that was there before",
            Scene::steered(2).reports(|pod| pod.replicas.values_mut().for_each(|replica| replica.pid = 41)),
            false,
        ),
        (
            "it cannot, and the images do",
            Scene::steered(2).reports(|pod| {
                *pod = PodReport { error: Some("no".to_owned()), ..PodReport::default() };
            }),
            true,
        ),
    ] {
        let status = status(&scene.desired, &scene.observed, scene.now);
        assert_eq!((status.converged, status.settled), (converged, converged), "{case}");
    }
}

#[test]
fn replicas_start_only_once_the_kernel_shares_their_ports() {
    let begin = || Scene::steered(0).goal("web", Goal::Run { replicas: 1 }).unseen();
    assert_eq!(begin().lines(), NOTHING);
    assert_eq!(begin().plan().steering_configs.len(), 1, "the kernel is told of the pod");
    assert_eq!(begin().reports(|_| {}).lines(), ["launch web-1"]);
    let another = begin().reports(|pod| pod.netns = NETNS + 1);
    assert_eq!(another.lines(), NOTHING, "a report of the network that was there before");
    let failed =
        begin().reports(|pod| *pod = PodReport { error: Some("no".to_owned()), ..PodReport::default() });
    assert_eq!(failed.lines(), ["launch web-1"], "`auto` goes without");
}

#[test]
fn who_demands_the_kernel_does_not_start_without() {
    let no_kernel = |sharing| {
        let mut scene = Scene::steered(0)
            .goal("web", Goal::Run { replicas: 1 })
            .edit("web", |service| service.sharing = sharing)
            .goal("web", Goal::Run { replicas: 1 });
        scene.observed.sharing = Sharing::NoKernel("EPERM".to_owned());
        scene
    };
    assert_eq!(no_kernel(spec::Sharing::Auto).lines(), ["launch web-1"]);
    let blocked = no_kernel(spec::Sharing::Kernel);
    assert_eq!(blocked.lines(), NOTHING);
    let status = status(&blocked.desired, &blocked.observed, blocked.now);
    assert!(matches!(&status.replicas[0].state, ReplicaState::Blocked { error, .. } if error == "EPERM"));
}

#[test]
fn a_version_of_another_user_is_rolled_out_as_any_other_and_never_takes_a_replica_down_first() {
    let of_user = |scene: Scene, user: &str| {
        scene.edit("web", |service| service.container.user = Some(user.to_owned()))
    };
    for user in ["1000", "1000:1000", "0:5", "nobody"] {
        for replicas in [1, 2] {
            let scene = of_user(Scene::steered(replicas), user);
            assert!(scene.weights().iter().all(|weight| *weight == WEIGHT), "{user}");
            assert_eq!(scene.lines(), ["launch web-1 replacement"], "{user}");
            assert_eq!(status(&scene.desired, &scene.observed, scene.now).errors, [], "{user}");
        }
    }
}

#[test]
fn nobody_waits_for_a_service_that_is_taken_away() {
    let hold = |scene: &Scene| {
        scene.plan().steering_configs.values().next().unwrap().rules.values().next().unwrap().hold
    };
    assert_eq!(hold(&Scene::steered(1)), spec::Service::HOLD);
    assert_eq!(hold(&Scene::steered(1).goal("web", Goal::Run { replicas: 0 })), spec::Service::HOLD);
    assert_eq!(hold(&Scene::steered(1).goal("web", Goal::Stop)), Duration::ZERO);
    let mut down = Scene::steered(1);
    down.desired.phase = Phase::Down { volumes: crate::engine::RemoveVolumes::Keep };
    assert_eq!((hold(&down), down.weights()), (Duration::ZERO, vec![0]));
}

#[test]
fn exclusive_ports_reach_the_kernel_and_restart_nobody() {
    let ports = |first, last| PortSet::from_iter([PortRange { protocol: Protocol::Tcp, first, last }]);
    let exclusive = |scene: &Scene| scene.plan().steering_configs.values().next().unwrap().exclusive.clone();
    let shown = |scene: &Scene| {
        let status = status(&scene.desired, &scene.observed, scene.now);
        assert!(status.converged);
        status.pods[0].exclusive_ports.clone()
    };
    let scene = Scene::steered(2);
    assert_eq!((exclusive(&scene), shown(&scene)), (PortSet::default(), PortSet::default()));
    let scene = scene.edit("web", |service| service.exclusive_ports = ports(30_000, 30_009));
    assert_eq!((exclusive(&scene), shown(&scene)), (ports(30_000, 30_009), ports(30_000, 30_009)));
    assert_eq!(scene.lines(), NOTHING);
    // The images decide by themselves then.
    let mut alone = scene;
    alone.observed.sharing = Sharing::ByImages;
    assert_eq!(shown(&alone), PortSet::default());
}

#[test]
fn what_one_service_of_a_pod_shares_is_exclusive_for_none() {
    let ports = |first, last| PortSet::from_iter([PortRange { protocol: Protocol::Tcp, first, last }]);
    let mut project = spec::Project::clone(&Scene::steered(1).desired.project);
    let pod = "web".parse().unwrap();
    let mut other = super::service("other", 1);
    other.pod = "web".parse().unwrap();
    other.shared_ports = ports(9000, 9000);
    other.exclusive_ports = ports(53, 53);
    project.services.insert(other.name.clone(), other);
    project.services.get_mut(&"web".parse().unwrap()).unwrap().exclusive_ports = ports(9000, 9001);
    assert_eq!(project.exclusive_ports(&pod), ports(53, 53).union(&ports(9001, 9001)));
    assert_eq!(project.exclusive_ports(&"another".parse().unwrap()), PortSet::default());
}

impl Scene {
    /// What a replica of `web` listens on is at that address.
    fn at(self, slot: u32, address: &str) -> Self {
        let id = ContainerId(format!("web-{slot}"));
        self.reports(|pod| {
            for traffic in pod.replicas.get_mut(&id).unwrap().ports.values_mut() {
                traffic.only_at = Some(address.parse().unwrap());
            }
        })
    }
}

#[test]
fn who_listens_where_nobody_outside_of_the_container_reaches_it_is_not_up() {
    let published_on = |scene: Scene, host_ip: Option<&str>| {
        let host_ip = host_ip.map(|ip| ip.parse().unwrap());
        let mut scene = scene.edit_pod("web", |pod| pod.ports[0].host_ip = host_ip);
        let generation = scene.desired.project.pods[&"web".parse().unwrap()].generation();
        scene.container("web-sandbox").labels.generation = generation;
        scene
    };
    for (address, host_ip, is_up) in [
        ("127.0.0.1", None, false),
        ("::1", None, false),
        ("::1", Some("::1"), false),
        ("::", None, false),
        ("::", Some("10.0.0.1"), false),
        ("::", Some("::1"), true),
        ("fd00::2", Some("::1"), true),
    ] {
        let scene = published_on(Scene::steered(1).at(1, address), host_ip);
        let status = status(&scene.desired, &scene.observed, scene.now);
        let out_of_reach =
            Some(OutOfReach { address: (address.parse::<std::net::IpAddr>().unwrap(), 80).into() });
        let wanted = match is_up {
            true => ReplicaState::Running,
            false => ReplicaState::NotListening { ports: vec![80], out_of_reach },
        };
        assert_eq!(status.replicas[0].state, wanted, "{address} {host_ip:?}");
        assert_eq!(status.converged, is_up, "{address} {host_ip:?}");
    }
    // What nobody has published may be for a neighbour in the pod.
    let mut exposed = Scene::steered(1).at(1, "127.0.0.1").edit_pod("web", |pod| {
        pod.ports.clear();
        pod.expose = [(80, crate::spec::Protocol::Tcp)].into();
    });
    let generation = exposed.desired.project.pods[&"web".parse().unwrap()].generation();
    exposed.container("web-sandbox").labels.generation = generation;
    let status = status(&exposed.desired, &exposed.observed, exposed.now);
    assert_eq!(status.replicas[0].state, ReplicaState::Running);
}
