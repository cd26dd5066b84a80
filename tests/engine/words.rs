//! What replicas write, and commands that speak with them.

use std::{io::Write, process::Stdio};

use super::support::{
    project::Project,
    wait::{self, check},
};

const TALKERS: &str = r#"
services:
  talker:
    image: ${NGINX}
    environment: { NUMBER: "{{.Slot}}" }
    command: ["sh", "-c", "echo hello from $$NUMBER; echo warning from $$NUMBER >&2; exec sleep 1000"]
    stop_grace_period: 0s
    scale: 2
"#;

/// The lines, sorted: two outputs of one process have no order.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn logs_name_the_replica_in_front_of_each_line() {
    let project = Project::new(TALKERS);
    project.run(&["up", "-d", "--wait"]);
    assert_eq!(
        sorted(&project.run(&["logs"])),
        [
            "talker-1 | hello from 1",
            "talker-1 | warning from 1",
            "talker-2 | hello from 2",
            "talker-2 | warning from 2",
        ]
    );
    let one = project.run(&["logs", "--no-log-prefix", "talker-2"]);
    assert_eq!(sorted(&one), ["hello from 2", "warning from 2"]);
    assert_eq!(project.run(&["logs", "--tail", "1"]).lines().count(), 2, "one of each replica");
    assert_eq!(project.run(&["logs", "--since", "2030-01-01T00:00:00Z"]), "");
    let timed = project.run(&["logs", "--timestamps", "--no-log-prefix", "talker-1"]);
    for line in timed.lines() {
        let (time, _) = line.split_once(' ').unwrap();
        time.parse::<jiff::Timestamp>().unwrap();
    }
    let json = project.run(&["logs", "--format", "json", "talker-1"]);
    let streams = json.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut streams: Vec<_> = streams.map(|line| line["stream"].as_str().unwrap().to_owned()).collect();
    streams.sort_unstable();
    assert_eq!(streams, ["stderr", "stdout"]);
}

#[test]
fn followed_logs_go_on_with_replicas_that_start_later_and_end_with_an_interrupt() {
    let project = Project::new(TALKERS);
    project.run(&["up", "-d", "--wait"]);
    let mut follower = project.start(&["logs", "-f"]);
    let sees = |words: &str, times: usize| {
        wait::until(&format!("{times} times {words}"), || {
            let seen = follower.printed();
            check(seen.matches(words).count() == times, seen)
        });
    };
    sees("hello from 2", 1);
    project.run(&["scale", "talker=3"]);
    sees("hello from 3", 1);
    // The same container again, from where it ended.
    project.run(&["kill", "talker-2"]);
    sees("hello from 2", 2);
    sees("hello from 1", 1);
    follower.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(follower.exit_code(), Some(130));
}

#[test]
fn a_line_is_followed_once_also_where_the_engine_turns_its_log_over() {
    const LINES: usize = 20_000;
    let project = Project::new(&format!(
        r#"
services:
  talker:
    image: ${{PYTHON}}
    command: [python3, -u, -c, "import time; time.sleep(2); [(print('line', n), time.sleep(0.0001)) for n in range({LINES})]; time.sleep(600)"]
    logging: {{ driver: json-file, options: {{ max-size: "100k", max-file: "3" }} }}
"#
    ));
    project.run(&["up", "-d"]);
    let follower = project.start(&["logs", "-f", "--no-log-prefix"]);
    let last = format!("line {}\n", LINES - 1);
    wait::until("the last line", || {
        let seen = follower.printed();
        check(seen.contains(&last), seen.lines().last().map(str::to_owned))
    });
    let printed = follower.printed();
    let lines: Vec<_> = printed.lines().filter(|line| line.starts_with("line ")).collect();
    let different: std::collections::BTreeSet<_> = lines.iter().collect();
    assert_eq!(lines.len(), different.len(), "some are printed twice");
    // Which of them the engine skips itself when it turns its log over is its affair.
    assert!(lines.len() > LINES / 2, "{}", lines.len());
}

#[test]
fn a_command_in_a_replica_has_its_input_output_and_exit_code() {
    let project = Project::new(TALKERS);
    project.run(&["up", "-d", "--wait"]);
    assert_eq!(project.run(&["exec", "talker.2", "--", "sh", "-c", "echo $NUMBER"]), "2\n");
    let mut cat = project
        .command(&["exec", "-e", "COLOR=green", "talker", "--", "sh", "-c", "cat; echo $COLOR >&2; exit 7"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let long = "a line of text\n".repeat(20_000);
    cat.stdin.take().unwrap().write_all(long.as_bytes()).unwrap();
    let output = cat.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stdout.len(), long.len());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "green\n");

    let missing = project.try_run(&["exec", "talker.9", "--", "true"]);
    assert_eq!(missing.code, Some(1), "{missing:#?}");
    assert!(missing.stderr.contains("talker-9"), "{missing:#?}");
}

#[test]
fn on_a_terminal_the_command_gets_one_of_the_same_size() {
    let project = Project::new(TALKERS);
    project.run(&["up", "-d", "--wait"]);
    let inside = "sleep 0.5; test -t 0 && test -t 1 && busybox stty size; exit 5";
    let exec = ["exec", "talker", "--", "sh", "-c", inside];
    let output = project.on_terminal("stty rows 33 cols 77", &exec).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("33 77"), "{printed}");
    assert_eq!(output.status.code(), Some(5), "{printed}");
}

#[test]
fn on_a_narrow_terminal_a_replica_is_still_a_line() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    for (columns, header) in [
        (130, "REPLICA STATE SINCE WEIGHT LIVE TOTAL QUEUE SHARING CONTAINER GENERATION PORTS"),
        (100, "REPLICA STATE SINCE WEIGHT LIVE TOTAL QUEUE SHARING CONTAINER PORTS"),
        (60, "REPLICA STATE SINCE WEIGHT LIVE PORTS"),
        (45, "REPLICA STATE SINCE PORTS"),
        (22, "REPLICA STATE"),
    ] {
        let output = project.on_terminal(&format!("stty cols {columns}"), &["ps"]).output().unwrap();
        let table = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 3, "{columns}:\n{table}");
        assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>().join(" "), header, "{columns}:\n{table}");
        assert!(lines[2].contains("web-2") && lines[2].contains("up"), "{columns}:\n{table}");
    }
}

#[test]
fn events_tell_what_happens_to_whoever_listens() {
    let project = Project::new(TALKERS);
    project.run(&["up", "-d", "--wait"]);
    let mut listener = project.start(&["events"]);
    wait::until("past events are told", || {
        let told = listener.printed();
        check(told.contains("talker-2 started"), told)
    });
    project.run(&["kill", "talker-2"]);
    wait::until("the end and the new start are told", || {
        let told = listener.printed();
        check(told.contains("talker-2 ended") && told.matches("talker-2 started").count() == 2, told)
    });
    project.run(&["down"]);
    assert_eq!(listener.exit_code(), Some(0), "{}", listener.printed());
}

#[test]
fn what_is_there_is_shown_without_a_file_and_without_a_supervisor() {
    let project = Project::new(TALKERS);
    project.run(&["up", "-d", "--wait"]);
    project.kill_supervisor();
    project.write("services: [");
    let table = project.run(&["-p", &project.name, "ps"]);
    for replica in ["talker-1", "talker-2"] {
        let line = table.lines().find(|line| line.contains(replica)).unwrap_or_else(|| panic!("{table}"));
        assert!(line.contains("Up "), "{table}");
    }
    let json = project.run(&["-p", &project.name, "ps", "--format", "json"]);
    let replicas: Vec<sameport::api::schema::Replica> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(replicas.len(), 2, "{json}");
    assert!(replicas.iter().all(|replica| replica.orphan), "{json}");
    let ids = project.run(&["-p", &project.name, "ps", "-q"]);
    assert_eq!(ids.lines().count(), 2, "{ids}");
    assert_eq!(project.run(&["-p", &project.name, "logs", "--tail", "1", "talker-1"]).lines().count(), 1);
}

#[test]
fn a_project_that_runs_is_changed_by_its_name_also_where_its_file_is_gone() {
    let project = Project::new(TALKERS);
    project.run(&["up", "-d", "--wait"]);
    std::fs::remove_file(project.path("compose.yaml")).unwrap();
    let name = &project.name;
    let running = || project.replicas("talker").len();
    project.run(&["-p", name, "scale", "talker=3"]);
    assert_eq!(running(), 3);
    let before = project.processes();
    project.run(&["-p", name, "restart", "-t", "0", "talker"]);
    let after = project.processes();
    let replaced = after.iter().filter(|process| !before.contains(process)).count();
    assert_eq!(replaced, 3, "all but the sandbox: {before:?} {after:?}");
    project.run(&["-p", name, "stop", "-t", "0", "talker"]);
    project.run(&["-p", name, "start", "talker"]);
    assert_eq!(running(), 3);
    let history = project.run(&["-p", name, "rollout", "history", "talker"]);
    assert_eq!(history.lines().count(), 2, "{history}");
    let plan = project.run(&["-p", name, "--dry-run", "scale", "talker=1"]);
    assert!(plan.contains("talker-3"), "{plan}");

    // Whoever does not know the name is told it.
    let mut nameless = project.command(&["ps"]);
    let told = nameless.env_remove("COMPOSE_PROJECT_NAME").output().unwrap();
    assert_eq!(told.status.code(), Some(2));
    let said = String::from_utf8_lossy(&told.stderr);
    assert!(said.contains("there is no Compose file") && said.contains(name.as_str()), "{said}");

    // A file that is there, and cannot be used, is told of.
    project.write("services: [");
    let scaled = project.try_run(&["-p", name, "scale", "talker=2"]);
    assert_eq!(scaled.code, Some(0), "{scaled:#?}");
    assert!(scaled.stderr.contains("the Compose file cannot be used"), "{scaled:#?}");

    // Without a supervisor nobody knows what the project is.
    project.kill_supervisor();
    let refused = project.try_run(&["-p", name, "scale", "talker=1"]);
    assert_eq!(refused.code, Some(2), "{refused:#?}");
}
