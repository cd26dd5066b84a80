//! This release takes over what an older one runs: no request fails, and nothing is restarted.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sameport::{api::schema::ReplicaState, kernel::capability, spec::Slot};

use super::{
    older::{Older, Origin, is_unsupervised},
    support::{load::Load, project::Project, wait},
};

/// Runs `up -d` under load, and looks at all that must not have changed.
fn upgrade(older: &Older) {
    let project = &older.project;
    let before = project.processes();
    assert_eq!(before.len(), 4, "a sandbox and three replicas");
    let load = Load::start(project.outside(), 100);
    std::thread::sleep(std::time::Duration::from_millis(500));
    project.run(&["up", "-d", "--wait"]);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let report = load.finish();
    assert!(report.failures.is_empty(), "{report}");
    assert!(report.answered() > 100, "{report}");
    assert_eq!(report.answers.keys().collect::<Vec<_>>(), ["1", "2"], "weights are kept");
    assert_eq!(project.processes(), before, "nothing was restarted");
    is_supervised_by_this_release(project);
    stands_as_before(project);
}

fn is_supervised_by_this_release(project: &Project) {
    let pid = project.supervisor().unwrap();
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert_eq!(program, Path::new(env!("CARGO_BIN_EXE_sameport")));
    let layout = capability::mounted("bpf").unwrap().join("sameport").join(&project.name).join("layout");
    assert_eq!(fs::read_link(layout).unwrap(), Path::new("2"));
}

fn stands_as_before(project: &Project) {
    let status = project.status();
    assert!(status.converged && status.orphans.is_empty(), "{status:#?}");
    assert_eq!(status.replicas.len(), 3, "{status:#?}");
    let drained = Slot::new(3).unwrap();
    for replica in &status.replicas {
        assert_eq!(replica.state, ReplicaState::Running, "{replica:#?}");
        assert!(replica.up_to_date, "{replica:#?}");
        let weight = replica.traffic.as_ref().map(|traffic| traffic.weight);
        assert_eq!(weight, Some(if replica.slot == drained.number() { 0 } else { 100 }), "{replica:#?}");
    }
    // It is in its hands now.
    project.run(&["weight", "web-3=100"]);
    project.serves(3);
    let text = project.run(&["rollout", "history", "web"]);
    assert!(text.contains("up"), "{text}");
}

fn goes(project: &Project) {
    project.run(&["down", "-v"]);
    assert_eq!(project.leftovers(), Vec::<String>::new());
    assert!(!sameport::kernel::Pins::exist(&project.name.parse().unwrap()));
}

#[test]
fn what_an_older_release_left_is_adopted() {
    for origin in Origin::all() {
        println!("{origin:?}");
        let older = Older::killed(origin);
        // The kernel lets go of a killed process's lock a moment after the process is gone.
        wait::until("it has no supervisor", || {
            wait::check(is_unsupervised(&older.project), "its lock is held")
        });
        upgrade(&older);
        goes(&older.project);
    }
}

#[test]
fn a_supervisor_of_an_older_release_is_replaced() {
    for origin in Origin::all() {
        println!("{origin:?}");
        let older = Older::supervised(origin);
        assert!(!is_unsupervised(&older.project));
        let project = &older.project;
        let before = project.supervisor();

        // Who does not replace it says what does, and changes nothing.
        let refused = project.try_run(&["scale", "web=5"]);
        assert_eq!(refused.code, Some(1), "{refused:#?}");
        assert!(refused.stderr.contains("older release"), "{refused:#?}");
        assert!(refused.stderr.contains("`sameport up -d` replaces that supervisor"), "{refused:#?}");
        let seen = project.try_run(&["ps"]);
        assert_eq!(seen.code, Some(0), "{seen:#?}");
        assert!(seen.stdout.contains("web-3") && seen.stderr.contains("older release"), "{seen:#?}");
        assert!(!seen.stderr.contains("no supervisor is running"), "{seen:#?}");
        assert_eq!(project.supervisor(), before);

        upgrade(&older);
        goes(&older.project);
    }
}

#[test]
fn down_removes_what_an_older_release_supervises() {
    for origin in Origin::all() {
        println!("{origin:?}");
        let older = Older::supervised(origin);
        goes(&older.project);
        assert_eq!(older.project.supervisor(), None);
    }
}

/// Pins of a newer release: no supervisor begins, and `sharing: auto` does not do without the kernel.
#[test]
fn what_a_newer_release_supervises_is_left_alone() {
    let older = Older::killed(Origin::Fixtures);
    let project = &older.project;
    let layout = capability::mounted("bpf").unwrap().join("sameport").join(&project.name).join("layout");
    let newer = Newer::mark(layout);
    let before = project.processes();
    for args in [&["up", "-d"][..], &["up"], &["down", "-v"], &["scale", "web=2"], &["supervise"]] {
        let refused = project.try_run(args);
        assert_eq!(refused.code, Some(1), "{args:?}: {refused:#?}");
        assert!(refused.stderr.contains("has layout 99"), "{args:?}: {refused:#?}");
        assert!(refused.stderr.contains("newer release"), "{args:?}: {refused:#?}");
    }
    assert_eq!(project.processes(), before);
    assert!(is_unsupervised(project));
    assert_eq!(super::support::load::send(project.loopback(), 40).failures, []);
    drop(newer);
    goes(project);
}

/// The mark of a newer release; while it is there, nothing of ours removes what is pinned.
struct Newer(PathBuf);

impl Newer {
    fn mark(layout: PathBuf) -> Self {
        std::os::unix::fs::symlink("99", &layout).unwrap();
        Self(layout)
    }
}

impl Drop for Newer {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}
