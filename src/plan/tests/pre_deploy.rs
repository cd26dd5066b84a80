//! The job before a new version of a service.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    plan::{
        Goal, Target, pre_deploy,
        status::{HOPELESS, status},
    },
    spec::{PreDeploy, Service},
};

use super::{Is, NOTHING, Scene, new_version};

fn migrate(service: &mut Service) {
    service.pre_deploy = Some(PreDeploy {
        command: vec!["migrate".to_owned()],
        image: None,
        environment: BTreeMap::new(),
        timeout: Duration::from_secs(60),
    });
}

/// Two replicas of an old version, and a new one that needs a job.
fn update() -> Scene {
    Scene::up(&[("web", 2)]).edit("web", migrate).edit("web", new_version)
}

fn first() -> Scene {
    Scene::of(&[("web", 2)]).edit("web", migrate).sandbox("web", Is::Up(60))
}

fn job() -> Target {
    Target::PreDeploy("web".parse().unwrap())
}

#[test]
fn the_job_comes_first_at_the_first_start_and_at_each_new_version() {
    assert_eq!(first().lines(), ["launch web pre-deploy job"]);
    assert_eq!(update().lines(), ["launch web pre-deploy job"]);
    assert_eq!(first().job("web", Is::Up(5)).lines(), NOTHING);
    assert_eq!(update().job("web", Is::Up(5)).lines(), NOTHING);
    assert_eq!(update().job("web", Is::Created).lines(), ["start web pre-deploy job"]);
}

#[test]
fn after_its_success_the_new_version_comes_and_the_job_goes() {
    let mut scene = update().job("web", Is::Exited(0, 5));
    assert_eq!(scene.lines(), NOTHING, "it has to be remembered first");
    scene.desired.done_before.extend(pre_deploy::succeeded(&scene.desired, &scene.observed));
    assert_eq!(scene.lines(), ["remove web pre-deploy job", "stop web-1"]);
    assert_eq!(pre_deploy::succeeded(&scene.desired, &scene.observed), []);
}

#[test]
fn a_version_that_has_replicas_needs_no_job() {
    assert_eq!(Scene::up(&[("web", 2)]).edit("web", migrate).lines(), NOTHING);
    // Back to an older version, of which one is left.
    let mut scene = update();
    scene.container("web-1").labels.generation =
        scene.desired.project.services[&"web".parse().unwrap()].generation();
    assert_eq!(scene.lines(), ["stop web-2"]);
}

#[test]
fn after_its_failure_the_old_version_goes_on_and_it_is_told_why() {
    let scene = update().job("web", Is::Exited(3, 5));
    assert_eq!(scene.lines(), NOTHING);
    let status = status(&scene.desired, &scene.observed, scene.now);
    let [error] = &status.errors[..] else { panic!("{:?}", status.errors) };
    assert_eq!((error.target.clone(), error.tries), (job(), HOPELESS));
    assert!(error.error.starts_with("it ended with exit code 3; no replica of the new"), "{}", error.error);
    // One of the old version that ends is started again.
    let ended = Scene::of(&[("web", 2)])
        .sandbox("web", Is::Up(60))
        .replica("web", 1, Is::Exited(1, 60))
        .replica("web", 2, Is::Up(60))
        .edit("web", migrate)
        .edit("web", new_version)
        .job("web", Is::Exited(3, 5))
        .later(Duration::from_secs(1));
    assert_eq!(ended.lines(), ["start web-1"]);
}

#[test]
fn what_is_asked_for_anew_is_run_anew() {
    let mut scene = update().job("web", Is::Exited(3, 5));
    let job = scene.container("web-before");
    let key = (job.id.clone(), job.started_at().unwrap());
    scene.desired.superseded.insert(key, None);
    assert_eq!(scene.lines(), ["remove web pre-deploy job"]);
    assert_eq!(status(&scene.desired, &scene.observed, scene.now).errors, []);
}

#[test]
fn a_job_that_takes_too_long_is_stopped_and_has_failed() {
    let scene = update().job("web", Is::Up(59));
    assert_eq!(scene.lines(), NOTHING);
    assert!(scene.plan().wake.is_some());
    let scene = scene.later(Duration::from_secs(1));
    assert_eq!(scene.lines(), ["stop web pre-deploy job"]);
    // Also if it then says that all is well.
    let mut scene = update().job("web", Is::Exited(0, 61));
    interrupt(&mut scene);
    assert_eq!(pre_deploy::succeeded(&scene.desired, &scene.observed), []);
    let errors = status(&scene.desired, &scene.observed, scene.now).errors;
    assert!(errors[0].error.starts_with("it took longer than 60s"), "{errors:?}");
}

fn interrupt(scene: &mut Scene) {
    let job = scene.container("web-before");
    let process = (job.id.clone(), job.started_at().unwrap());
    scene.desired.interrupted_jobs.extend([process]);
}

#[test]
fn a_job_that_was_told_to_end_is_run_again_when_it_is_wanted_again() {
    for code in [0, 143] {
        let mut scene = update().job("web", Is::Exited(code, 5));
        interrupt(&mut scene);
        assert_eq!(pre_deploy::succeeded(&scene.desired, &scene.observed), []);
        assert_eq!(status(&scene.desired, &scene.observed, scene.now).errors, []);
        assert_eq!(scene.lines(), ["remove web pre-deploy job"]);
    }
}

#[test]
fn the_job_of_another_version_makes_way() {
    let older = update().job("web", Is::Up(5)).edit("web", |service| service.container.tty = true);
    assert_eq!(older.lines(), ["stop web pre-deploy job"]);
    let older = update().job("web", Is::Exited(1, 5)).edit("web", |service| service.container.tty = true);
    assert_eq!(older.lines(), ["remove web pre-deploy job"]);
}

#[test]
fn nothing_is_run_for_a_service_that_shall_not_run() {
    let zero = |goal| first().goal("web", goal).lines();
    assert_eq!(zero(Goal::Run { replicas: 0 }), NOTHING);
    assert_eq!(first().job("web", Is::Up(5)).goal("web", Goal::Stop).lines(), ["stop web pre-deploy job"]);
}
