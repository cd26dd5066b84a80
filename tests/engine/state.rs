//! The state file can be damaged, or of another release, and nobody is locked out or restarted for it.

use std::{fs, path::PathBuf};

use super::{
    notes::Notes,
    support::project::{Finished, Project},
};

/// Where a project keeps its state.
fn file(project: &Project) -> PathBuf {
    project.path(&format!("sameport/{}.json", project.name))
}

fn bad(project: &Project) -> PathBuf {
    project.path(&format!("sameport/{}.json.bad", project.name))
}

fn succeeds(project: &Project, args: &[&str]) -> Finished {
    let finished = project.try_run(args);
    assert_eq!(finished.code, Some(0), "{args:?}: {finished:#?}");
    finished
}

/// Four ways to damage a valid file.
fn damages(valid: &str) -> [(&'static str, String); 4] {
    let half = valid[..valid.len() / 2].to_owned();
    [
        ("empty", String::new()),
        ("half written", half),
        ("zeros", "\0".repeat(valid.len())),
        ("something else", "{\"a\": 1}".to_owned()),
    ]
}

#[test]
fn a_damaged_file_is_put_aside_and_nobody_is_restarted_or_stopped() {
    let project = Project::web(3);
    project.run(&["up", "-d", "--wait"]);
    project.run(&["scale", "web=4"]);
    project.serves(4);
    let before = project.processes();
    let valid = fs::read_to_string(file(&project)).unwrap();
    for (how, damaged) in damages(&valid) {
        project.kill_supervisor();
        fs::write(file(&project), &damaged).unwrap();

        let looked = succeeds(&project, &["ps"]);
        assert!(looked.stderr.contains("is damaged"), "{how}: {looked:#?}");
        let preview = succeeds(&project, &["up", "-d", "--dry-run"]);
        assert!(preview.stdout.contains("nothing to do: converged"), "{how}: {preview:#?}");
        assert_eq!(fs::read_to_string(file(&project)).unwrap(), damaged, "{how}: a look leaves it");

        let up = succeeds(&project, &["up", "-d"]);
        assert_eq!(up.stderr.matches("was damaged").count(), 1, "{how}: {up:#?}");
        assert!(up.stderr.contains("scale web=4"), "{how}: {up:#?}");
        assert_eq!(fs::read_to_string(bad(&project)).unwrap(), damaged, "{how}");
        let events = succeeds(&project, &["events", "--no-follow"]);
        assert!(events.stdout.contains("was damaged"), "{how}: {events:#?}");
        let again = succeeds(&project, &["up", "-d"]);
        assert!(!again.stderr.contains("damaged"), "{how}: it is told once: {again:#?}");
        project.serves(4);
        assert_eq!(project.processes(), before, "{how}");
    }
    assert!(fs::read_to_string(file(&project)).unwrap().contains("\"version\": 1"));

    project.kill_supervisor();
    fs::write(file(&project), "{").unwrap();
    let down = succeeds(&project, &["down"]);
    assert!(down.stderr.contains("was damaged"), "{down:#?}");
    assert_eq!(project.leftovers(), Vec::<String>::new());
    assert!(!file(&project).exists());
}

#[test]
fn after_damage_neither_a_job_nor_a_hook_runs_a_second_time() {
    let notes = Notes::new();
    let project = Project::new(&notes.mounted_in(
        r#"
services:
  web:
    image: ${NGINX}
    ports: ["${PORT}:8080"]
    environment: { REPLICA: "{{.Slot}}" }
    volumes: OUT
    scale: 2
    post_start:
      - command: sh -c 'echo started >> /notes/log'
    x-sameport:
      pre_deploy: { command: sh -c 'echo migrated >> /notes/log' }
"#,
    ));
    project.run(&["up", "-d", "--wait"]);
    let ran = ["migrated", "started", "started"];
    assert_eq!(notes.lines(), ran);
    let before = project.processes();
    project.kill_supervisor();
    fs::write(file(&project), "").unwrap();
    // No `up` comes first, and what is asked for is done.
    let scaled = succeeds(&project, &["scale", "web=3"]);
    assert!(scaled.stderr.contains("was damaged"), "{scaled:#?}");
    succeeds(&project, &["up", "-d", "--wait"]);
    project.serves(3);
    assert_eq!(notes.lines(), [&ran[..], &["started"]].concat());
    assert!(before.iter().all(|process| project.processes().contains(process)), "{before:?}");
}

#[test]
fn a_file_of_a_newer_release_is_refused_and_left_as_it_is() {
    let project = Project::web(1);
    project.run(&["up", "-d", "--wait"]);
    project.kill_supervisor();
    let newer = r#"{"version": 2, "scale": "in another way"}"#;
    fs::write(file(&project), newer).unwrap();
    let before = project.processes();
    for args in [
        &["up", "-d"][..],
        &["up"],
        &["supervise"],
        &["scale", "web=2"],
        &["down"],
        &["ps"],
        &["rollout", "status", "web"],
        &["up", "-d", "--dry-run"],
    ] {
        let refused = project.try_run(args);
        assert_eq!(refused.code, Some(1), "{args:?}: {refused:#?}");
        for told in
            [&*file(&project).to_string_lossy(), "has version 2", "use the newer release", "move the file"]
        {
            assert!(refused.stderr.contains(told), "{args:?}: {told}: {refused:#?}");
        }
        assert_eq!(fs::read_to_string(file(&project)).unwrap(), newer, "{args:?}");
    }
    assert_eq!(project.processes(), before);
    // As it says.
    fs::remove_file(file(&project)).unwrap();
    project.run(&["down"]);
}

#[test]
fn down_works_though_the_state_cannot_be_read_and_everything_else_says_why_it_does_not() {
    let project = Project::web(1);
    project.run(&["up", "-d", "--wait"]);
    project.kill_supervisor();
    fs::remove_file(file(&project)).unwrap();
    fs::create_dir(file(&project)).unwrap();
    for args in [&["up", "-d"][..], &["scale", "web=2"], &["ps"]] {
        let failed = project.try_run(args);
        assert_eq!(failed.code, Some(1), "{args:?}: {failed:#?}");
        for told in ["Is a directory", "help:", "sameport down"] {
            assert!(failed.stderr.contains(told), "{args:?}: {told}: {failed:#?}");
        }
    }
    let down = succeeds(&project, &["down"]);
    assert!(down.stderr.contains("Is a directory"), "{down:#?}");
    assert_eq!(project.leftovers(), Vec::<String>::new());
}

#[test]
fn more_replicas_than_a_file_can_have_are_refused_also_where_the_state_file_holds_them() {
    let project = Project::web(1);
    project.run(&["up", "-d", "--wait"]);
    for args in [&["scale", "web=4294967295"][..], &["up", "-d", "--scale", "web=1001"]] {
        let refused = project.try_run(args);
        assert_eq!(refused.code, Some(2), "{refused:#?}");
        assert!(refused.stderr.contains("the maximum is 1000"), "{refused:#?}");
    }
    assert_eq!(project.replicas("web").len(), 1);
    project.kill_supervisor();
    // As releases wrote it that had no limit.
    let valid = fs::read_to_string(file(&project)).unwrap();
    let huge =
        valid.replace("\"scale\": {}", "\"scale\": {\"web\": {\"file\": 1, \"replicas\": 4294967295}}");
    assert_ne!(huge, valid);
    fs::write(file(&project), huge).unwrap();
    project.run(&["up", "-d", "--wait"]);
    assert_eq!(project.replicas("web").len(), 1);
    assert!(project.log().contains("more replicas than a service can have"), "{}", project.log());
    project.run(&["down"]);
}
