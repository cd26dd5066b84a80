//! Limits that the file moves.

use crate::{
    engine::EngineError,
    plan::{Action, Answer, status::status},
    spec::{Limits, Restart, RestartCondition, Service},
};

use super::{Is, NOTHING, Scene, replica};

fn memory(bytes: Option<u64>) -> impl FnOnce(&mut Service) {
    move |service| service.container.resources.memory = bytes
}

#[test]
fn another_limit_is_no_other_version_and_is_changed_in_place_everywhere_at_once() {
    let scene = Scene::up(&[("web", 2)]).edit("web", memory(Some(1 << 26)));
    assert_eq!(scene.lines(), ["update web-1", "update web-2"]);
    let Action::Update { changes, .. } = &scene.plan().actions[0] else { panic!("{:?}", scene.plan()) };
    assert_eq!(*changes, Limits { memory: Some(1 << 26), ..Limits::default() });
}

#[test]
fn a_limit_that_is_taken_away_takes_a_new_container() {
    let scene = Scene::of(&[("web", 2)])
        .edit("web", memory(Some(1 << 26)))
        .sandbox("web", Is::Up(60))
        .replica("web", 1, Is::Up(60))
        .replica("web", 2, Is::Up(60))
        .edit("web", memory(None));
    assert_eq!(scene.lines(), ["stop web-1"], "one at a time");
    let ended = Scene::of(&[("web", 1)])
        .edit("web", memory(Some(1 << 26)))
        .sandbox("web", Is::Up(60))
        .replica("web", 1, Is::Exited(1, 60))
        .edit("web", memory(None))
        .later(std::time::Duration::from_secs(1));
    assert_eq!(ended.lines(), ["remove web-1"]);
}

#[test]
fn what_the_engine_refuses_takes_a_new_container_and_what_it_ignores_is_left() {
    let answered = |answer| {
        let mut scene = Scene::up(&[("web", 1)]).edit("web", memory(Some(1 << 26)));
        let id = scene.container("web-1").id.clone();
        let changes = Limits { memory: Some(1 << 26), ..Limits::default() };
        let history = scene.observed.history.entry(replica("web", 1)).or_default();
        history.note_limits(&id, &changes, answer);
        let status = status(&scene.desired, &scene.observed, scene.now);
        (scene.lines(), status.converged)
    };
    assert_eq!(answered(Answer::Refused), (vec!["stop web-1".to_owned()], false));
    assert_eq!(answered(Answer::Accepted), (Vec::new(), true));
}

#[test]
fn what_waits_for_other_limits_is_not_as_wanted_yet() {
    let mut scene = Scene::up(&[("web", 1)]).edit("web", memory(Some(1 << 26)));
    let error = EngineError::Busy { message: "later".to_owned() };
    let now = scene.now;
    scene.observed.history.entry(replica("web", 1)).or_default().failed(&replica("web", 1), error, now);
    assert_eq!(scene.lines(), NOTHING, "it is tried again after a pause");
    assert!(!status(&scene.desired, &scene.observed, scene.now).converged);
}

#[test]
fn a_job_that_is_done_is_not_run_again_for_another_limit() {
    let scene = Scene::of(&[("web", 1)])
        .restart("web", Restart { condition: RestartCondition::OnFailure, ..Restart::default() })
        .sandbox("web", Is::Up(60))
        .replica("web", 1, Is::Exited(0, 60))
        .edit("web", memory(Some(1 << 26)));
    assert_eq!(scene.lines(), NOTHING);
}
