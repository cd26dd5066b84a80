//! Services that are restarted after one that they depend on.

use std::collections::BTreeSet;

use crate::plan::{Goal, Target, dependents};

use super::{Is, Scene, new_version};

/// `app` depends on `db`, and is restarted after it.
fn scene() -> Scene {
    let mut scene = Scene::up(&[("app", 2), ("db", 1)]);
    scene = scene.depends("app", "db", crate::spec::DependencyCondition::Started);
    scene.edit("app", |service| {
        service.depends_on.values_mut().for_each(|dependency| dependency.restart = true);
    })
}

/// Who is affected by what is planned.
fn affected(scene: &Scene) -> BTreeSet<String> {
    let actions = scene.plan().actions;
    let of = |action| dependents::of(action, &scene.desired, &scene.observed);
    actions.iter().flat_map(of).map(|name| name.to_string()).collect()
}

fn app() -> BTreeSet<String> {
    BTreeSet::from(["app".to_owned()])
}

#[test]
fn what_is_done_on_purpose_affects_dependents() {
    let mut restarted = scene();
    let db = restarted.container("db-1");
    let key = (db.id.clone(), db.started_at().unwrap());
    restarted.desired.superseded.insert(key, None);
    assert_eq!(restarted.lines(), ["stop db-1"]);
    assert_eq!(affected(&restarted), app());
    assert_eq!(affected(&scene().edit("db", new_version)), app());
    let mut moved = scene().edit_pod("db", |pod| pod.hostname = Some("other".to_owned()));
    moved.desired.recreate_pods = true;
    assert_eq!(moved.lines(), ["stop db-1"]);
    assert_eq!(affected(&moved), app());
}

#[test]
fn what_happens_by_itself_or_is_an_end_affects_nobody() {
    let mut crashed = scene();
    crashed.container("db-1").state = crashed.state(Is::Exited(1, 60));
    assert_eq!(crashed.lines(), ["start db-1"]);
    assert_eq!(affected(&crashed), BTreeSet::new());
    let mut cut_off = scene();
    cut_off.container("db-1").netns = Some(8);
    assert_eq!(cut_off.lines(), ["stop db-1"]);
    assert_eq!(affected(&cut_off), BTreeSet::new());
    for goal in [Goal::Stop, Goal::Run { replicas: 0 }] {
        let ended = scene().goal("db", goal);
        assert_eq!(ended.lines(), ["stop db-1"]);
        assert_eq!(affected(&ended), BTreeSet::new(), "{goal:?}");
    }
    // It does not ask for it.
    let plain = scene().edit("app", |service| {
        service.depends_on.values_mut().for_each(|dependency| dependency.restart = false);
    });
    assert_eq!(affected(&plain.edit("db", new_version)), BTreeSet::new());
}

#[test]
fn dependents_are_restarted_once_all_of_it_is_up_again_and_only_who_is_older() {
    let name = "app".parse().unwrap();
    let due = |scene: &Scene| dependents::are_due(&name, &scene.desired, &scene.observed);
    assert!(!due(&scene().edit("db", new_version)));
    assert!(!due(&scene().busy(Target::Replica("db".parse().unwrap(), crate::spec::Slot::FIRST))));
    let mut away = scene();
    away.observed.containers.remove(&crate::engine::ContainerId("db-1".to_owned()));
    assert!(!due(&away));
    let mut back = scene();
    assert!(due(&back));
    let stale = |scene: &Scene| dependents::stale(&name, &scene.desired, &scene.observed);
    assert_eq!(stale(&back), BTreeSet::new(), "all began at the same time");
    back.container("db-1").state = back.state(Is::Up(10));
    back.container("app-2").state = back.state(Is::Up(5));
    let only: Vec<_> = stale(&back).into_iter().map(|(id, _)| id.0).collect();
    assert_eq!(only, ["app-1"]);
}
