use std::time::Duration;

use super::{Is, NOTHING, Scene, Target, new_version, replica};
use crate::{
    engine::{ContainerId, Health},
    plan::{Action, Goal, Orphans, Owner},
    spec::{DependencyCondition, Mount, MountSource, Slot},
};

#[test]
fn a_project_as_wanted_is_left_alone() {
    let scene = Scene::up(&[("api", 1), ("web", 3)]);
    let plan = scene.plan();
    assert_eq!((plan.actions, plan.wake), (vec![], None));
    assert!(plan.draining.is_empty());
}

#[test]
fn missing_slots_are_filled_and_the_surplus_goes() {
    let scene = Scene::up(&[("web", 4)]).goal("web", Goal::Run { replicas: 2 });
    assert_eq!(scene.lines(), ["stop web-3", "stop web-4"]);
    let scene = Scene::up(&[("web", 2)]).goal("web", Goal::Run { replicas: 4 });
    assert_eq!(scene.lines(), ["launch web-3", "launch web-4"]);
    let scene = Scene::up(&[("web", 1)]).replica("web", 2, Is::Exited(0, 9));
    assert_eq!(scene.lines(), ["remove web-2"]);
}

#[test]
fn a_state_of_a_replica_calls_for_an_action() {
    for (is, wanted) in [
        (Is::Created, Some("start web-1")),
        (Is::Up(60), None),
        (Is::UpAnd(Health::Starting, 1), None),
        (Is::UpAnd(Health::Unhealthy, 60), None),
        (Is::Paused, None),
        (Is::Dead, Some("remove web-1")),
    ] {
        let scene = Scene::up(&[("web", 1)]).replica("web", 1, is);
        assert_eq!(scene.lines(), wanted.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn nothing_is_planned_for_a_busy_target() {
    let scene = Scene::of(&[("web", 2)]).sandbox("web", Is::Up(1)).busy(replica("web", 1));
    assert_eq!(scene.lines(), ["launch web-2"]);
}

#[test]
fn a_new_version_replaces_one_replica_at_a_time() {
    let scene = Scene::up(&[("web", 3)]).edit("web", new_version);
    assert_eq!(scene.lines(), ["stop web-1"]);
    assert_eq!(scene.busy(replica("web", 1)).lines(), NOTHING);
    let scene = Scene::up(&[("web", 3)]).replica("web", 1, Is::Exited(0, 60)).edit("web", new_version);
    assert_eq!(scene.lines(), ["remove web-1"]);
}

#[test]
fn the_next_one_goes_when_the_new_one_has_settled() {
    let scene = Scene::up(&[("web", 2)]).edit("web", new_version).replica("web", 1, Is::Up(1));
    assert_eq!(scene.lines(), NOTHING);
    assert_eq!(scene.plan().wake, Some(scene.now + Duration::from_secs(4)));
    assert_eq!(scene.later(Duration::from_secs(4)).lines(), ["stop web-2"]);
    for (health, wanted) in
        [(Health::Starting, None), (Health::Unhealthy, None), (Health::Healthy, Some("stop web-2"))]
    {
        let scene = Scene::up(&[("web", 2)]).edit("web", new_version).replica("web", 1, Is::UpAnd(health, 6));
        assert_eq!(scene.lines(), wanted.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_replica_that_serves_nobody_need_not_wait_for_its_turn() {
    let scene =
        Scene::up(&[("web", 3)]).replica("web", 2, Is::UpAnd(Health::Unhealthy, 60)).edit("web", new_version);
    assert_eq!(scene.lines(), ["stop web-2"]);
}

#[test]
fn a_restart_keeps_the_container_and_goes_one_at_a_time() {
    let scene = Scene::up(&[("web", 3)]).restarted();
    assert_eq!(scene.lines(), ["stop web-1"]);
    let mut scene = Scene::up(&[("web", 3)]).replica("web", 1, Is::Exited(0, 60)).restarted();
    // Its own end is no crash: it starts at once.
    scene.observed.history.clear();
    assert_eq!(scene.lines(), ["start web-1"]);
}

#[test]
fn the_time_that_a_restart_gives_is_for_whom_it_restarts() {
    let mut scene = Scene::up(&[("web", 3)]).restarted();
    scene.desired.superseded.values_mut().for_each(|timeout| *timeout = Some(Duration::from_secs(1)));
    let graces = |scene: &Scene| {
        let actions = scene.plan().actions;
        actions
            .iter()
            .map(|action| match action {
                Action::Stop { grace, .. } => grace.as_secs(),
                other => panic!("{other:?}"),
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(graces(&scene), [1]);
    // Two of them are scaled away before it is their turn.
    let scene = scene.goal("web", Goal::Run { replicas: 1 });
    assert_eq!(graces(&scene), [1, 10, 10]);
    // And all are stopped by somebody who says nothing of a time.
    assert_eq!(graces(&scene.goal("web", Goal::Stop)), [10, 10, 10]);
}

#[test]
fn a_second_container_in_a_slot_goes_and_the_running_one_stays() {
    let mut scene = Scene::up(&[("web", 1)]);
    let mut double = scene.container("web-1").clone();
    double.id = ContainerId("double".to_owned());
    double.state = crate::engine::ContainerState::Created;
    scene.observed.containers.insert(double.id.clone(), double);
    assert_eq!(scene.lines(), ["remove container double"]);
}

#[test]
fn orphans_stay_unless_they_shall_go() {
    let mut scene = Scene::up(&[("old", 1), ("web", 1)]);
    let file = Scene::of(&[("web", 1)]).desired;
    scene.desired = file;
    assert_eq!(scene.lines(), NOTHING);
    scene.desired.orphans = Orphans::Remove;
    // The sandbox follows when nothing has joined it any more.
    assert_eq!(scene.lines(), ["stop container old-1"]);
    scene.observed.containers.remove(&ContainerId("old-1".to_owned()));
    assert_eq!(scene.lines(), ["stop container old-sandbox"]);
}

#[test]
fn dependencies_are_waited_for_before_the_first_start() {
    let started = DependencyCondition::Started;
    let healthy = DependencyCondition::Healthy;
    let completed = DependencyCondition::CompletedSuccessfully;
    for (condition, db, met) in [
        (started, Is::Created, false),
        (started, Is::Up(1), true),
        (started, Is::Exited(0, 9), true),
        (started, Is::Exited(1, 9), false),
        (healthy, Is::UpAnd(Health::Starting, 1), false),
        (healthy, Is::UpAnd(Health::Unhealthy, 60), false),
        (healthy, Is::UpAnd(Health::Healthy, 60), true),
        (completed, Is::Up(60), false),
        (completed, Is::Exited(1, 9), false),
        (completed, Is::Exited(0, 9), true),
    ] {
        let scene = Scene::of(&[("db", 1), ("web", 1)])
            .depends("web", "db", condition)
            .sandbox("db", Is::Up(60))
            .sandbox("web", Is::Up(60))
            .replica("db", 1, db);
        let launches = scene.lines().contains(&"launch web-1".to_owned());
        assert_eq!(launches, met, "{condition:?}: {:?}", scene.container_state("db-1"));
    }
}

#[test]
fn what_runs_already_does_not_care_for_its_dependencies() {
    let scene = Scene::up(&[("db", 1), ("web", 1)])
        .depends("web", "db", DependencyCondition::Healthy)
        .replica("db", 1, Is::UpAnd(Health::Unhealthy, 60));
    assert_eq!(scene.lines(), NOTHING);
}

#[test]
fn dependents_stop_before_what_they_depend_on() {
    let scene = Scene::up(&[("db", 1), ("web", 1)])
        .depends("web", "db", DependencyCondition::Started)
        .goal("db", Goal::Stop)
        .goal("web", Goal::Stop);
    assert_eq!(scene.lines(), ["stop web-1"]);
    let scene = scene.replica("web", 1, Is::Exited(0, 60));
    assert_eq!(scene.lines(), ["stop db-1", "stop web sandbox"]);
}

#[test]
fn each_slot_has_its_own_volume_and_waits_for_it() {
    let mount = Mount {
        target: "/data".to_owned(),
        source: MountSource::Volume { name: "shop_data-{{.Slot}}".to_owned(), no_copy: false, subpath: None },
        read_only: false,
    };
    let mut scene = Scene::of(&[("web", 2)])
        .edit("web", |service| service.container.mounts.push(mount))
        .sandbox("web", Is::Up(1));
    scene.observed.volumes.insert("shop_data-1".to_owned(), Owner::Others);
    assert_eq!(scene.lines(), ["create volume shop_data-2", "launch web-1"]);
}

#[test]
fn a_failed_call_is_tried_again_after_a_pause() {
    let mut scene = Scene::of(&[("web", 1)]);
    let target = Target::Sandbox("web".parse().unwrap());
    let error = crate::engine::EngineError::Busy { message: "later".to_owned() };
    scene.observed.history.entry(target.clone()).or_default().failed(&target, error, scene.now);
    assert_eq!(scene.lines(), NOTHING);
    assert_eq!(scene.plan().wake, Some(scene.now + Duration::from_millis(100)));
    assert_eq!(scene.later(Duration::from_millis(100)).lines(), ["launch web sandbox"]);
}

impl Scene {
    fn container_state(&self, id: &str) -> &crate::engine::ContainerState {
        &self.observed.containers[&ContainerId(id.to_owned())].state
    }
}

#[test]
fn what_another_program_has_made_anew_is_replaced_one_at_a_time_and_by_a_new_container() {
    let mut scene = Scene::up(&[("web", 3)]);
    for id in ["web-1", "web-2"] {
        scene.container(id).recreated = true;
    }
    assert_eq!(scene.lines(), ["stop web-1"]);
    let mut scene = scene.replica("web", 1, Is::Exited(0, 60));
    scene.container("web-1").recreated = true;
    assert_eq!(scene.lines(), ["remove web-1"], "it is not started again");
}

#[test]
fn a_slot_begins_with_new_volumes_where_that_was_asked_for() {
    let (of_slot, of_other) = ("shop_web-1_data-0123abcd", "shop_web-12_data-0123abcd");
    let scene = |slots: &[u32]| {
        let mut scene = Scene::up(&[("web", 1)]);
        scene.observed.containers.retain(|id, _| id.0 != "web-1");
        for name in [of_slot, of_other, "shop_web-1_data", "shop_kept"] {
            scene.observed.volumes.insert(name.to_owned(), Owner::Us);
        }
        let slots = slots.iter().map(|slot| ("web".parse().unwrap(), Slot::new(*slot).unwrap()));
        scene.desired.renew_volumes.extend(slots);
        scene
    };
    assert_eq!(scene(&[]).lines(), ["launch web-1"]);
    assert_eq!(scene(&[2]).lines(), ["launch web-1"]);
    let mut renewed = scene(&[1]);
    assert_eq!(renewed.lines(), [format!("remove volume {of_slot}")]);
    renewed.observed.volumes.remove(of_slot);
    assert_eq!(renewed.lines(), ["launch web-1"]);
    // Those of somebody else stay.
    let mut foreign = scene(&[1]);
    foreign.observed.volumes.insert(of_slot.to_owned(), Owner::Others);
    assert_eq!(foreign.lines(), ["launch web-1"]);
}
