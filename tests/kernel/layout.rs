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
    let id = |name: &str| match name.contains("link_") {
        true => None,
        false => MapInfo::from_pin(pod.pinned(name)).ok().map(|info| info.id()),
    };
    let mut found: Vec<_> = pod.all_pins().into_iter().map(|name| (name.clone(), id(&name))).collect();
    found.sort();
    found
}

#[test]
fn what_is_pinned_is_marked_with_its_layout() {
    let pod = pod(1);
    assert_eq!(fs::read_link(mark(&pod)).unwrap().to_str(), Some("2"));
    Pins::check(&pod.project).unwrap();
}

#[test]
fn pins_of_a_newer_release_are_refused_and_left_alone() {
    for version in ["3", "1000", "3-wide"] {
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
        set_mark(&pod, "2");
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
    let known = pod.pinned_of_pod("sp_known");
    fs::remove_file(&known).unwrap();
    MapData::from_pin(pod.pinned_of_pod("sp_active")).unwrap().pin(&known).unwrap();
    let before = pinned(&pod);
    for refused in [Pins::check(&pod.project).unwrap_err(), KernelSteering::start(&pod.project).unwrap_err()]
    {
        assert!(matches!(refused, KernelError::OtherMap { .. }), "{refused}");
        let said = refused.to_string();
        assert!(said.contains("sp_known") && said.contains("8192 entries"), "{said}");
    }
    assert_eq!(pinned(&pod), before);
    assert_eq!(answers(&pod, 20).keys().collect::<Vec<_>>(), ["1"], "it goes on");
}
