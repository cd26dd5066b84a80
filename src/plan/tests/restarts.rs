use std::time::Duration;

use super::{Is, NOTHING, Scene, new_version, replica};
use crate::{
    engine::{ContainerId, ContainerState},
    plan::{
        Doubt, StoppedOutside, backoff,
        status::{self, ReplicaState},
    },
    spec::{Restart, RestartCondition},
};

fn rule(condition: RestartCondition) -> Restart {
    Restart { condition, ..Restart::default() }
}

/// A pod with one replica that has just ended.
fn ended(rule: Restart, is: Is) -> Scene {
    Scene::of(&[("web", 1)]).restart("web", rule).sandbox("web", Is::Up(60)).replica("web", 1, is)
}

#[test]
fn the_rule_says_who_starts_again() {
    let (never, on_failure, always) =
        (RestartCondition::Never, RestartCondition::OnFailure, RestartCondition::Always);
    for (condition, code, again) in [
        (never, 0, false),
        (never, 1, false),
        (on_failure, 0, false),
        (on_failure, 1, true),
        (on_failure, 137, true),
        (always, 0, true),
        (always, 1, true),
    ] {
        let scene = ended(rule(condition), Is::Exited(code, 60)).later(backoff::LONGEST);
        let wanted = if again { vec!["start web-1"] } else { vec![] };
        assert_eq!(scene.lines(), wanted, "{condition:?} after exit code {code}");
    }
}

impl Scene {
    /// Somebody has stopped the process of a replica that has ended.
    fn stopped_outside(mut self, name: &str) -> Self {
        let at = self.now;
        let container = self.container(name);
        let (id, started_at) = (container.id.clone(), container.started_at().unwrap());
        self.desired.stopped_outside.insert(id, StoppedOutside { started_at, at });
        self
    }
}

#[test]
fn who_is_stopped_from_outside_stays_down_whatever_the_rule_says_until_it_is_asked_for() {
    let mut scene = ended(rule(RestartCondition::Always), Is::Exited(0, 60))
        .stopped_outside("web-1")
        .later(backoff::LONGEST);
    assert_eq!(scene.lines(), NOTHING);
    let shown = status::status(&scene.desired, &scene.observed, scene.now);
    assert!(matches!(shown.replicas[0].state, ReplicaState::StoppedOutside { .. }));
    assert!(shown.converged);
    // Its sandbox is made anew: it can only run in another container by now, and shall not run.
    let mut moved = scene.clone().sandbox("web", Is::Up(1));
    moved.container("web-1").joined = Some(ContainerId("another".to_owned()));
    assert_eq!(moved.lines(), NOTHING);
    let web = scene.container("web-1").clone();
    scene.desired.superseded.insert((web.id.clone(), web.started_at().unwrap()), None);
    assert_eq!(scene.lines(), ["start web-1"]);
    scene.desired.superseded.clear();
    // Another process than the one that was stopped.
    let ended_since = scene.replica("web", 1, Is::Exited(1, 30)).later(backoff::LONGEST);
    assert_eq!(ended_since.lines(), ["start web-1"]);
}

#[test]
fn while_an_end_may_be_meant_nobody_starts_again() {
    let mut scene = ended(Restart::default(), Is::Exited(143, 1));
    let container = scene.container("web-1").clone();
    let patience = Duration::from_secs(3);
    let doubt = Doubt { started_at: container.started_at().unwrap(), patience };
    scene.observed.doubts.insert(container.id.clone(), doubt);
    let in_time = scene.clone().later(Duration::from_millis(1500));
    assert_eq!(in_time.lines(), NOTHING);
    assert_eq!(in_time.plan().wake, Some(container.since + patience));
    let mut after = scene.later(patience);
    after.observed.settle_doubts(after.now);
    assert!(after.observed.doubts.is_empty());
    assert_eq!(after.lines(), ["start web-1"]);
}

#[test]
fn out_of_memory_is_a_failure_whatever_the_code() {
    let mut scene = ended(rule(RestartCondition::OnFailure), Is::Exited(0, 60)).later(backoff::LONGEST);
    if let crate::engine::ContainerState::Exited(exit) = &mut scene.container("web-1").state {
        exit.out_of_memory = true;
    }
    assert_eq!(scene.lines(), ["start web-1"]);
}

#[test]
fn the_first_pause_is_a_tenth_of_a_second_and_each_next_one_longer() {
    let mut scene = ended(Restart::default(), Is::Exited(1, 1));
    let mut last = Duration::ZERO;
    for exits in 1..=5 {
        assert_eq!(scene.lines(), NOTHING);
        let wake = scene.plan().wake.unwrap();
        let pause = Duration::try_from(wake.duration_since(scene.now)).unwrap();
        assert!(pause > last, "pause {exits} is {pause:?}, after {last:?}");
        if exits == 1 {
            assert_eq!(pause, backoff::FIRST);
        }
        last = pause;
        scene = scene.later(pause);
        assert_eq!(scene.lines(), ["start web-1"]);
        // It ends again, a second after its next start.
        scene = scene.later(Duration::from_secs(1)).replica("web", 1, Is::Exited(1, 1));
    }
}

#[test]
fn a_new_version_does_not_pay_for_the_old_one() {
    let rule = Restart { max_attempts: Some(2), ..Restart::default() };
    let mut scene = ended(rule, Is::Exited(1, 1));
    for _ in 0..4 {
        scene = scene.later(Duration::from_secs(1)).replica("web", 1, Is::Exited(1, 1));
    }
    assert_eq!(scene.plan().wake, None, "it is given up");
    let scene = scene.edit("web", new_version).later(Duration::from_secs(1));
    let scene = scene.replica("web", 1, Is::Exited(1, 1));
    assert_eq!(scene.plan().wake, Some(scene.now + backoff::FIRST));
}

#[test]
fn a_replica_that_stayed_up_starts_counting_anew() {
    let mut scene = ended(Restart::default(), Is::Exited(1, 1));
    for _ in 0..4 {
        scene = scene.later(Duration::from_secs(1)).replica("web", 1, Is::Exited(1, 1));
    }
    assert_eq!(scene.observed.history[&replica("web", 1)].exits, 5);
    let scene = scene.later(Duration::from_secs(60)).replica("web", 1, Is::Exited(1, 11));
    assert_eq!(scene.observed.history[&replica("web", 1)].exits, 1);
    assert_eq!(scene.plan().wake, Some(scene.now + backoff::FIRST));
}

#[test]
fn the_window_of_the_file_decides_what_staying_up_means() {
    let window = Restart { window: Some(Duration::from_secs(30)), ..Restart::default() };
    let scene = ended(window, Is::Exited(1, 20)).later(Duration::from_secs(60));
    let scene = scene.replica("web", 1, Is::Exited(1, 20));
    assert_eq!(scene.observed.history[&replica("web", 1)].exits, 2);
}

#[test]
fn a_fixed_delay_stays_the_same() {
    let delay = Restart { delay: Some(Duration::from_secs(5)), ..Restart::default() };
    let mut scene = ended(delay, Is::Exited(1, 1));
    for _ in 0..3 {
        assert_eq!(scene.plan().wake, Some(scene.now + Duration::from_secs(5)));
        scene = scene.later(Duration::from_secs(6)).replica("web", 1, Is::Exited(1, 1));
    }
}

#[test]
fn after_the_last_attempt_it_is_given_up_and_shown_as_failed() {
    let twice =
        Restart { condition: RestartCondition::OnFailure, max_attempts: Some(2), ..Restart::default() };
    let mut scene = ended(twice, Is::Exited(3, 1));
    for _ in 0..2 {
        assert!(scene.plan().wake.is_some());
        scene = scene.later(Duration::from_secs(2)).replica("web", 1, Is::Exited(3, 1));
    }
    assert_eq!(scene.plan(), super::Plan::default());
    let status = crate::plan::status::status(&scene.desired, &scene.observed, scene.now);
    assert!(!status.converged);
    assert!(
        matches!(&status.replicas[0].state, ReplicaState::Failed { exit } if exit.code == 3),
        "{:?}",
        status.replicas[0].state
    );
}

#[test]
fn a_replica_that_we_stopped_is_no_crash() {
    let mut scene = Scene::up(&[("web", 1)]);
    let container = scene.container("web-1").clone();
    let history = scene.observed.history.entry(replica("web", 1)).or_default();
    history.ignore_exit(&container.id, container.started_at().unwrap());
    let scene = scene.replica("web", 1, Is::Exited(137, 60));
    assert_eq!(scene.observed.history[&replica("web", 1)].exits, 0);
    assert_eq!(scene.lines(), ["start web-1"]);
}

#[test]
fn a_replica_whose_port_was_another_users_starts_again_at_once_and_only_its_seventh_end_counts() {
    let mut scene = Scene::up(&[("web", 1)]);
    for time in 1..=8 {
        scene = scene.later(Duration::from_secs(2)).replica("web", 1, Is::Exited(1, 1));
        let container = scene.container("web-1").clone();
        let ContainerState::Exited(exit) = &container.state else { panic!("{container:?}") };
        let history = scene.observed.history.entry(replica("web", 1)).or_default();
        let is_excused = history.excuse(&container.id, exit.started_at);
        assert_eq!(
            (is_excused, history.exits),
            (time <= 6, u32::from(time > 6) * (time.max(6) - 6)),
            "{time}"
        );
        assert_eq!(scene.lines() == ["start web-1"], is_excused, "{time}");
    }
    // Once it has stayed up, the next rollout begins anew.
    let scene = scene.later(Duration::from_secs(60)).replica("web", 1, Is::Exited(1, 30));
    let mut history = scene.observed.history[&replica("web", 1)].clone();
    assert!(history.excuse(&scene.observed.containers.keys().next().unwrap().clone(), scene.now));
}

#[test]
fn an_end_that_is_seen_twice_counts_once() {
    let scene = ended(Restart::default(), Is::Exited(1, 1)).replica("web", 1, Is::Exited(1, 1));
    assert_eq!(scene.observed.history[&replica("web", 1)].exits, 1);
}

#[test]
fn what_was_stopped_by_the_users_word_starts_again_after_what_it_depends_on() {
    let scene = |in_order: bool| {
        let mut scene = Scene::of(&[("db", 1), ("web", 1)])
            .depends("web", "db", crate::spec::DependencyCondition::Started)
            .sandbox("db", Is::Up(60))
            .sandbox("web", Is::Up(60))
            .replica("db", 1, Is::Exited(0, 60))
            .replica("web", 1, Is::Exited(0, 60))
            .later(Duration::from_secs(1));
        for id in ["db-1", "web-1"].into_iter().filter(|_| in_order) {
            let key = (scene.container(id).id.clone(), scene.container(id).started_at().unwrap());
            scene.desired.in_order.insert(key);
        }
        scene
    };
    assert_eq!(scene(true).lines(), ["start db-1"]);
    // What ended by itself is back as soon as it can be.
    assert_eq!(scene(false).lines(), ["start db-1", "start web-1"]);
}
