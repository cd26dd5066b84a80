//! What is secret in a project is told to nobody: by no log, no message, no command line, and no file that others can read.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use sameport::api::schema::ReplicaState;

use super::support::{
    project::{Finished, Project},
    wait::{self, check},
};

/// Part of each secret, and of nothing else.
const CANARY: &str = "canary-5c1de9";

fn compose(version: u32) -> String {
    format!(
        r#"
services:
  web:
    image: ${{NGINX}}
    environment: {{ TOKEN: "{CANARY}-value-{version}", GIVEN: "${{GIVEN}}" }}
    env_file: [secret.env]
    ports: ["${{PORT}}:8080"]
    healthcheck: {{ test: "true", interval: 1s }}
    deploy: {{ replicas: 2, update_config: {{ monitor: 1s }} }}
    stop_grace_period: 1s
"#
    )
}

/// Calls a command with everything in its log, and a secret in its environment.
fn call(project: &Project, args: &[&str]) -> Finished {
    let mut command = project.command(args);
    command.env("SAMEPORT_LOG", "trace").env("GIVEN", format!("{CANARY}-given"));
    command.env("RUST_BACKTRACE", "full").stdin(Stdio::null());
    command.output().unwrap().into()
}

/// Files below a folder that hold a secret, and their modes.
fn holders(folder: &Path) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            found.extend(holders(&path));
        } else if kind.is_file()
            && fs::read(&path).unwrap().windows(CANARY.len()).any(|part| part == CANARY.as_bytes())
        {
            found.push((path.display().to_string(), entry.metadata().unwrap().permissions().mode() & 0o7777));
        }
    }
    found
}

/// The command lines of all processes that hold a secret.
fn told_in_command_lines() -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(CANARY)).collect()
}

/// Ends what waits for it, also when the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn secrets_are_in_no_log_message_command_line_or_file_of_others() {
    let project = Project::new(&compose(1));
    fs::write(project.path("secret.env"), format!("PASSWORD={CANARY}-file\n")).unwrap();
    let is_over = AtomicBool::new(false);
    let (said, seen) = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                seen.extend(told_in_command_lines());
                thread::sleep(Duration::from_millis(20));
            }
            seen
        });
        let over = Over(&is_over);
        let mut said = Vec::new();
        let mut say = |args: &[&str]| said.push((args.join(" "), call(&project, args)));
        say(&["up", "-d", "--wait"]);
        say(&["scale", "web=3"]);
        project.write(&compose(2));
        say(&["up", "-d", "--wait"]);
        say(&["exec", "-T", "-e", "GIVEN", "web-1", "sh", "-c", "[ -n \"$GIVEN\" ]"]);
        project.docker.run(&["kill", &project.replicas("web")[0].name]);
        wait::until("it is back", || {
            let (replicas, log) = (project.replicas("web"), project.log());
            let is_back = replicas.iter().all(|replica| replica.state == ReplicaState::Healthy);
            check(log.contains("killed by SIGKILL") && is_back, &replicas)
        });
        for args in [
            &["rollout", "undo", "web"][..],
            &["ps"],
            &["ps", "--format", "json"],
            &["status"],
            &["status", "--format", "json"],
            &["events", "--no-follow"],
            &["events", "--no-follow", "--format", "json"],
            &["ls", "--all", "--format", "json"],
            &["up", "--dry-run"],
            &["rollout", "history", "web"],
            &["doctor"],
            &["-f", "missing.yaml", "up", "-d"],
        ] {
            say(args);
        }
        drop(over);
        (said, watch.join().unwrap())
    });
    assert_eq!(seen, Vec::<String>::new());
    for (args, finished) in &said {
        assert!(
            !finished.stdout.contains(CANARY) && !finished.stderr.contains(CANARY),
            "{args}: {finished:#?}"
        );
    }
    let good = said.iter().filter(|(_, finished)| finished.code == Some(0)).count();
    assert!(good >= said.len() - 2, "{said:#?}");
    let log = project.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the log has little in it: {log}");
    assert!(!log.contains(CANARY), "{}", log.lines().find(|line| line.contains(CANARY)).unwrap_or_default());
    let ours = holders(&project.path("sameport"));
    assert!(!ours.is_empty(), "it is looked for where nothing is");
    assert!(ours.iter().all(|(_, mode)| mode & 0o077 == 0), "{ours:?}");
    let access = project.docker.run(&["inspect", "-f", "{{json .Config.Labels}}", &project.engine_lock()]);
    let key = access.split("\\\"key\\\":\\\"").nth(1).and_then(|rest| rest.split('\\').next()).unwrap();
    assert!(!log.contains(key), "the key of readers is in the log");
    assert!(
        said.iter().all(|(_, finished)| !finished.stdout.contains(key) && !finished.stderr.contains(key))
    );
}
