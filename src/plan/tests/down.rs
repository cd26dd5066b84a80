use super::{Is, Scene};
use crate::{
    engine::RemoveVolumes,
    plan::{Action, Owner, Phase},
    spec::DependencyCondition,
};

fn down(mut scene: Scene, volumes: RemoveVolumes) -> Scene {
    scene.desired.phase = Phase::Down { volumes };
    scene
}

#[test]
fn replicas_go_before_sandboxes_and_those_before_networks() {
    let scene = down(Scene::up(&[("web", 2)]), RemoveVolumes::Keep);
    assert_eq!(scene.lines(), ["stop web-1", "stop web-2"]);
    let scene = scene.replica("web", 1, Is::Exited(0, 60)).replica("web", 2, Is::Exited(0, 60));
    assert_eq!(scene.lines(), ["remove web-1", "remove web-2"]);
    let mut scene = down(Scene::of(&[("web", 2)]).sandbox("web", Is::Up(60)), RemoveVolumes::Keep);
    assert_eq!(scene.lines(), ["remove web sandbox"]);
    scene.observed.containers.clear();
    assert_eq!(scene.lines(), ["remove network shop_default"]);
}

#[test]
fn dependents_go_first() {
    let scene = Scene::up(&[("db", 1), ("web", 1)]).depends("web", "db", DependencyCondition::Started);
    assert_eq!(down(scene, RemoveVolumes::Keep).lines(), ["stop web-1"]);
}

#[test]
fn volumes_stay_unless_asked_and_those_of_others_always() {
    let mut scene = Scene::of(&[("web", 1)]);
    scene.observed.networks.insert("shared".to_owned(), Owner::Others);
    scene.observed.volumes.insert("shop_data".to_owned(), Owner::Us);
    scene.observed.volumes.insert("theirs".to_owned(), Owner::Others);
    let scene = down(scene, RemoveVolumes::Keep);
    assert_eq!(scene.lines(), ["remove network shop_default"]);
    let scene = down(scene, RemoveVolumes::Remove);
    assert_eq!(scene.lines(), ["remove network shop_default", "remove volume shop_data"]);
}

#[test]
fn the_time_to_end_is_the_services_own_unless_the_user_says_another() {
    let scene = Scene::up(&[("web", 1)])
        .edit("web", |service| service.stop_grace = std::time::Duration::from_secs(30));
    let mut scene = down(scene, RemoveVolumes::Keep);
    let grace = |scene: &Scene| match &scene.plan().actions[..] {
        [Action::Stop { grace, .. }] => grace.as_secs(),
        actions => panic!("{actions:?}"),
    };
    assert_eq!(grace(&scene), 30);
    scene.desired.down_timeout = Some(std::time::Duration::from_secs(1));
    assert_eq!(grace(&scene), 1);
}

#[test]
fn containers_of_services_that_the_file_no_longer_has_go_too() {
    let mut scene = Scene::up(&[("old", 1), ("web", 1)]);
    scene.desired = Scene::of(&[("web", 1)]).desired;
    assert_eq!(down(scene, RemoveVolumes::Keep).lines(), ["stop old-1", "stop web-1"]);
}
