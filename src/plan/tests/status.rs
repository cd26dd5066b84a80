use jiff::Timestamp;

use super::{Is, Scene, new_version, replica};
use crate::{
    engine::{EngineError, Health},
    plan::{
        Goal, LastTermination,
        status::{ExitStatus, ProjectStatus, ReplicaState, status},
    },
    spec::DependencyCondition,
};

fn of(scene: &Scene) -> ProjectStatus {
    status(&scene.desired, &scene.observed, scene.now)
}

#[test]
fn a_project_as_wanted_is_converged() {
    let status = of(&Scene::up(&[("web", 2)]));
    assert!(status.converged);
    assert!(status.pods[0].open);
    assert!(status.replicas.iter().all(|r| r.state == ReplicaState::Running && r.current));
}

#[test]
fn what_waits_for_its_turn_is_not_converged() {
    // The new one settles: there is no action now, and yet one is to come.
    let scene = Scene::up(&[("web", 2)]).edit("web", new_version).replica("web", 1, Is::Up(1));
    assert!(scene.lines().is_empty());
    assert!(!of(&scene).converged);
    let scene = Scene::up(&[("web", 2)]).restarted().replica("web", 1, Is::Up(1));
    assert!(scene.lines().is_empty());
    assert!(!of(&scene).converged);
}

#[test]
fn each_state_has_its_word() {
    for (is, word, converged) in [
        (Is::Created, ReplicaState::Pending, false),
        (Is::Up(1), ReplicaState::Running, true),
        (Is::UpAnd(Health::Starting, 1), ReplicaState::Starting, false),
        (Is::UpAnd(Health::Healthy, 1), ReplicaState::Healthy, true),
        (Is::UpAnd(Health::Unhealthy, 60), ReplicaState::Unhealthy, false),
        (Is::Paused, ReplicaState::Paused, false),
        (Is::Dead, ReplicaState::Removing, false),
    ] {
        let status = of(&Scene::up(&[("web", 1)]).replica("web", 1, is));
        assert_eq!((&status.replicas[0].state, status.converged), (&word, converged));
    }
}

#[test]
fn a_stopped_service_is_converged_and_says_so() {
    let scene = Scene::up(&[("web", 1)])
        .sandbox("web", Is::Exited(0, 60))
        .replica("web", 1, Is::Exited(0, 60))
        .goal("web", Goal::Stop);
    let status = of(&scene);
    assert_eq!((&status.replicas[0].state, status.converged), (&ReplicaState::Stopped, true));
}

#[test]
fn a_waiting_replica_names_what_it_waits_for() {
    let scene = Scene::of(&[("db", 1), ("web", 1)])
        .depends("web", "db", DependencyCondition::Healthy)
        .sandbox("web", Is::Up(1));
    let state = &of(&scene).replicas[1].state;
    assert!(matches!(state, ReplicaState::Waiting { service, .. } if service.as_str() == "db"), "{state:?}");
}

#[test]
fn a_call_that_keeps_failing_is_shown_with_what_to_do() {
    let mut scene = Scene::of(&[("web", 1)]).sandbox("web", Is::Up(1));
    let target = replica("web", 1);
    let history = scene.observed.history.entry(target.clone()).or_default();
    for _ in 0..3 {
        let error = EngineError::PortTaken { message: "port is already allocated".to_owned() };
        history.failed(&target, error, scene.now);
    }
    let status = of(&scene);
    assert!(!status.converged);
    assert_eq!((status.errors.len(), status.errors[0].tries), (1, 3));
    match &status.replicas[0].state {
        ReplicaState::Blocked { error, help, tries: 3 } => {
            assert_eq!(error, "port is already allocated");
            assert!(help.as_ref().is_some_and(|help| help.contains("publish another port")), "{help:?}");
        }
        state => panic!("{state:?}"),
    }
}

#[test]
fn orphans_are_named() {
    let mut scene = Scene::up(&[("old", 1), ("web", 1)]);
    scene.desired = Scene::of(&[("web", 1)]).desired;
    assert_eq!(of(&scene).orphans, ["shop-old-1", "shop-old-sandbox"]);
}

#[test]
fn an_end_is_shown_until_the_replica_has_stayed_up_since() {
    let exit = ExitStatus { code: 1, out_of_memory: false, error: None, at: Timestamp::UNIX_EPOCH };
    let last_termination = LastTermination {
        exit,
        log: vec!["no database".to_owned()],
        port_not_shared: None,
        other_user: None,
        exclusive_port: None,
    };
    let ended = || Scene::up(&[("web", 1)]).replica("web", 1, Is::Exited(1, 1));
    for (scene, shown) in [
        (ended(), true),
        (ended().replica("web", 1, Is::Up(1)), true),
        (ended().replica("web", 1, Is::Up(9)), true),
        (ended().replica("web", 1, Is::Up(10)), false),
        (ended().edit("web", new_version).replica("web", 1, Is::Up(1)), false),
    ] {
        let mut scene = scene;
        scene.observed.history.entry(replica("web", 1)).or_default().last_termination =
            Some(last_termination.clone());
        let seen = &of(&scene).replicas[0];
        assert_eq!((seen.last_termination.is_some(), seen.exits), (shown, u32::from(shown)));
    }
}
