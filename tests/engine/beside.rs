//! Projects beside each other, and no engine at all.

use std::{path::Path, process::Stdio};

use super::support::{docker::Docker, project::Project};

#[test]
fn two_projects_of_the_same_file_do_not_meet() {
    let (one, two) = (Project::web(2), Project::web(2));
    let mut first = one.command(&["up", "-d", "--wait"]).stdout(Stdio::null()).spawn().unwrap();
    two.run(&["up", "-d", "--wait"]);
    assert!(first.wait().unwrap().success());
    one.serves(2);
    let before = two.processes();
    one.run(&["scale", "web=3"]);
    one.serves(3);
    one.run(&["down", "-v"]);
    assert_eq!(one.leftovers(), Vec::<String>::new());
    assert_eq!(two.processes(), before);
    two.serves(2);
}

#[test]
fn an_engine_that_cannot_be_reached_is_exit_code_3() {
    let project =
        Project::on(Docker::at(Path::new("/nonexistent/docker.sock")), "services: {web: {image: x}}");
    for args in [&["up", "-d"][..], &["up"], &["ps"], &["down"], &["scale", "web=2"]] {
        let finished = project.try_run(args);
        assert_eq!(finished.code, Some(3), "{args:?}: {finished:#?}");
        assert!(finished.stderr.contains("/nonexistent/docker.sock"), "{args:?}: {finished:#?}");
        assert_eq!(finished.stdout, "", "{args:?}");
    }
}

#[test]
fn a_port_of_the_host_that_is_taken_is_said() {
    let project = Project::web(2);
    let _owner = std::net::TcpListener::bind(("0.0.0.0", project.port)).unwrap();
    let up = project.try_run(&["up", "-d", "--wait", "--wait-timeout", "5"]);
    assert_eq!(up.code, Some(1), "{up:#?}");
    assert!(up.stderr.contains(&project.port.to_string()), "{up:#?}");
}
