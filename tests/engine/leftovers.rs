//! `down` removes all that `up` made, and nothing else.

use super::support::{docker::Docker, project::Project};

const STORE: &str = r#"
services:
  web:
    image: ${NGINX}
    ports: ["${PORT}:8080"]
    volumes: ["data:/data"]
    networks: [front, back]
    scale: 2
  job:
    image: ${NGINX}
    command: ["true"]
    restart: "no"
    networks: [back]
networks: { front: {}, back: {} }
volumes: { data: {} }
"#;

/// A container of somebody else; removed when dropped.
struct ForeignListener<'a> {
    docker: &'a Docker,
    id: String,
}

impl<'a> ForeignListener<'a> {
    fn new(docker: &'a Docker, name: &str) -> Self {
        let image = super::support::images::build("nginx");
        let id = docker.run(&["run", "-d", "--name", name, &image, "sh", "-c", "while :; do sleep 1; done"]);
        Self { docker, id }
    }

    fn started_at(&self) -> String {
        let state = self.docker.inspect(&self.id)["State"].take();
        assert_eq!(state["Running"], true, "the foreign container runs");
        state["StartedAt"].to_string()
    }
}

impl Drop for ForeignListener<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.docker.try_run(&["rm", "-f", &self.id]) {
            eprintln!("{error}");
        }
    }
}

#[test]
fn down_keeps_the_data_unless_told_otherwise_and_leaves_nothing_else() {
    let project = Project::new(STORE);
    // Named as if it were ours, and without our labels.
    let foreign = ForeignListener::new(&project.docker, &format!("{}-web-9", project.name));
    let started_at = foreign.started_at();
    project.run(&["up", "-d"]);
    project.serves_some();
    project.run(&["down"]);
    assert_eq!(project.leftovers(), [format!("{}_data", project.name)]);
    assert!(project.supervisor().is_none(), "no supervisor stays behind");

    project.run(&["up", "-d"]);
    project.run(&["down", "-v"]);
    assert_eq!(project.leftovers(), Vec::<String>::new());
    assert_eq!(foreign.started_at(), started_at, "somebody else's container is left alone");
}

#[test]
fn down_works_without_a_supervisor_and_without_a_file() {
    let project = Project::new(STORE);
    project.run(&["up", "-d"]);
    project.kill_supervisor();
    project.write("services: [");
    project.run(&["-p", &project.name, "down", "-v"]);
    assert_eq!(project.leftovers(), Vec::<String>::new());
}

/// It still takes a connection, and answers nothing any more.
#[test]
fn a_supervisor_that_is_just_ending_is_none() {
    let project = Project::new(STORE);
    let socket = project.socket();
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let ending = std::thread::spawn(move || {
        // The first one looks whether somebody is there, the second one asks.
        for _ in 0..2 {
            drop(listener.accept().unwrap());
        }
    });
    project.run(&["down", "-v"]);
    ending.join().unwrap();
}

#[test]
fn down_of_nothing_is_no_error() {
    let project = Project::new(STORE);
    project.run(&["down", "-v"]);
}

#[test]
fn a_name_that_is_taken_is_said_and_its_owner_left_alone() {
    let project = Project::new(STORE);
    let name = format!("{}-web-2", project.name);
    let foreign = ForeignListener::new(&project.docker, &name);
    let started_at = foreign.started_at();
    let up = project.try_run(&["up", "-d", "--wait", "--wait-timeout", "5"]);
    assert_eq!(up.code, Some(1), "{up:#?}");
    assert!(up.stderr.contains(&name), "{up:#?}");
    assert_eq!(foreign.started_at(), started_at);
    project.run(&["down", "-v"]);
    assert_eq!(foreign.started_at(), started_at);
}
