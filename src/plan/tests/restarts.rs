use std::time::Duration;

use super::{Is, NOTHING, Scene, new_version, replica};
use crate::{
    engine::ContainerState,
    plan::{backoff, status::ReplicaState},
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
    history.forgive(&container.id, container.started_at().unwrap());
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
