//! What is pinned says of which layout it is.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use aya::maps::{MapData, MapInfo};
use sameport::kernel::{KernelError, Pins, steering::KernelSteering};

use super::{
    pod::Pod,
    server::{PORT, answers, http},
};

fn pod(replicas: u32) -> Pod {
    let mut pod = Pod::new();
    for slot in 1..=replicas {
        pod.start(slot, &mut http());
    }
    pod.listening(replicas as usize, PORT);
    pod
}

fn mark(pod: &Pod) -> PathBuf {
    pod.pinned("layout")
}

fn set_mark(pod: &Pod, version: &str) {
    fs::remove_file(mark(pod)).unwrap();
    symlink(version, mark(pod)).unwrap();
}

/// What is pinned, each with the id of its map; of links their names only.
fn pinned(pod: &Pod) -> Vec<(String, Option<u32>)> {
    let id = |name: &str| match name.starts_with("link_") {
        true => None,
        false => MapInfo::from_pin(pod.pinned(name)).ok().map(|info| info.id()),
    };
    let mut found: Vec<_> = pod.pins().into_iter().map(|name| (name.clone(), id(&name))).collect();
    found.sort();
    found
}

#[test]
fn what_is_pinned_is_marked_with_its_layout() {
    let pod = pod(1);
    assert_eq!(fs::read_link(mark(&pod)).unwrap().to_str(), Some("1"));
    Pins::check(&pod.project).unwrap();
}

#[test]
fn pins_of_before_there_were_marks_are_adopted_and_marked() {
    let mut pod = pod(2);
    pod.weighed(2, 0);
    pod.steering = None;
    fs::remove_file(mark(&pod)).unwrap();
    let before = pinned(&pod);
    Pins::check(&pod.project).unwrap();
    assert_eq!(answers(&pod, 20).keys().collect::<Vec<_>>(), ["1"]);
    pod.succeed();
    pod.listening(2, PORT);
    assert_eq!(answers(&pod, 20).keys().collect::<Vec<_>>(), ["1"]);
    assert_eq!(fs::read_link(mark(&pod)).unwrap().to_str(), Some("1"));
    let mut after = pinned(&pod);
    after.retain(|(name, _)| name != "layout");
    assert_eq!(after, before, "the maps are the same ones");
}

#[test]
fn pins_of_a_newer_release_are_refused_and_left_alone() {
    for version in ["2", "1000", "2-wide"] {
        let mut pod = pod(1);
        pod.steering = None;
        set_mark(&pod, version);
        let before = pinned(&pod);
        let tried = [
            Pins::check(&pod.project),
            KernelSteering::start(&pod.project).map(drop),
            Pins::clear(&pod.project),
        ];
        let (after, answered) = (pinned(&pod), answers(&pod, 20));
        // Else nothing could be removed, should the test fail.
        set_mark(&pod, "1");
        for refused in tried.map(Result::unwrap_err) {
            assert!(matches!(refused, KernelError::NewerLayout { .. }), "{refused}");
            let said = refused.to_string();
            assert!(said.contains("newer release") && said.contains(version), "{said}");
            assert!(refused.help().is_some(), "{said}");
        }
        assert_eq!(after, before);
        assert_eq!(answered.keys().collect::<Vec<_>>(), ["1"], "it goes on");
    }
}

#[test]
fn a_map_that_is_not_as_the_layout_says_is_refused() {
    let mut pod = pod(1);
    pod.steering = None;
    let turns = pod.pinned("sameport_turns");
    fs::remove_file(&turns).unwrap();
    MapData::from_pin(pod.pinned("sameport_own")).unwrap().pin(&turns).unwrap();
    let before = pinned(&pod);
    for refused in [Pins::check(&pod.project).unwrap_err(), KernelSteering::start(&pod.project).unwrap_err()]
    {
        assert!(matches!(refused, KernelError::OtherMap { .. }), "{refused}");
        let said = refused.to_string();
        assert!(said.contains("sameport_turns") && said.contains("64 entries"), "{said}");
    }
    assert_eq!(pinned(&pod), before);
    assert_eq!(answers(&pod, 20).keys().collect::<Vec<_>>(), ["1"], "it goes on");
}
