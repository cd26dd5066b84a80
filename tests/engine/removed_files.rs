//! Whoever cleans up /run removes what a supervisor is reached and known by, and it is put back.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use super::support::{
    project::Project,
    wait::{self, check, slowly},
};

#[test]
fn a_control_socket_and_a_lock_that_are_removed_are_back_within_a_second() {
    let project = Project::web(1);
    project.run(&["up", "-d", "--wait"]);
    let supervisor = project.supervisor();
    let before = project.processes();
    let file = |kind: &str| project.path(&format!("sameport/{}.{kind}", project.name));
    for removed in [&["sock"][..], &["lock"], &["sock", "lock"]] {
        removed.iter().for_each(|kind| fs::remove_file(file(kind)).unwrap());
        let begin = Instant::now();
        wait::until("they are back", || {
            check(removed.iter().all(|kind| file(kind).exists()), format!("{removed:?}"))
        });
        assert!(begin.elapsed() < slowly(Duration::from_secs(1)), "{removed:?}: {:?}", begin.elapsed());
        project.run(&["scale", "web=2"]);
        project.run(&["up", "-d", "--wait", "--scale", "web=1"]);
        assert_eq!(project.supervisor(), supervisor, "{removed:?}: it is the same one");
        let second = project.try_run(&["supervise"]);
        assert_eq!(second.code, Some(1), "{removed:?}: {second:#?}");
        assert!(second.stderr.contains("already supervised"), "{removed:?}: {second:#?}");
    }
    assert!(before.iter().all(|process| project.processes().contains(process)), "{before:?}");
    fs::remove_file(file("sock")).unwrap();
    std::thread::sleep(slowly(Duration::from_secs(1)));
    project.run(&["down"]);
    assert_eq!(project.leftovers(), Vec::<String>::new());
    assert!(!file("sock").exists());
}

#[test]
fn a_state_file_that_is_removed_is_back_within_a_second_and_what_it_holds_is_not_forgotten() {
    let project = Project::web(1);
    project.run(&["up", "-d", "--wait"]);
    project.run(&["scale", "web=2"]);
    let before = project.processes();
    let file = |kind: &str| project.path(&format!("sameport/{}.{kind}", project.name));
    let removals: [(&str, &dyn Fn()); 2] = [
        ("the file", &|| fs::remove_file(file("json")).unwrap()),
        ("its folder", &|| fs::remove_dir_all(project.path("sameport")).unwrap()),
    ];
    for (what, remove) in removals {
        remove();
        let begin = Instant::now();
        wait::until("it is back", || check(file("json").exists(), what));
        assert!(begin.elapsed() < slowly(Duration::from_secs(1)), "{what}: {:?}", begin.elapsed());
        let mode = fs::metadata(file("json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{what}");
        wait::until("the lock is back", || check(file("lock").exists(), what));
        project.kill_supervisor();
        project.run(&["up", "-d", "--wait"]);
        assert_eq!(project.processes(), before, "{what}");
    }
    fs::remove_file(file("log")).unwrap();
    project.run(&["scale", "web=1"]);
    assert!(project.log().contains("web-2 removed"), "{}", project.log());
    project.run(&["down"]);
    assert!(!file("json").exists(), "what is gone for good stays away");
}
