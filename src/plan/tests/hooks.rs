//! Commands after the start of a replica.

use crate::{
    engine::{ContainerId, EngineError},
    plan::{
        History, HookPhase, PostStart, Target,
        status::{ReplicaState, status},
    },
    spec::{DependencyCondition, Hook, Service},
};

use super::{Is, NOTHING, Scene};

fn warm_up(service: &mut Service) {
    service.hooks.post_start = vec![Hook {
        command: vec!["warm-up".to_owned()],
        user: None,
        privileged: false,
        working_dir: None,
        environment: std::collections::BTreeMap::new(),
    }];
}

/// One replica with a command after its start, up for a minute.
fn scene() -> Scene {
    Scene::of(&[("web", 1)]).edit("web", warm_up).sandbox("web", Is::Up(60)).replica("web", 1, Is::Up(60))
}

fn id() -> ContainerId {
    ContainerId("web-1".to_owned())
}

impl Scene {
    fn hooks_are(mut self, phase: HookPhase) -> Self {
        let started_at = self.container("web-1").started_at().unwrap();
        self.observed.post_start.insert(id(), PostStart { started_at, phase });
        self
    }

    fn state_of_web(&self) -> ReplicaState {
        status(&self.desired, &self.observed, self.now).replicas[0].state.clone()
    }
}

#[test]
fn a_process_is_prepared_once() {
    assert_eq!(scene().lines(), ["run post_start of web-1"]);
    assert_eq!(scene().state_of_web(), ReplicaState::Preparing);
    let running = scene().hooks_are(HookPhase::Begun).busy(Target::Hooks(id()));
    assert_eq!(running.lines(), NOTHING);
    let done = scene().hooks_are(HookPhase::Done);
    assert_eq!(done.lines(), NOTHING);
    assert_eq!(done.state_of_web(), ReplicaState::Running);
}

#[test]
fn another_process_of_the_same_container_is_prepared_again() {
    let mut scene = scene().hooks_are(HookPhase::Done);
    let earlier = scene.now - jiff::SignedDuration::from_secs(600);
    scene.observed.post_start.get_mut(&id()).unwrap().started_at = earlier;
    assert_eq!(scene.lines(), ["run post_start of web-1"]);
}

#[test]
fn one_that_was_left_half_prepared_is_stopped() {
    assert_eq!(scene().hooks_are(HookPhase::Begun).lines(), ["stop web-1"]);
}

#[test]
fn after_a_failure_the_next_start_waits_for_its_turn() {
    let mut scene = Scene::of(&[("web", 1)])
        .edit("web", warm_up)
        .sandbox("web", Is::Up(60))
        .replica("web", 1, Is::Exited(143, 5))
        .hooks_are(HookPhase::Begun);
    let started_at = scene.container("web-1").started_at().unwrap();
    let web = super::replica("web", 1);
    scene.observed.history.entry(web).or_default().ignore_exit(&id(), started_at);
    let mut failed = History::default();
    let error = EngineError::CommandFailed {
        what: "post_start `warm-up`".to_owned(),
        how: "exit code 3".to_owned(),
        output: vec!["no cache".to_owned()],
    };
    failed.failed(&Target::Hooks(id()), error, scene.now);
    scene.observed.history.insert(Target::Hooks(id()), failed);
    assert_eq!(scene.lines(), NOTHING);
    assert!(scene.plan().wake.is_some());
    let ReplicaState::Blocked { error, tries: 1, .. } = scene.state_of_web() else {
        panic!("{:?}", scene.state_of_web());
    };
    assert_eq!(error, "post_start `warm-up`: exit code 3\n    no cache");
    let later = scene.later(std::time::Duration::from_millis(100));
    assert_eq!(later.lines(), ["start web-1"]);
}

#[test]
fn who_depends_on_it_waits_until_it_is_prepared() {
    let waiting = |phase: Option<HookPhase>| {
        let scene = Scene::of(&[("app", 1), ("web", 1)])
            .edit("web", warm_up)
            .depends("app", "web", DependencyCondition::Started)
            .sandbox("app", Is::Up(60))
            .sandbox("web", Is::Up(60))
            .replica("web", 1, Is::Up(60));
        match phase {
            Some(phase) => scene.hooks_are(phase).lines(),
            None => scene.lines(),
        }
    };
    assert_eq!(waiting(None), ["run post_start of web-1"]);
    assert_eq!(waiting(Some(HookPhase::Done)), ["launch app-1"]);
}
