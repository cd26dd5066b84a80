//! Replica counts that are many times what runs.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use super::support::{docker::of_project, project::Project};

const SLEEPERS: &str =
    "services:\n  web:\n    image: ${NGINX}\n    command: [sleep, \"1000\"]\n    stop_grace_period: 0s\n";

/// What a terminal shows of a command that gets an answer typed, and its exit code.
pub fn answered(mut command: Command, answer: &str) -> (String, Option<i32>) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (String::from_utf8_lossy(&output.stdout).replace('\r', ""), output.status.code())
}

#[test]
fn a_terminal_asks_before_a_service_gets_many_times_what_runs() {
    let project = Project::new(SLEEPERS);
    project.run(&["up", "-d", "--wait"]);
    let question = |wanted: u32| format!("1 replicas of `web` are running. Run {wanted}? [y/N] ");
    for command in [&["scale", "web=500"][..], &["up", "-d", "--scale", "web=500"]] {
        let (told, code) = answered(project.on_terminal("", command), "n\n");
        assert!(told.contains(&question(500)) && told.contains("nothing changed"), "{told}");
        assert_eq!(code, Some(1), "{told}");
        assert_eq!(project.replicas("web").len(), 1);
    }
    // Not more than twenty.
    let (told, code) = answered(project.on_terminal("", &["scale", "web=2"]), "");
    assert!(!told.contains("[y/N]") && code == Some(0), "{told}");
    let (told, code) = answered(project.on_terminal("", &["scale", "web=21"]), "y\n");
    assert!(told.contains("2 replicas of `web` are running. Run 21?") && code == Some(0), "{told}");
    assert_eq!(project.docker.lines(&["ps", "-q", "--filter", &of_project(&project.name)]).len(), 22);
    project.run(&["scale", "web=1"]);
    // Who has no terminal means what he says.
    project.run(&["scale", "web=21"]);
    assert_eq!(project.replicas("web").len(), 21);
    project.run(&["down"]);
}
