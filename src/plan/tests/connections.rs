use std::collections::{BTreeMap, BTreeSet};

use super::{Is, NOTHING, Scene, Target};
use crate::{
    engine::{Connections, ContainerId, Endpoint, EngineError},
    plan::{Action, status::status},
    spec::{NetworkAttachment, PodNetwork, PortBinding, Protocol},
};

/// A pod with a published port, connected like that.
fn connected(networks: &[(&str, &[&str])], published: &[(u16, u16)]) -> Scene {
    let mut scene = Scene::of(&[("web", 1)]).edit_pod("web", |pod| {
        pod.ports.push(PortBinding {
            service: "web".parse().unwrap(),
            host_ip: None,
            host_port: Some(80),
            container_port: 8080,
            protocol: Protocol::Tcp,
        });
    });
    scene = scene.sandbox("web", Is::Up(60)).replica("web", 1, Is::Up(60));
    let endpoint = |aliases: &[&str]| Endpoint {
        aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        ..Endpoint::default()
    };
    scene.container("web-sandbox").connections = Some(Connections {
        networks: networks
            .iter()
            .map(|(name, aliases)| ((*name).to_owned(), endpoint(aliases)))
            .collect::<BTreeMap<_, _>>(),
        published: published
            .iter()
            .map(|(host, inside)| (*host, *inside, Protocol::Tcp))
            .collect::<BTreeSet<_>>(),
    });
    scene
}

fn converged(scene: &Scene) -> bool {
    status(&scene.desired, &scene.observed, scene.now).converged
}

#[test]
fn a_sandbox_that_was_taken_off_its_network_is_connected_again_in_place() {
    for (case, networks, published, wanted) in [
        ("as it should be", &[("shop_default", &["web", "0123"][..])][..], &[(80, 8080)][..], &[][..]),
        ("taken off", &[], &[], &["connect web sandbox"]),
        ("in another one only", &[("other", &["web"])], &[(80, 8080)], &["connect web sandbox"]),
        ("in another one, too", &[("shop_default", &["web"]), ("other", &[])], &[(80, 8080)], &[]),
        (
            "by hand, without its names",
            &[("shop_default", &["0123"])],
            &[(80, 8080)],
            &["connect web sandbox"],
        ),
        ("its port leads nowhere", &[("shop_default", &["web"])], &[], &["connect web sandbox"]),
        ("its port leads elsewhere", &[("shop_default", &["web"])], &[(81, 8080)], &["connect web sandbox"]),
    ] {
        let scene = connected(networks, published);
        assert_eq!(scene.lines(), wanted, "{case}");
        assert_eq!(converged(&scene), wanted.is_empty(), "{case}");
    }
}

#[test]
fn a_connection_is_made_anew_only_where_there_is_one_and_with_all_names() {
    let attachments = |scene: &Scene| match scene.plan().actions.as_slice() {
        [Action::Connect { network, attachment, reconnects, .. }] => {
            (network.clone(), attachment.aliases.clone(), *reconnects)
        }
        other => panic!("{other:?}"),
    };
    let wanted = |reconnects| ("shop_default".to_owned(), vec!["web".to_owned()], reconnects);
    assert_eq!(attachments(&connected(&[], &[])), wanted(false));
    assert_eq!(attachments(&connected(&[("shop_default", &[])], &[(80, 8080)])), wanted(true));
}

#[test]
fn what_interrupts_a_pod_is_tried_once_and_then_told() {
    let mut scene = connected(&[("shop_default", &["web"])], &[]);
    let (target, id) = (Target::Sandbox("web".parse().unwrap()), ContainerId("web-sandbox".to_owned()));
    let now = scene.now;
    scene.observed.history.entry(target).or_default().note_connect(&id, "shop_default", true, now);
    assert_eq!(scene.lines(), NOTHING);
    let told = status(&scene.desired, &scene.observed, scene.now);
    assert_eq!(told.errors[0].error, "the engine does not publish port 80");
    assert!(!told.converged);
}

#[test]
fn what_connecting_anew_has_put_right_is_put_right_again_when_somebody_changes_it_again() {
    let mut scene = connected(&[("shop_default", &[])], &[(80, 8080)]);
    let (target, id) = (Target::Sandbox("web".parse().unwrap()), ContainerId("web-sandbox".to_owned()));
    let now = scene.now;
    scene.observed.history.entry(target).or_default().note_connect(&id, "shop_default", true, now);
    assert_eq!(scene.lines(), NOTHING, "it has not helped so far");
    let nameless = scene.container("web-sandbox").connections.clone();
    let right =
        connected(&[("shop_default", &["web"])], &[(80, 8080)]).container("web-sandbox").connections.clone();
    scene.container("web-sandbox").connections = right;
    let plan = scene.plan();
    assert_eq!(plan.connected, BTreeSet::from([id]));
    scene.observed.note_connected(&plan.connected);
    scene.container("web-sandbox").connections = nameless;
    // Not at once: nobody is raced.
    scene.now = scene.plan().wake.unwrap();
    assert_eq!(scene.lines(), ["connect web sandbox"]);
}

#[test]
fn who_takes_a_pod_off_its_network_again_and_again_is_not_raced() {
    let mut scene = connected(&[], &[]);
    let (target, id) = (Target::Sandbox("web".parse().unwrap()), ContainerId("web-sandbox".to_owned()));
    for _ in 0..9 {
        let now = scene.now;
        scene.observed.history.entry(target.clone()).or_default().note_connect(
            &id,
            "shop_default",
            false,
            now,
        );
    }
    assert_eq!(scene.lines(), NOTHING);
    assert!(!converged(&scene));
    let wake = scene.plan().wake.unwrap();
    assert!((20..=30).contains(&wake.duration_since(scene.now).as_secs()), "{wake}");
    scene.now = wake;
    assert_eq!(scene.lines(), ["connect web sandbox"]);
}

#[test]
fn where_the_engine_refuses_for_good_the_pod_is_made_anew_and_not_for_a_taken_port() {
    let target = Target::Sandbox("web".parse().unwrap());
    let message = "endpoint with name shop-web-sandbox already exists".to_owned();
    for (error, times, wanted) in [
        (EngineError::Refused { message: message.clone() }, 2, "connect web sandbox"),
        (EngineError::Refused { message }, 3, "remove web sandbox"),
        (
            EngineError::PortTaken { message: "port is already allocated".to_owned() },
            5,
            "connect web sandbox",
        ),
        (
            EngineError::AddressTaken { message: "Address already in use".to_owned() },
            5,
            "connect web sandbox",
        ),
    ] {
        let mut scene = connected(&[], &[]);
        for _ in 0..times {
            let now = scene.now;
            scene.observed.history.entry(target.clone()).or_default().failed(&target, error.clone(), now);
        }
        scene.now = scene.plan().wake.unwrap();
        assert_eq!(scene.lines(), [wanted], "{times} times {error}");
    }
}

#[test]
fn connections_that_the_engine_does_not_tell_or_that_nobody_asked_for_are_left_alone() {
    let mut scene = connected(&[], &[]);
    scene.container("web-sandbox").connections = None;
    assert_eq!(scene.lines(), NOTHING);
    let none = connected(&[], &[]).edit_pod("web", |pod| pod.network = PodNetwork::None);
    assert_eq!(none.lines(), NOTHING, "it is another pod, for which nobody is taken down");
    let gone = connected(&[], &[]);
    let mut gone = gone;
    gone.observed.networks.clear();
    assert_eq!(gone.lines(), ["create network shop_default"], "what is not there cannot be joined");
}

#[test]
fn a_container_that_was_renamed_gets_its_name_back() {
    let mut scene = Scene::up(&[("web", 2)]);
    scene.container("web-sandbox").name = "shop-web-old".to_owned();
    scene.container("web-2").name = "debug".to_owned();
    assert_eq!(scene.lines(), ["rename web sandbox", "rename web-2"]);
    assert!(!converged(&scene));
}

#[test]
fn a_fixed_address_that_is_another_one_is_taken_again_once() {
    for (found, lines) in [("10.0.0.5", vec![]), ("10.0.0.9", vec!["connect web sandbox"])] {
        let mut scene = connected(&[("shop_default", &["web"])], &[(80, 8080)]);
        let fixed = NetworkAttachment { ipv4_address: Some("10.0.0.5".to_owned()), ..Default::default() };
        let networks = BTreeMap::from([("default".to_owned(), fixed)]);
        scene = scene.edit_pod("web", |pod| pod.network = PodNetwork::Networks(networks));
        let generation = scene.desired.project.pods[&"web".parse().unwrap()].generation();
        let sandbox = scene.container("web-sandbox");
        sandbox.labels.generation = generation;
        let endpoint = sandbox.connections.as_mut().unwrap().networks.get_mut("shop_default").unwrap();
        endpoint.ipv4 = Some(found.to_owned());
        assert_eq!(scene.lines(), lines, "{found}");
        let now = scene.now;
        let (target, id) = (Target::Sandbox("web".parse().unwrap()), ContainerId("web-sandbox".to_owned()));
        scene.observed.history.entry(target).or_default().note_connect(&id, "shop_default", true, now);
        assert_eq!(scene.lines(), NOTHING, "{found}");
    }
}
