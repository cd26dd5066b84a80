//! After `down` nothing of a project is left but its log, and after `down --purge` nothing at all, whatever was missing or broken before.

use std::{fs, path::PathBuf, process::Command};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sameport::kernel::Pins;

use super::support::{
    project::{Finished, Project},
    wait::{self, check},
};

/// How a project is broken, or met as it is, before `down`.
struct Case {
    what: &'static str,
    breaking: fn(&Project),
    /// What `down` leaves, as the ends of names of files.
    kept: &'static [&'static str],
}

const LOG: &[&str] = &["log"];

fn folder(project: &Project) -> PathBuf {
    project.path("sameport")
}

fn file(project: &Project, end: &str) -> PathBuf {
    folder(project).join(format!("{}.{end}", project.name))
}

/// Ends of the names of all files that sameport has of a project.
fn files(project: &Project) -> Vec<String> {
    let names = fs::read_dir(folder(project)).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut ends: Vec<_> = names.map(|name| name.replace(&format!("{}.", project.name), "")).collect();
    ends.sort();
    ends
}

fn remove(project: &Project, ends: &[&str]) {
    ends.iter().for_each(|end| fs::remove_file(file(project, end)).unwrap());
}

/// A `sameport` command that begins with a soft limit of so many open files, as a login has one.
fn with_few_files(project: &Project, files: u32, args: &[&str]) -> Finished {
    let inside = project.command(args);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -Sn {files}; exec timeout --foreground 120 \"$@\""), "sh"]);
    command.arg(inside.get_program()).args(inside.get_args()).current_dir(inside.get_current_dir().unwrap());
    for (key, value) in inside.get_envs() {
        command.env(key, value.unwrap());
    }
    command.output().unwrap().into()
}

fn up(project: &Project) -> Pid {
    project.run(&["up", "-d", "--wait"]);
    project.supervisor().unwrap()
}

fn is_gone(case: &str, project: &Project, supervisor: Option<Pid>) {
    assert_eq!(project.leftovers(), Vec::<String>::new(), "{case}");
    assert!(!Pins::exist(&project.name.parse().unwrap()), "{case}: something stays in the kernel");
    if let Some(supervisor) = supervisor {
        wait::until(&format!("{case}: the supervisor has ended"), || {
            check(kill(supervisor, None).is_err(), supervisor)
        });
    }
}

/// One project after the other goes through up, its breaking, and down.
fn down_after(cases: &[Case], down: fn(&Project) -> Finished) {
    let project = Project::web(1);
    let compose = fs::read_to_string(project.path("compose.yaml")).unwrap();
    for Case { what, breaking, kept } in cases {
        let supervisor = up(&project);
        // As a unit has them, also one that is gone by now.
        fs::write(file(&project, "env"), "SECRET=1\n").unwrap();
        breaking(&project);
        let finished = down(&project);
        assert_eq!(finished.code, Some(0), "{what}: {finished:#?}");
        is_gone(what, &project, Some(supervisor));
        assert_eq!(files(&project), *kept, "{what}");
        project.write(&compose);
        let purged = project.try_run(&["down", "--purge"]);
        assert_eq!(purged.code, Some(0), "{what}: {purged:#?}");
        is_gone(what, &project, None);
        assert_eq!(files(&project), Vec::<String>::new(), "{what}");
    }
}

fn ended(project: &Project, signal: Signal) {
    let pid = project.supervisor().unwrap();
    kill(pid, signal).unwrap();
    wait::until("the supervisor has ended", || check(kill(pid, None).is_err(), pid));
}

#[test]
fn down_leaves_nothing_but_the_log_whatever_is_missing() {
    down_after(
        &[
            Case { what: "all is well", breaking: |_| (), kept: LOG },
            Case {
                what: "the file is gone",
                breaking: |project| fs::remove_file(project.path("compose.yaml")).unwrap(),
                kept: LOG,
            },
            Case {
                what: "the state file is gone",
                breaking: |project| remove(project, &["json"]),
                kept: LOG,
            },
            Case { what: "the socket is gone", breaking: |project| remove(project, &["sock"]), kept: LOG },
            // It is put back with its next line.
            Case { what: "the log is gone", breaking: |project| remove(project, &["log"]), kept: LOG },
            Case {
                what: "a state was not written whole",
                breaking: |project| fs::write(file(project, "json.new"), "{").unwrap(),
                kept: LOG,
            },
            Case {
                what: "the folder is put back",
                breaking: |project| {
                    fs::remove_dir_all(folder(project)).unwrap();
                    wait::until("socket and lock are put back", || {
                        let is_back = project.socket().exists() && project.supervisor().is_some();
                        check(is_back, ())
                            .and_then(|()| fs::write(file(project, "env"), "").map_err(|e| e.to_string()))
                    });
                },
                kept: LOG,
            },
        ],
        |project| project.try_run(&["-p", &project.name, "down"]),
    );
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn down_leaves_nothing_but_the_log_though_no_supervisor_runs() {
    down_after(
        &[
            Case { what: "it has ended", breaking: |project| ended(project, Signal::SIGTERM), kept: LOG },
            Case { what: "it was killed", breaking: |project| ended(project, Signal::SIGKILL), kept: LOG },
            Case {
                what: "it was killed, and all of it is gone",
                breaking: |project| {
                    ended(project, Signal::SIGKILL);
                    fs::remove_dir_all(folder(project)).unwrap();
                },
                kept: &[],
            },
            Case {
                what: "it was killed, and socket and lock are gone",
                breaking: |project| {
                    ended(project, Signal::SIGKILL);
                    remove(project, &["sock", "lock"]);
                },
                kept: LOG,
            },
            Case {
                what: "it was killed, and the state file is damaged",
                breaking: |project| {
                    ended(project, Signal::SIGKILL);
                    fs::write(file(project, "json"), "{").unwrap();
                },
                kept: &["json.bad", "log"],
            },
            Case {
                what: "it was killed, and a folder is in the place of the state file",
                breaking: |project| {
                    ended(project, Signal::SIGKILL);
                    remove(project, &["json"]);
                    fs::create_dir(file(project, "json")).unwrap();
                },
                kept: &["json", "log"],
            },
        ],
        |project| project.try_run(&["-p", &project.name, "down"]),
    );
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn down_leaves_nothing_but_the_log_with_few_open_files() {
    down_after(
        &[
            Case { what: "it runs", breaking: |_| (), kept: LOG },
            Case { what: "it was killed", breaking: |project| ended(project, Signal::SIGKILL), kept: LOG },
            Case {
                what: "it runs, and may open no more",
                breaking: |project| {
                    let pid = project.supervisor().unwrap().to_string();
                    let limited = Command::new("prlimit").args(["--pid", &pid, "--nofile=24:24"]).status();
                    assert!(limited.unwrap().success());
                },
                kept: LOG,
            },
        ],
        |project| with_few_files(project, 32, &["down"]),
    );
}

#[test]
fn down_with_purge_leaves_nothing_at_all_and_says_so_before() {
    let project = Project::web(1);
    let supervisor = up(&project);
    fs::write(file(&project, "log.1"), "of long ago\n").unwrap();
    let preview = project.try_run(&["down", "--purge", "--dry-run"]);
    assert_eq!(preview.code, Some(0), "{preview:#?}");
    for end in ["log", "log.1", "json"] {
        let line = format!("would remove {}\n", file(&project, end).display());
        assert!(preview.stderr.contains(&line), "{line}: {preview:#?}");
    }
    project.run(&["down", "--purge"]);
    is_gone("purge", &project, Some(supervisor));
    assert_eq!(files(&project), Vec::<String>::new());
    // And once more, of what was never there.
    project.run(&["down", "--purge"]);
    assert_eq!(files(&project), Vec::<String>::new());
}
