//! `x-sameport.before`: a job before each new version.

use sameport::api::schema::{ReplicaState, TargetKind};

use super::{
    notes::Notes,
    support::{
        project::Project,
        wait::{self, check},
    },
};

/// A service of two replicas of that version, before which such a line of a shell is run.
fn file(notes: &Notes, version: &str, line: &str, timeout: &str) -> String {
    notes.mounted_in(&format!(
        r#"
services:
  db:
    image: ${{NGINX}}
    environment: {{ REPLICA: db }}
    healthcheck: {{ test: ["CMD", "wget", "-qO-", "http://127.0.0.1:8080/"], interval: 300ms, timeout: 5s, retries: 60 }}
  web:
    image: ${{NGINX}}
    ports: ["${{PORT}}:8080"]
    depends_on: {{ db: {{ condition: service_healthy }} }}
    environment: {{ REPLICA: "{version}-{{{{.Slot}}}}", VERSION: "{version}" }}
    # Its own takes no command.
    entrypoint: ["sh"]
    command: ["-c", "exec /start"]
    volumes: OUT
    scale: 2
    x-sameport:
      pre_deploy:
        command: ["-c", "{line}"]
        environment: {{ ADDED: "more" }}
        timeout: {timeout}
"#
    ))
}

fn job_of(project: &Project) -> Vec<String> {
    project.docker.lines(&["ps", "-aq", "--filter", &format!("name=^{}-web-before$", project.name)])
}

#[test]
fn the_job_is_run_once_for_each_version_before_any_replica_of_it() {
    let notes = Notes::new();
    let line = "wget -qO /dev/null http://db:8080/ && echo $$VERSION $$ADDED >> /notes/log; \
                sleep 2; echo done >> /notes/log";
    let project = Project::new(&file(&notes, "one", line, "1m"));
    project.run(&["up", "-d", "--wait"]);
    let first = ["one more", "done"];
    assert_eq!(notes.lines(), first, "it reached `db`, and was done before");
    assert_eq!(project.serves(2).answers.keys().collect::<Vec<_>>(), ["one-1", "one-2"]);
    wait::until("its container is removed", || check(job_of(&project).is_empty(), job_of(&project)));

    // It is remembered, whoever supervises, and whatever is scaled.
    project.kill_supervisor();
    project.run(&["up", "-d", "--wait", "--scale", "web=3"]);
    project.run(&["up", "-d", "--wait", "--scale", "web=0"]);
    project.run(&["up", "-d", "--wait", "--scale", "web=2"]);
    project.serves(2);
    assert_eq!(notes.lines(), first);

    project.write(&file(&notes, "two", line, "1m"));
    project.run(&["up", "-d", "--wait"]);
    assert_eq!(notes.lines(), [first, ["two more", "done"]].concat());
    assert_eq!(project.serves(2).answers.keys().collect::<Vec<_>>(), ["two-1", "two-2"]);
}

#[test]
fn after_a_failure_the_old_version_goes_on_until_it_is_asked_for_anew() {
    let notes = Notes::new();
    let project = Project::new(&file(&notes, "one", "echo one >> /notes/log", "1m"));
    project.run(&["up", "-d", "--wait"]);
    let before = project.processes();
    project.write(&file(&notes, "two", "echo two >> /notes/log; echo no such table; exit 4", "1m"));
    let up = project.try_run(&["up", "-d"]);
    assert_eq!(up.code, Some(1), "{up:#?}");
    let told = "the job before it failed: it ended with exit code 4; no replica of the new version is started, and those of an older one go \
                on\n    no such table";
    assert!(up.stderr.contains(told), "{}", up.stderr);
    let shown = project.try_run(&["ps"]);
    assert!(shown.stderr.contains(told), "{shown:#?}");
    let events = project.run(&["events", "--no-follow"]);
    assert!(
        events.contains(
            "web pre-deploy job failed: exit code 4; no replica of the new version is started\n    no such table"
        ),
        "{events}"
    );
    assert_eq!(project.processes(), before);
    assert_eq!(project.serves(2).answers.keys().collect::<Vec<_>>(), ["one-1", "one-2"]);
    assert_eq!(notes.lines(), ["one", "two"], "it is not run again by itself");

    // Asked for anew, and still wrong.
    assert_eq!(project.try_run(&["up", "-d"]).code, Some(1));
    assert_eq!(notes.lines(), ["one", "two", "two"]);
    assert_eq!(project.processes(), before);

    project.write(&file(&notes, "two", "echo two, mended >> /notes/log", "1m"));
    project.run(&["up", "-d", "--wait"]);
    assert_eq!(notes.lines(), ["one", "two", "two", "two, mended"]);
    assert_eq!(project.serves(2).answers.keys().collect::<Vec<_>>(), ["two-1", "two-2"]);
    assert_eq!(project.status().errors, []);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn a_job_that_takes_too_long_has_failed_and_the_first_start_waits_for_it() {
    let notes = Notes::new();
    let project = Project::new(&file(&notes, "one", "echo one >> /notes/log; exec sleep 1000", "2s"));
    let up = project.try_run(&["up", "-d"]);
    assert_eq!(up.code, Some(1), "{up:#?}");
    assert!(up.stderr.contains("web pre-deploy job: it took longer than 2s"), "{}", up.stderr);
    let status = project.status();
    let target = &status.errors[0].target;
    assert_eq!((target.kind, target.name.as_str()), (TargetKind::PreDeployJob, "web"));
    let web = status.replicas.iter().filter(|replica| replica.service.as_str() == "web");
    assert!(
        web.clone().count() == 2 && web.clone().all(|r| r.state == ReplicaState::WaitingForJob),
        "{status:#?}"
    );
}

#[test]
fn a_job_goes_on_while_nobody_supervises() {
    let notes = Notes::new();
    let line = "echo begin >> /notes/log; sleep 4; echo end >> /notes/log";
    let project = Project::new(&file(&notes, "one", line, "1m"));
    let mut first = project.command(&["up", "-d"]).spawn().unwrap();
    notes.are(&["begin"]);
    project.kill_supervisor();
    first.wait().unwrap();
    project.run(&["up", "-d", "--wait"]);
    assert_eq!(notes.lines(), ["begin", "end"]);
    project.serves(2);
    project.run(&["down"]);
    assert_eq!(project.leftovers(), [""; 0]);
}
