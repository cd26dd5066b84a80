//! `post_start` and `pre_stop`.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use sameport::api::schema::ReplicaState;

use super::{
    notes::Notes,
    support::{
        project::Project,
        wait::{self, check},
    },
};

#[test]
fn commands_run_in_order_after_each_start_and_the_replica_gets_nothing_before_they_are_done() {
    let notes = Notes::new();
    let project = Project::new(&notes.mounted_in(
        r#"
services:
  web:
    image: ${NGINX}
    ports: ["${PORT}:8080"]
    environment: { REPLICA: "{{.Slot}}" }
    volumes: OUT
    post_start:
      - command: ["sh", "-c", "echo first $$WHO $$(pwd) $$(id -u) >> /notes/log; sleep 3"]
        working_dir: /tmp
        environment: { WHO: "web {{.Slot}}" }
      - command: sh -c 'echo second >> /notes/log'
        user: 0
"#,
    ));
    project.run(&["up", "-d"]);
    let once = ["first web 1 /tmp 0", "second"];
    assert_eq!(notes.lines(), once, "`up` waits for them");
    project.serves(1);
    let replica = &project.replicas("web")[0];
    assert_eq!(replica.state, ReplicaState::Running);
    let container = replica.id.clone().unwrap();

    kill(nix::unistd::Pid::from_raw(project.docker.pid(&container)), Signal::SIGKILL).unwrap();
    // It listens for long before the first command is done.
    wait::until("the first command runs again", || {
        let lines = notes.lines();
        check(lines.len() == 3, &lines)
    });
    wait::until("it listens", || {
        let state = &project.replicas("web")[0];
        let listens = state.traffic.as_ref().is_some_and(|t| t.ports.iter().any(|port| port.listening));
        check(state.state == ReplicaState::Preparing && listens, state)
    });
    let while_preparing = &project.replicas("web")[0];
    assert_eq!(while_preparing.state, ReplicaState::Preparing);
    assert_eq!(while_preparing.traffic.as_ref().map(|traffic| traffic.weight), Some(0));
    project.serves(1);
    assert_eq!(notes.lines(), [once, once].concat());
    assert_eq!(project.replicas("web")[0].id, Some(container), "it is the same container");
}

#[test]
fn a_replica_whose_command_fails_is_tried_again_and_it_is_told_why() {
    let file = |line: &str| {
        format!(
            "services:\n  web:\n    image: ${{NGINX}}\n    ports: [\"${{PORT}}:8080\"]\n    post_start:\n      \
             - command: [sh, -c, \"{line}\"]\n"
        )
    };
    let project = Project::new(&file("echo no cache; exit 3"));
    let up = project.try_run(&["up", "-d"]);
    assert_eq!(up.code, Some(1), "{up:#?}");
    let words = "post_start `sh -c echo no cache; exit 3`: exit code 3\n    no cache";
    // Caught in a try or between two.
    let told = up.stderr.rsplit_once("error: web-1").map(|(_, told)| told);
    assert!(told.is_some_and(|told| told.contains(words)), "{}", up.stderr);
    let events = project.run(&["events", "--no-follow"]);
    assert!(events.contains(&format!("web-1 is stopped and started again: {words}")), "{events}");
    wait::until("it is shown as blocked", || {
        let state = project.replicas("web").remove(0).state;
        check(
            matches!(&state, ReplicaState::Blocked { attempts: Some(attempts), .. } if *attempts > 3),
            &state,
        )
    });
    project.write(&file("true"));
    project.run(&["up", "-d", "--wait"]);
    project.serves_some();
}

#[test]
fn commands_come_before_the_stop_signal_of_a_stop_on_purpose_and_only_of_that() {
    let notes = Notes::new();
    let project = Project::new(&notes.mounted_in(
        r#"
services:
  web:
    image: ${NGINX}
    entrypoint: ["sh", "-c", "trap 'echo signal >> /notes/log; exit 0' TERM; while :; do sleep 0.1; done"]
    volumes: OUT
    pre_stop:
      - command: ["sh", "-c", "sleep 1; echo before $$WHO >> /notes/log"]
        environment: { WHO: "{{.Slot}}" }
      - command: ["sh", "-c", "echo wrong; exit 7"]
      - command: ["sh", "-c", "echo never >> /notes/log"]
"#,
    ));
    project.run(&["up", "-d", "--wait"]);
    let container = project.replicas("web").remove(0).id.unwrap();
    let started = project.replicas("web").remove(0).started_at;
    project.docker.run(&["kill", &container]);
    wait::until("it is replaced after its death", || {
        let replica = project.replicas("web").remove(0);
        check(replica.started_at > started && replica.state.is_up(), &replica)
    });
    assert_eq!(notes.lines(), [""; 0], "it died: nothing was to be run");

    project.run(&["restart", "web"]);
    notes.are(&["before 1", "signal"]);
    wait::until("the failure is told", || {
        let events = project.run(&["events", "--no-follow"]);
        let told = events
            .contains("web-1 is stopped anyway: pre_stop `sh -c echo wrong; exit 7`: exit code 7\n    wrong");
        check(told, &events)
    });
    project.run(&["up", "-d", "--wait"]);
    project.run(&["down"]);
    notes.are(&["before 1", "signal", "before 1", "signal"]);
}

#[test]
fn commands_before_the_end_have_the_grace_period_and_no_more() {
    let project = Project::new(
        "services:\n  web:\n    image: ${NGINX}\n    stop_grace_period: 2s\n    pre_stop: [{command: [sleep, \"1000\"]}]\n",
    );
    project.run(&["up", "-d", "--wait"]);
    let begin = Instant::now();
    project.run(&["stop"]);
    let took = begin.elapsed();
    assert!(took >= Duration::from_secs(2), "{took:?}");
    assert!(took < Duration::from_secs(60), "{took:?}");
    let events = project.run(&["events", "--no-follow"]);
    assert!(events.contains("not done after 2s"), "{events}");
    assert_eq!(project.replicas("web")[0].state, ReplicaState::Stopped);
}

#[test]
fn after_the_death_of_the_supervisor_nothing_is_run_twice_at_the_same_time_or_for_nothing() {
    let notes = Notes::new();
    let project = Project::new(&notes.mounted_in(
        r#"
services:
  web:
    image: ${NGINX}
    ports: ["${PORT}:8080"]
    environment: { REPLICA: "{{.Slot}}" }
    volumes: OUT
    post_start: [{ command: ["sh", "-c", "echo begin >> /notes/log; sleep 4; echo end >> /notes/log"] }]
"#,
    ));
    let mut first = project.command(&["up", "-d"]).spawn().unwrap();
    notes.are(&["begin"]);
    project.kill_supervisor();
    first.wait().unwrap();
    // What still runs is ended before it is run again.
    project.run(&["up", "-d", "--wait"]);
    assert_eq!(notes.lines(), ["begin", "begin", "end"]);
    project.serves(1);

    let before = project.processes();
    project.kill_supervisor();
    project.run(&["up", "-d", "--wait"]);
    project.serves(1);
    assert_eq!(project.processes(), before);
    assert_eq!(notes.lines(), ["begin", "begin", "end"]);
}
