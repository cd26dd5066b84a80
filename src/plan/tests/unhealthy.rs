use std::time::Duration;

use jiff::ToSpan;

use super::{Is, NOTHING, Scene, replica};
use crate::{
    engine::{ContainerId, ContainerState, Exit, Health},
    plan::{
        Doing, Goal, Plan, UnhealthyReason, UnhealthyReplacement, UnhealthyReplica, WEIGHT, backoff,
        status::{ReplicaState, status},
    },
    spec::{Restart, RestartCondition, Unhealthy},
};

impl Scene {
    /// A replica's process has not worked for so many seconds.
    fn ill(mut self, slot: u32, reason: UnhealthyReason, seconds: i64) -> Self {
        let since = self.now - seconds.seconds();
        let (service, id) = ("web", ContainerId(format!("web-{slot}")));
        if reason == UnhealthyReason::Unhealthy {
            let age = 60;
            self = self.replica(service, slot, Is::UpAnd(Health::Unhealthy, age));
        }
        let started_at = self.container(&id.0).started_at().unwrap();
        let unhealthy = UnhealthyReplica {
            reason,
            started_at,
            since,
            replace_at: Some(since + 2.seconds()),
            well_for: Duration::from_secs(50),
            said: "no database".to_owned(),
        };
        self.observed.unhealthy.insert(id, unhealthy);
        self
    }

    /// The process of a replica was ended because it did not work, after it had worked for so long; it ran for a minute.
    fn replaced(mut self, slot: u32, well_for: u64) -> Self {
        let id = ContainerId(format!("web-{slot}"));
        let started_at = self.container(&id.0).started_at().unwrap();
        let why = UnhealthyReplacement { why: "unhealthy".to_owned(), at: self.now };
        let history = self.observed.history.entry(replica("web", slot)).or_default();
        history.replace(&id, started_at, Duration::from_secs(well_for), why);
        self.observed.unhealthy.remove(&id);
        let (finished_at, now) = (self.now, self.now);
        let container = self.container(&id.0);
        container.state = ContainerState::Exited(Exit {
            code: 0,
            out_of_memory: false,
            error: None,
            started_at,
            finished_at,
        });
        container.since = now;
        let container = container.clone();
        let rule = self.desired.project.services[&"web".parse().unwrap()].restart;
        let history = self.observed.history.entry(replica("web", slot)).or_default();
        assert!(!history.note(&container, &rule), "its end is no surprise");
        self
    }
}

const STUCK: UnhealthyReason = UnhealthyReason::Stuck(Doing::Stopped);

#[test]
fn whoever_stays_ill_is_replaced() {
    for (case, reason, seconds, lines) in [
        ("a moment ago", UnhealthyReason::Unhealthy, 1, vec![]),
        ("for a while", UnhealthyReason::Unhealthy, 2, vec!["stop web-2"]),
        ("it did not come up", UnhealthyReason::NotUp, 2, vec!["stop web-2"]),
        ("it does not live", UnhealthyReason::NotAlive, 2, vec!["stop web-2"]),
        ("it hangs", STUCK, 2, vec!["stop web-2"]),
        ("it has hung for a moment", STUCK, 1, vec![]),
    ] {
        let scene = Scene::up(&[("web", 3)]).ill(2, reason, seconds);
        assert_eq!(scene.lines(), lines, "{case}");
        if lines.is_empty() {
            assert_eq!(scene.plan().wake, Some(scene.now + 1.seconds()), "{case}");
        }
    }
}

#[test]
fn an_unhealthy_process_that_has_ended_is_not_replaced_again() {
    let scene = Scene::up(&[("web", 1)]).ill(1, STUCK, 60).replica("web", 1, Is::Up(5));
    assert_eq!(scene.lines(), NOTHING);
}

#[test]
fn who_is_kept_or_never_starts_again_is_not_replaced() {
    let ill = || Scene::up(&[("web", 2)]).ill(1, UnhealthyReason::Unhealthy, 60);
    assert_eq!(ill().edit("web", |service| service.unhealthy = Unhealthy::Keep).lines(), NOTHING);
    let never = Restart { condition: RestartCondition::Never, ..Restart::default() };
    assert_eq!(ill().restart("web", never).lines(), NOTHING);
    let mut only_out = ill();
    only_out.observed.unhealthy.values_mut().for_each(|unhealthy| unhealthy.replace_at = None);
    assert_eq!(only_out.lines(), NOTHING);
}

#[test]
fn one_at_a_time_is_replaced_whoever_is_ill_for_the_longest_first() {
    let all = || {
        let scene = Scene::up(&[("web", 3)]);
        scene.ill(1, UnhealthyReason::Unhealthy, 10).ill(2, UnhealthyReason::NotAlive, 30).ill(3, STUCK, 20)
    };
    assert_eq!(all().lines(), ["stop web-2"]);
    let stopping = all().busy(replica("web", 2));
    let started_at = stopping.observed.containers[&ContainerId("web-2".to_owned())].started_at().unwrap();
    let mut stopping = stopping;
    let why = UnhealthyReplacement { why: String::new(), at: stopping.now };
    let history = stopping.observed.history.entry(replica("web", 2)).or_default();
    history.replace(&ContainerId("web-2".to_owned()), started_at, Duration::ZERO, why);
    assert_eq!(stopping.lines(), NOTHING, "it is being stopped");
    let ended = all().replaced(2, 60);
    assert_eq!(ended.lines(), NOTHING, "it waits to be started again");
    let ended = ended.later(backoff::FIRST);
    assert_eq!(ended.lines(), ["start web-2"]);
    let coming = |seconds| all().replaced(2, 60).replica("web", 2, Is::UpAnd(Health::Starting, seconds));
    assert_eq!(coming(5).lines(), NOTHING, "it comes up");
    assert_eq!(coming(30).lines(), ["stop web-3"], "it had its time");
    let up = all().replaced(2, 60).replica("web", 2, Is::UpAnd(Health::Healthy, 1));
    assert_eq!(up.lines(), ["stop web-3"], "it works again");
}

#[test]
fn a_healthy_replica_is_never_touched_and_other_services_are_of_no_concern() {
    let scene = Scene::up(&[("db", 1), ("web", 2)]).ill(1, UnhealthyReason::Unhealthy, 60).ill(2, STUCK, 50);
    assert_eq!(scene.lines(), ["stop web-1"]);
    let plan = scene.plan();
    assert_eq!(plan.replaced.keys().map(|id| id.0.as_str()).collect::<Vec<_>>(), ["web-1"]);
}

#[test]
fn while_one_is_ill_no_other_is_taken_down_on_purpose() {
    // The ill one makes way at once: nobody misses it.
    let scene = Scene::up(&[("web", 2)]).ill(1, STUCK, 1).edit("web", super::new_version);
    assert_eq!(scene.lines(), ["stop web-1"]);
    let scene = Scene::up(&[("web", 2)]).restarted().replica("web", 1, Is::Up(30)).ill(1, STUCK, 1);
    assert_eq!(scene.lines(), NOTHING);
}

#[test]
fn each_replacement_in_a_row_waits_longer_unless_it_had_worked_meanwhile() {
    let mut scene = Scene::up(&[("web", 2)]);
    let mut last = Duration::ZERO;
    for replacements in 1..=4 {
        scene =
            scene.ill(1, UnhealthyReason::Unhealthy, 5).replaced(1, if replacements == 1 { 60 } else { 3 });
        assert_eq!(scene.lines(), NOTHING);
        let pause = Duration::try_from(scene.plan().wake.unwrap().duration_since(scene.now)).unwrap();
        assert!(pause > last, "pause {replacements} is {pause:?}, after {last:?}");
        last = pause;
        scene = scene.later(pause);
        assert_eq!(scene.lines(), ["start web-1"]);
        scene = scene.later(Duration::from_secs(70));
    }
    let scene = scene.ill(1, UnhealthyReason::Unhealthy, 5).replaced(1, 11);
    assert_eq!(scene.plan().wake, Some(scene.now + backoff::FIRST));
}

#[test]
fn the_end_of_one_that_was_replaced_is_a_failure_to_the_restart_rule() {
    let rule =
        |max_attempts| Restart { condition: RestartCondition::OnFailure, max_attempts, ..Restart::default() };
    let ended = |rule| {
        let scene = Scene::up(&[("web", 1)]).restart("web", rule).ill(1, UnhealthyReason::Unhealthy, 5);
        scene.replaced(1, 60).later(Duration::from_secs(40))
    };
    assert_eq!(ended(rule(None)).lines(), ["start web-1"], "it ended with exit code 0");
    assert_eq!(ended(rule(Some(0))).plan(), Plan::default(), "and is given up like any other");
}

#[test]
fn the_words_tell_what_is_wrong_and_why_it_was_replaced() {
    let of = |scene: &Scene| status(&scene.desired, &scene.observed, scene.now).replicas[0].clone();
    let stuck = of(&Scene::up(&[("web", 2)]).ill(1, STUCK, 1));
    assert_eq!(stuck.state, ReplicaState::Stuck);
    assert_eq!(stuck.unhealthy.as_deref(), Some("stopped by a signal for 1 s: no database"));
    let unhealthy = of(&Scene::up(&[("web", 2)]).ill(1, UnhealthyReason::Unhealthy, 10));
    assert_eq!(unhealthy.state, ReplicaState::Unhealthy);
    assert_eq!(unhealthy.unhealthy.as_deref(), Some("unhealthy for 10 s: no database"));
    let replaced = || Scene::up(&[("web", 2)]).ill(1, UnhealthyReason::Unhealthy, 10).replaced(1, 60);
    assert_eq!(of(&replaced()).replaced.unwrap().why, "unhealthy");
    assert!(of(&replaced().replica("web", 1, Is::Up(1))).replaced.is_some());
    assert_eq!(of(&replaced().replica("web", 1, Is::Up(10))).replaced, None, "it has stayed up since");
    assert!(!status(&replaced().desired, &replaced().observed, replaced().now).converged);
}

#[test]
fn who_hangs_gets_nothing_new_and_is_not_waited_for() {
    let scene = Scene::steered(2).ill(2, STUCK, 1);
    assert_eq!((scene.weights(), scene.lines()), (vec![WEIGHT, 0], vec![]));
    // It has connections, which it cannot finish.
    let scene = Scene::steered(2).ill(2, STUCK, 5).shows(2, 0, Some(3)).out(2, 4);
    assert_eq!((scene.weights(), scene.lines()), (vec![WEIGHT, 0], vec!["stop web-2".to_owned()]));
    let unhealthy = |seconds| {
        Scene::steered(2).ill(2, UnhealthyReason::Unhealthy, 9).shows(2, 0, Some(3)).out(2, seconds)
    };
    assert_eq!(unhealthy(4).lines(), NOTHING, "it has a short time to finish");
    assert_eq!(unhealthy(5).lines(), ["stop web-2"]);
    assert_eq!(unhealthy(1).goal("web", Goal::Stop).shows(2, 0, Some(0)).weights(), [0, 0]);
}

#[test]
fn a_slow_one_is_replaced_only_while_somebody_else_accepts_and_a_stopped_one_always() {
    const SLOW: UnhealthyReason = UnhealthyReason::Stuck(Doing::Nothing);
    const BUSY: UnhealthyReason = UnhealthyReason::Stuck(Doing::Work);
    let scene = |others: UnhealthyReason| Scene::up(&[("web", 3)]).ill(1, others, 30).ill(2, others, 20);
    assert_eq!(scene(SLOW).lines(), ["stop web-1"], "the third one accepts");
    for slow in [SLOW, BUSY] {
        let all = scene(slow).ill(3, slow, 10);
        assert_eq!(all.lines(), NOTHING, "nobody else accepts");
        let coming = scene(slow).replica("web", 3, Is::UpAnd(Health::Starting, 60));
        assert_eq!(coming.lines(), NOTHING, "nobody else is ready");
    }
    assert_eq!(scene(STUCK).ill(3, STUCK, 10).lines(), ["stop web-1"], "it serves nobody");
    let mixed = Scene::up(&[("web", 2)]).ill(1, SLOW, 30).ill(2, STUCK, 20);
    assert_eq!(mixed.lines(), ["stop web-2"], "the other one waits for it");
}

impl Scene {
    /// All replicas of `web` fail their health check, and have been well for so long before.
    fn all_unhealthy(self, replicas: u32, well_for: u64) -> Self {
        (1..=replicas).fold(self, |scene, slot| {
            let mut scene = scene.ill(slot, UnhealthyReason::Unhealthy, 60);
            let id = ContainerId(format!("web-{slot}"));
            scene.observed.unhealthy.get_mut(&id).unwrap().well_for = Duration::from_secs(well_for);
            scene
        })
    }
}

#[test]
fn a_check_that_no_replica_has_ever_passed_keeps_nobody_from_being_served() {
    let never = || Scene::steered(2).all_unhealthy(2, 0);
    let scene = never();
    assert_eq!((scene.weights(), scene.lines()), (vec![WEIGHT, WEIGHT], vec![]));
    assert_eq!(scene.plan().let_through.into_values().collect::<Vec<_>>(), ["no database"]);
    let status = status(&scene.desired, &scene.observed, scene.now);
    assert!(!status.converged);
    assert_eq!(status.replicas[0].state, ReplicaState::Unhealthy);
    let error = &status.errors[0];
    assert!(error.error.contains("all replicas of web fail their health check (no database)"), "{error:?}");
    assert_eq!(error.tries, crate::plan::status::HOPELESS);
    for (case, scene) in [
        ("one passes", Scene::steered(2).ill(1, UnhealthyReason::Unhealthy, 60)),
        ("they have passed", Scene::steered(2).all_unhealthy(2, 1)),
        ("one has passed", never().ill(2, UnhealthyReason::Unhealthy, 60)),
        ("it does not live", never().ill(2, UnhealthyReason::NotAlive, 60)),
        ("another version served", never().edit("web", super::new_version).roll_out("web")),
    ] {
        assert_eq!(scene.plan().let_through.len(), 0, "{case}");
        assert!(scene.weights().contains(&0), "{case}");
    }
}
