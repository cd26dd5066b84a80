use super::{Is, NOTHING, Scene, Target};
use crate::{plan::Goal, spec::PodNetwork};

#[test]
fn networks_come_first_then_the_sandbox_then_the_replicas() {
    let mut scene = Scene::of(&[("web", 2)]);
    scene.observed.networks.clear();
    assert_eq!(scene.lines(), ["create network shop_default"]);
    let scene = Scene::of(&[("web", 2)]);
    assert_eq!(scene.lines(), ["launch web sandbox"]);
    let scene = scene.sandbox("web", Is::Created);
    assert_eq!(scene.lines(), ["start web sandbox"]);
    let scene = Scene::of(&[("web", 2)]).sandbox("web", Is::Up(1));
    assert_eq!(scene.lines(), ["launch web-1", "launch web-2"]);
}

#[test]
fn a_network_that_two_pods_need_is_made_once() {
    let mut scene = Scene::of(&[("api", 1), ("web", 1)]);
    scene.observed.networks.clear();
    assert_eq!(scene.lines(), ["create network shop_default"]);
}

#[test]
fn a_sandbox_that_ended_is_started_again_and_its_replicas_after_it() {
    let mut scene = Scene::up(&[("web", 2)]).sandbox("web", Is::Exited(137, 60));
    assert_eq!(scene.lines(), ["start web sandbox"]);
    // It runs again, with other namespaces: what had joined the old ones is cut off, all of it.
    scene = scene.sandbox("web", Is::Up(1));
    scene.container("web-sandbox").netns = Some(8);
    assert_eq!(scene.lines(), ["stop web-1", "stop web-2"]);
}

#[test]
fn without_a_view_of_namespaces_the_time_of_start_tells_who_is_cut_off() {
    let mut scene = Scene::up(&[("web", 1)]).sandbox("web", Is::Up(10));
    for id in ["web-1", "web-sandbox"] {
        scene.container(id).netns = None;
    }
    assert_eq!(scene.lines(), ["stop web-1"]);
}

#[test]
fn a_replica_of_a_removed_sandbox_is_made_anew() {
    let mut scene = Scene::up(&[("web", 1)]);
    scene.container("web-1").joined = Some(crate::engine::ContainerId("gone".to_owned()));
    assert_eq!(scene.lines(), ["stop web-1"]);
    let scene = scene.replica("web", 1, Is::Exited(0, 60));
    let mut scene = scene;
    scene.container("web-1").joined = Some(crate::engine::ContainerId("gone".to_owned()));
    assert_eq!(scene.lines(), ["remove web-1"]);
}

#[test]
fn a_changed_pod_is_emptied_before_its_sandbox_goes() {
    let mut scene = Scene::up(&[("web", 2)]).edit_pod("web", |pod| pod.hostname = Some("shop".to_owned()));
    assert_eq!(scene.lines(), NOTHING, "nobody is taken down for it unasked");
    let told = super::super::status::status(&scene.desired, &scene.observed, scene.now);
    assert!(!told.converged && told.errors.len() == 1, "{told:#?}");
    scene.desired.recreate_pods = true;
    assert_eq!(scene.lines(), ["stop web-1", "stop web-2"]);
    let mut scene = Scene::of(&[("web", 2)])
        .sandbox("web", Is::Up(60))
        .replica("web", 1, Is::Exited(0, 60))
        .replica("web", 2, Is::Up(60))
        .edit_pod("web", |pod| pod.hostname = Some("shop".to_owned()));
    scene.desired.recreate_pods = true;
    assert_eq!(scene.lines(), ["remove web-1", "stop web-2"]);
    let scene = Scene::of(&[("web", 2)])
        .sandbox("web", Is::Up(60))
        .edit_pod("web", |pod| pod.hostname = Some("shop".to_owned()));
    assert_eq!(scene.lines(), ["remove web sandbox"]);
}

#[test]
fn a_pod_in_which_nothing_shall_run_is_closed_once_it_is_empty() {
    let scene = Scene::up(&[("web", 1)]).goal("web", Goal::Stop);
    assert_eq!(scene.lines(), ["stop web-1"]);
    let scene = scene.replica("web", 1, Is::Exited(0, 60));
    assert_eq!(scene.lines(), ["stop web sandbox"]);
    assert_eq!(scene.sandbox("web", Is::Exited(0, 60)).lines(), NOTHING);
}

#[test]
fn a_busy_sandbox_is_left_alone() {
    let scene = Scene::of(&[("web", 2)]).busy(Target::Sandbox("web".parse().unwrap()));
    assert_eq!(scene.lines(), NOTHING);
}

#[test]
fn on_the_network_of_the_host_there_is_no_sandbox() {
    let scene = Scene::of(&[("web", 2)]).edit_pod("web", |pod| pod.network = PodNetwork::Host);
    assert_eq!(scene.lines(), ["launch web-1", "launch web-2"]);
}
