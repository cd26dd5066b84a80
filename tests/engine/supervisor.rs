//! The supervisor itself can be killed, interrupted and asked for twice.

use std::{process::Stdio, time::Duration};

use nix::sys::signal::{Signal, kill};

use super::support::{
    load::Load,
    project::{Project, web},
    wait::{self, check},
};

/// Takes its time to end.
const SLOW: &str = r#"
services:
  slow:
    image: ${NGINX}
    command: ["sh", "-c", "trap 'sleep 4; exit 0' TERM; while :; do sleep 0.1; done"]
    stop_grace_period: 60s
    scale: 2
"#;

#[test]
fn nobody_notices_that_the_supervisor_is_killed_and_the_next_one_adopts_everything() {
    let project = Project::web(3);
    project.run(&["up", "-d", "--wait"]);
    project.serves(3);
    let before = project.processes();
    let load = Load::start(project.outside(), 200);
    project.kill_supervisor();
    // Traffic goes on without one.
    std::thread::sleep(std::time::Duration::from_secs(1));
    project.run(&["up", "-d", "--wait"]);
    project.serves(3);
    let report = load.finish();
    assert!(report.failures.is_empty(), "{report}");
    assert!(report.answered() > 50, "{report}");
    assert_eq!(project.processes(), before);
    assert!(project.supervisor().is_some());
}

#[test]
fn what_happens_without_a_supervisor_is_made_good_by_the_next_one() {
    let project = Project::web(3);
    project.run(&["up", "-d", "--wait"]);
    project.kill_supervisor();
    project.docker.run(&["kill", &format!("{}-web-1", project.name)]);
    project.docker.run(&["rm", "-f", &format!("{}-web-2", project.name)]);
    project.run(&["up", "-d", "--wait"]);
    project.serves(3);
}

#[test]
fn the_first_interrupt_stops_gracefully() {
    let project = Project::new(SLOW);
    let mut up = project.start(&["up"]);
    running(&project, 2);
    up.signal(Signal::SIGINT);
    assert!(up.outlives(Duration::from_secs(1)), "it waits for its replicas: {}", up.printed());
    assert_eq!(up.exit_code(), Some(130), "{}", up.printed());
    for slot in [1, 2] {
        let state = project.docker.inspect(&format!("{}-slow-{slot}", project.name))["State"].take();
        assert_eq!(state["ExitCode"], 0, "it ended by itself: {state}");
    }
    assert_eq!(project.processes(), []);
}

#[test]
fn a_stop_that_has_begun_is_not_undone_by_another_command() {
    let project = Project::new(SLOW);
    let mut up = project.start(&["up"]);
    running(&project, 2);
    up.signal(Signal::SIGINT);
    wait::until("it stops", || {
        let printed = up.printed();
        check(printed.contains("stopping"), printed)
    });
    for command in [&["scale", "slow=3"][..], &["up", "-d"], &["start"], &["up", "-d", "--wait"]] {
        let told = project.try_run(command);
        assert_eq!(told.code, Some(1), "{told:#?}");
        assert!(told.stderr.contains("supervises the project is stopping it"), "{told:#?}");
        assert!(told.stderr.contains("help: "), "{told:#?}");
    }
    assert_eq!(up.exit_code(), Some(130), "{}", up.printed());
    assert_eq!(project.processes(), []);
    assert!(project.supervisor().is_none());
}

#[test]
fn the_second_interrupt_kills_at_once() {
    let project = Project::new(
        r#"
services:
  deaf:
    image: ${NGINX}
    command: ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]
    stop_grace_period: 300s
    scale: 2
"#,
    );
    let mut up = project.start(&["up"]);
    running(&project, 2);
    up.signal(Signal::SIGINT);
    assert!(up.outlives(Duration::from_secs(2)), "it waits for its replicas: {}", up.printed());
    up.signal(Signal::SIGINT);
    assert_eq!(up.exit_code(), Some(130), "{}", up.printed());
    wait::until("nothing runs", || {
        let left = project.processes();
        check(left.is_empty(), left)
    });
}

/// Ends only when it is killed, and serves.
const DEAF: &str = r#"
services:
  db: { image: "${NGINX}", command: ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], stop_grace_period: 300s }
  web: { image: "${NGINX}", ports: ["${PORT}:8080"], environment: { REPLICA: "{{.Slot}}" }, scale: 2 }
  job: { image: "${NGINX}", command: ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], stop_grace_period: 300s, depends_on: [web] }
"#;

#[test]
fn an_interrupted_down_leaves_the_rest_as_it_is() {
    let project = Project::new(DEAF);
    project.run(&["up", "-d", "--wait"]);
    let before = project.processes();
    let mut down = project.start(&["down"]);
    assert!(down.outlives(Duration::from_secs(1)), "{}", down.printed());
    down.signal(Signal::SIGINT);
    assert_eq!(down.exit_code(), Some(130), "{}", down.printed());
    assert!(down.printed().contains("keep running, without a supervisor"), "{}", down.printed());
    wait::until("its supervisor is gone, too", || check(project.supervisor().is_none(), project.log()));
    assert_eq!(project.processes(), before);
    // Those that nobody had told to end serve as before.
    assert_eq!(project.serves(2).answers.len(), 2);
    project.run(&["up", "-d"]);
    for service in ["db", "job"] {
        project.docker.run(&["kill", &format!("{}-{service}-1", project.name)]);
    }
    project.run(&["down", "-t", "0"]);
}

#[test]
fn an_interrupted_command_says_what_goes_on() {
    let project = Project::new(
        &SLOW.replace("scale: 2", "healthcheck: { test: [CMD, \"false\"], start_period: 300s }"),
    );
    let mut up = project.start(&["up", "-d", "--wait"]);
    wait::until("it waits", || {
        let printed = up.printed();
        check(printed.contains("slow-1 started"), printed)
    });
    up.signal(Signal::SIGINT);
    assert_eq!(up.exit_code(), Some(130), "{}", up.printed());
    let told = "interrupted: the supervisor continues in the background\nhelp: ";
    assert!(up.printed().contains(told), "{}", up.printed());
    assert!(project.supervisor().is_some());
    project.run(&["down", "-t", "0"]);
}

#[test]
fn when_its_reader_leaves_it_stops_gracefully() {
    let project = Project::web(2);
    let mut up = project.command(&["up"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    running(&project, 2);
    drop((up.stdout.take(), up.stderr.take()));
    // The next line that there is to write.
    project.docker.run(&["kill", &format!("{}-web-1", project.name)]);
    let status = wait::until("the command ends", || up.try_wait().unwrap().ok_or_else(String::new));
    assert_eq!(status.code(), Some(0), "as any command whose reader has left");
    assert_eq!(project.processes(), []);
}

#[test]
fn a_hangup_makes_it_read_the_file_anew_also_on_a_terminal() {
    for terminal in [false, true] {
        let project = Project::web(2);
        let up = if terminal { project.on_terminal("", &["up"]) } else { project.command(&["up"]) };
        let _up = project.start_command(up);
        running(&project, 2);
        project.write(&web(3));
        kill(project.supervisor().unwrap(), Signal::SIGHUP).unwrap();
        running(&project, 3);
    }
}

#[test]
fn whoever_listens_to_its_events_hears_them_all() {
    let project = Project::web(2);
    let mut up = project.start(&["up"]);
    running(&project, 2);
    let mut listener = project.start(&["events"]);
    wait::until("past events are told", || {
        let told = listener.printed();
        check(told.contains("web-2 started"), told)
    });
    up.signal(Signal::SIGINT);
    assert_eq!(up.exit_code(), Some(130), "{}", up.printed());
    assert_eq!(listener.exit_code(), Some(0), "{}", listener.printed());
    let told = listener.printed();
    assert!(told.contains("web-1 stopped") && told.contains("web-2 stopped"), "{told}");
}

#[test]
fn when_its_terminal_is_closed_it_stops_gracefully() {
    let project = Project::web(2);
    let mut terminal = project.on_terminal("", &["up"]).stdout(Stdio::null()).spawn().unwrap();
    running(&project, 2);
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    wait::until("nothing runs", || {
        let left = project.processes();
        check(left.is_empty(), left)
    });
    // They were stopped, each by its own signal.
    assert_eq!(project.docker.inspect(&format!("{}-web-1", project.name))["State"]["ExitCode"], 0);
}

fn running(project: &Project, replicas: usize) {
    wait::until("all replicas run", || {
        let processes = project.processes();
        check(processes.len() == replicas + 1, processes)
    });
    wait::until("sameport says so", || {
        let status = project.status();
        check(status.converged, status)
    });
}

#[test]
fn a_second_supervisor_is_refused_and_told_who_is_there() {
    let project = Project::web(3);
    project.run(&["up", "-d", "--wait"]);
    let before = project.processes();
    let second = project.try_run(&["supervise"]);
    assert_eq!(second.code, Some(1), "{second:#?}");
    let pid = project.supervisor().unwrap();
    assert!(second.stderr.contains(&format!("process {pid}")), "{second:#?}");
    assert_eq!(project.processes(), before);
}
