//! State files of all shapes are read, and mean what they meant.

use sameport::{
    plan::{
        HookPhase,
        versions::{Versions, Why},
    },
    spec::{ServiceName, Share, Slot},
    supervisor::State,
};

use super::fixtures::{state, states};

fn name(service: &str) -> ServiceName {
    service.parse().unwrap()
}

fn web(state: &State) -> &Versions {
    &state.versions[&name("web")]
}

fn causes(state: &State) -> Vec<(u32, &str)> {
    web(state).revisions.iter().map(|revision| (revision.number, revision.cause.as_str())).collect()
}

#[test]
fn every_one_of_them_is_read() {
    let states = states();
    assert!(states.len() >= 18, "{:?}", states.keys());
    for (name, state) in states {
        assert!(!state.versions.is_empty(), "{name}: it remembers something");
        for revision in state.versions.values().flat_map(|versions| &versions.revisions) {
            assert_eq!(revision.by, "ann", "{name}");
            assert!(revision.service.container.image_id.is_some(), "{name}");
        }
    }
}

#[test]
fn scale_weights_and_what_is_stopped_are_kept() {
    let state = state("stopped");
    let scale = state.scale[&name("idle")];
    assert_eq!((scale.file, scale.replicas), (1, 2));
    assert_eq!(state.stopped.iter().collect::<Vec<_>>(), [&name("idle")]);
    let slot = |number| Slot::new(number).unwrap();
    assert_eq!(state.weights[&name("web")], [(slot(2), 25), (slot(3), 0)].into());
}

#[test]
fn jobs_and_commands_are_not_run_again() {
    let done = state("job-done");
    let first = &web(&done).revisions[0].service;
    assert_eq!(done.done_before[&name("web")], first.generation());
    assert!(done.post_start.values().all(|progress| progress.phase == HookPhase::Done));
    assert_eq!(state("job-interrupted").interrupted_jobs.len(), 1);
    let stages: Vec<_> =
        state("post-start").post_start.into_values().map(|progress| progress.phase).collect();
    assert_eq!(stages, [HookPhase::Done, HookPhase::Begun]);
    assert_eq!(state("restart-after").restart_after.iter().collect::<Vec<_>>(), [&name("web")]);
}

#[test]
fn a_rollout_is_where_it_was() {
    let done = state("rollout-done");
    assert_eq!(web(&done).stable, 2);
    assert_eq!(web(&done).last.as_ref().unwrap().to, 2);
    assert!(web(&done).underway.is_none());

    let underway = state("rollout-underway");
    let underway = web(&underway).underway.as_ref().unwrap();
    assert_eq!((underway.from, underway.to, underway.back.is_some()), (2, 3, false));
    assert!(underway.paused.is_none() && underway.steps.is_none() && underway.counted.is_some());

    let paused = state("rollout-paused");
    assert_eq!(web(&paused).underway.as_ref().unwrap().paused, Some(Why::Requested));
}

#[test]
fn a_version_that_failed_is_not_tried_again() {
    let state = state("rolled-back");
    let versions = web(&state);
    let pin = versions.pin.as_ref().unwrap();
    assert_eq!((pin.revision, versions.stable), (4, 4));
    let Why::Failed(failure) = &pin.why else { panic!("{pin:?}") };
    assert_eq!(failure.reason.to_string(), "it ended: exit code 3");
    assert_eq!(pin.file, versions.revisions[4].service.declared(), "it is the file's");
    assert_eq!(versions.last.as_ref().unwrap().failed.as_ref().unwrap().0, 5);
}

#[test]
fn steps_go_on_from_where_they_were() {
    let shares = |name: &str| {
        let state = state(name);
        let steps = web(&state).underway.clone().unwrap().steps.unwrap();
        let shares: Vec<_> = steps.shares.iter().map(Share::to_string).collect();
        (shares, steps.every.map(|time| time.as_millis()), steps.whole, steps.by_file)
    };
    let text = |shares: &[&str]| shares.iter().map(|share| (*share).to_owned()).collect::<Vec<_>>();
    assert_eq!(shares("rollout-canary"), (text(&["10 %"]), None, false, false));
    assert_eq!(shares("rollout-steps"), (text(&["10 %", "50 %"]), Some(3_600_000), false, false));
    assert_eq!(shares("rollout-blue-green"), (text(&["0 %", "100 %"]), Some(200), true, false));
    assert_eq!(shares("canary-of-file"), (text(&["10 %"]), None, false, true));
}

#[test]
fn a_version_that_was_asked_for_stays() {
    let undone = state("undone");
    let pin = web(&undone).pin.as_ref().unwrap();
    assert_eq!((pin.revision, &pin.why), (4, &Why::Requested));
    assert_eq!(pin.file, web(&undone).revisions[2].service.declared());
    assert_eq!(causes(&undone), [(1, "up"), (2, "up"), (3, "up"), (4, "undo")]);

    let pinned = state("pinned-image");
    let pin = web(&pinned).pin.as_ref().unwrap();
    let wanted = web(&pinned).revisions.iter().find(|revision| revision.number == pin.revision).unwrap();
    assert_eq!(wanted.service.container.image.0, "localhost/sameport-upgrade:2");
    assert_eq!(web(&pinned).stable, pin.revision);
    assert_eq!(causes(&pinned).len(), 9, "the history is kept");
}
