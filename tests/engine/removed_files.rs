//! Whoever cleans up /run removes what a supervisor is reached and known by, and it is put back.

use std::{
    fs,
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
