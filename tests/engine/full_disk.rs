//! The disk with sameport's own files is full.

use std::{fs, os::unix::fs::symlink};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::support::{
    disk::SmallDisk,
    project::{Project, web},
    wait::{self, check},
};

/// Kills a replica, and waits until another process has taken its place.
fn is_replaced(project: &Project, name: &str) {
    let container = format!("{}-{name}", project.name);
    let victim = project.docker.pid(&container);
    kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
    wait::until(&format!("{name} is replaced"), || {
        let state = project.docker.inspect(&container)["State"].take();
        check(state["Running"] == true && state["Pid"] != victim, state)
    });
    project.serves(2);
}

/// Waits until each of `state_not_saved` and `state_saved` was told so often; never more often.
fn told(project: &Project, not_saved: usize, saved: usize) {
    wait::until("it is told whether the state is saved", || {
        // On a slow machine it may show a part.
        let events = project.run(&["events", "--no-follow", "--format", "json"]);
        let count = |name: &str| events.matches(&format!(r#""event":"{name}""#)).count();
        let found = (count("state_not_saved"), count("state_saved"));
        assert!(found.0 <= not_saved && found.1 <= saved, "{events}");
        check(found == (not_saved, saved), events)
    });
}

#[test]
fn with_a_full_disk_the_supervisor_goes_on_and_saves_its_state_once_there_is_room() {
    let folder = tempfile::Builder::new().prefix("spf").tempdir_in("/tmp").unwrap();
    let disk = SmallDisk::at(folder.path(), "512k");
    let project = Project::web(2);
    symlink(folder.path(), project.path("sameport")).unwrap();
    let state = || fs::read_to_string(project.path(&format!("sameport/{}.json", project.name))).unwrap();
    project.run(&["up", "-d", "--wait"]);
    let before = state();
    disk.fill();
    is_replaced(&project, "web-1");

    // What would have to be remembered is refused.
    for refused in [&["scale", "web=3"][..], &["weight", "web-1=50"]] {
        let finished = project.try_run(refused);
        assert_eq!(finished.code, Some(1), "{refused:?}: {finished:#?}");
        for told in ["No space left on device", "nothing changed", &format!("{}.json", project.name)] {
            assert!(finished.stderr.contains(told), "{refused:?}: {told}: {finished:#?}");
        }
    }
    assert_eq!(project.replicas("web").len(), 2);

    // A changed file is applied.
    project.write(&web(2).replace("REPLICA:", "CHANGED: \"1\", REPLICA:"));
    project.run(&["up", "-d", "--wait"]);
    told(&project, 1, 0);
    is_replaced(&project, "web-2");
    assert_eq!(state(), before);
    told(&project, 1, 0);

    disk.free();
    told(&project, 1, 1);
    assert!(state().contains("CHANGED") && state() != before, "{}", state());
    project.run(&["scale", "web=3"]);
    project.serves(3);
    told(&project, 1, 1);
    project.run(&["down", "--purge"]);
    assert_eq!(project.leftovers(), Vec::<String>::new());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_supervisor_begins_on_a_full_disk() {
    let folder = tempfile::Builder::new().prefix("spf").tempdir_in("/tmp").unwrap();
    let disk = SmallDisk::at(folder.path(), "512k");
    let project = Project::web(2);
    symlink(folder.path(), project.path("sameport")).unwrap();
    project.run(&["up", "-d", "--wait"]);
    let before = project.processes();
    project.kill_supervisor();
    disk.fill();
    project.run(&["up", "-d", "--wait"]);
    assert_eq!(project.processes(), before);
    is_replaced(&project, "web-1");
    project.run(&["down"]);
    assert_eq!(project.leftovers(), Vec::<String>::new());
}
