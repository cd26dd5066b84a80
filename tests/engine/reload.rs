//! A changed file is taken without a command, and an invalid one changes nothing and is reported.

use std::fs;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use super::support::{
    project::{Project, web},
    wait::{self, check},
};

/// With a number in line 8 that is none.
const INVALID: &str = r#"
services:
  web:
    image: ${NGINX}
    ports: ["${PORT}:8080"]
    deploy: { replicas: 5 }
    stop_grace_period: 3s
    healthcheck: { retries: many }
"#;
/// Where the mistake of [`INVALID`] is.
const PLACE: &str = "compose.yaml:8:29";

fn replicas(project: &Project, replicas: usize) {
    wait::until(&format!("{replicas} replicas are up"), || {
        let status = project.status();
        check(status.converged && status.replicas.len() == replicas, status)
    });
}

/// Puts a file in the place of the project's, as editors do.
fn replace(project: &Project, compose: &str) {
    let new = project.path("compose.yaml.new");
    fs::write(&new, compose).unwrap();
    fs::rename(new, project.path("compose.yaml")).unwrap();
}

/// The events that tell of a rejected file.
fn rejected(project: &Project) -> Vec<Value> {
    let told = project.run(&["events", "--no-follow", "--format", "json"]);
    let events = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["event"] == "rejected").collect()
}

/// Waits until so many mistakes were told, and checks that the last one was told everywhere with its place.
fn is_reported(project: &Project, times: usize) {
    let events = wait::until("the mistake is told", || {
        let events = rejected(project);
        if events.len() == times { Ok(events) } else { Err(format!("{events:#?}")) }
    });
    let mistake = &events.last().unwrap()["diagnostics"][0];
    assert_eq!((&mistake["line"], &mistake["column"]), (&8.into(), &29.into()), "{mistake}");
    assert!(mistake["file"].as_str().unwrap().ends_with("/compose.yaml"), "{mistake}");
    let told = project.run(&["events", "--no-follow"]);
    assert!(told.contains(PLACE), "{told}");
    assert!(told.contains("nothing changed"), "{told}");
}

fn is_logged(project: &Project) {
    let log = project.log();
    let line = log.lines().rev().find(|line| line.contains("Compose file rejected")).unwrap();
    assert!(line.contains("line=8") && line.contains("column=29") && line.contains("compose.yaml"), "{line}");
}

#[test]
fn the_supervisor_in_the_background_takes_a_changed_file_and_leaves_an_invalid_one() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--watch", "--wait"]);
    let two = project.processes();
    project.write(&web(3));
    replicas(&project, 3);
    replace(&project, INVALID);
    is_reported(&project, 1);
    is_logged(&project);
    let three = project.processes();
    assert_eq!(three.len(), two.len() + 1);
    assert!(two.iter().all(|process| three.contains(process)), "{two:?} {three:?}");
    replace(&project, &web(4));
    replicas(&project, 4);
    assert_eq!(rejected(&project).len(), 1);
    // A file that says the same in other words changes nothing.
    let four = project.processes();
    project.write(&format!("# The shop\n{}", web(4)));
    wait::until("it is read", || {
        let log = project.log();
        check(log.matches("Compose file applied").count() == 3, log)
    });
    assert_eq!(project.processes(), four);
}

#[test]
fn so_does_one_in_the_foreground() {
    let project = Project::web(2);
    let up = project.start(&["up", "--watch"]);
    wait::until("there is a supervisor", || check(project.supervisor().is_some(), up.printed()));
    replicas(&project, 2);
    replace(&project, &web(3));
    replicas(&project, 3);
    replace(&project, INVALID);
    is_reported(&project, 1);
    let printed = up.printed();
    assert_eq!(printed.matches(PLACE).count(), 1, "{printed}");
    assert!(printed.contains("nothing changed"), "{printed}");
    project.write(&web(1));
    replicas(&project, 1);
    assert!(up.printed().contains("Compose file applied"), "{}", up.printed());
}

#[test]
fn so_does_one_of_systemd_and_files_of_variables_count() {
    let project = Project::new(&web(2).replace("replicas: 2", "replicas: '${COUNT:-2}'"));
    let supervise = project.start(&["supervise", "--watch"]);
    wait::until("there is a supervisor", || check(project.supervisor().is_some(), supervise.printed()));
    replicas(&project, 2);
    // It was not there before.
    fs::write(project.path(".env"), "COUNT=3\n").unwrap();
    replicas(&project, 3);
    fs::write(project.path(".env"), "COUNT=many\n").unwrap();
    wait::until("the mistake is told", || {
        let events = rejected(&project);
        check(events.len() == 1, events)
    });
    fs::remove_file(project.path(".env")).unwrap();
    replicas(&project, 2);
}

#[test]
fn a_hangup_of_the_background_reports_an_invalid_file_too() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    let before = project.processes();
    project.write(INVALID);
    let hang_up = || kill(project.supervisor().unwrap(), Signal::SIGHUP).unwrap();
    hang_up();
    is_reported(&project, 1);
    is_logged(&project);
    assert_eq!(project.processes(), before);
    hang_up();
    is_reported(&project, 2);
    project.write(&web(3));
    hang_up();
    replicas(&project, 3);
}

#[test]
fn a_supervisor_that_runs_already_watches_when_it_is_asked_to() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    let supervisor = project.supervisor();
    project.run(&["up", "-d", "--watch"]);
    assert_eq!(project.supervisor(), supervisor);
    project.write(&web(3));
    replicas(&project, 3);
    // Once more is as good.
    project.run(&["up", "-d", "--watch"]);
    replace(&project, &web(2));
    replicas(&project, 2);
}

#[test]
fn a_supervisor_that_reads_another_file_is_not_asked_to_watch_it() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    let pid = project.supervisor().unwrap();
    let other = project.path("other.yaml");
    fs::write(&other, web(3)).unwrap();
    let refused = project.try_run(&["-f", "other.yaml", "up", "-d", "--watch"]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    for words in ["compose.yaml, not with", "other.yaml", &format!("`kill {pid}`")] {
        assert!(refused.stderr.contains(words), "{words}: {refused:#?}");
    }
    // Nor one whose environment makes something else of it.
    let variables = web(2).replace("replicas: 2", "replicas: '${COUNT:-2}'");
    project.write(&variables);
    let refused = project.command(&["up", "-d", "--watch"]).env("COUNT", "4").output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("other variables"), "{told}");
    assert_eq!(project.status().replicas.len(), 2);
    // What it says can be done.
    let before = project.processes();
    kill(pid, Signal::SIGTERM).unwrap();
    wait::until("it has ended", || check(project.supervisor().is_none(), pid));
    assert_eq!(project.processes(), before);
    project.run(&["-f", "other.yaml", "up", "-d", "--watch"]);
    fs::write(&other, web(4)).unwrap();
    replicas(&project, 4);
}

#[test]
fn the_project_of_another_name_is_not_taken() {
    let project = Project::web(2);
    let up = |args: &[&str]| {
        let mut command = project.command(args);
        command.env_remove("COMPOSE_PROJECT_NAME");
        command
    };
    let named = |name: &str, replicas| format!("name: {name}\n{}", web(replicas));
    project.write(&named(&project.name, 2));
    let done = up(&["up", "-d", "--watch"]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    project.write(&named("another", 3));
    wait::until("it is told", || {
        let told = project.run(&["events", "--no-follow"]);
        check(told.contains("the project another now"), told)
    });
    project.write(&named(&project.name, 1));
    replicas(&project, 1);
    assert!(
        project.docker.lines(&["ps", "-aq", "--filter", "label=dev.sameport.project=another"]).is_empty()
    );
}

#[test]
fn standard_input_cannot_be_watched() {
    let project = Project::web(1);
    let refused = project
        .command(&["-f", "-", "up", "-d", "--watch"])
        .stdin(fs::File::open(project.path("compose.yaml")).unwrap())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("cannot watch standard input"), "{told}");
    assert_eq!(project.leftovers(), Vec::<String>::new());
}
