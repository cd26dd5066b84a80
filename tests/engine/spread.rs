//! Four replicas of real servers share one published port, and each of them serves.

use super::support::{
    load,
    project::{Project, web},
};

fn spreads(compose: &str) {
    let project = Project::new(compose);
    project.run(&["up", "-d", "--wait"]);
    project.serves(4);
    let report = load::send(project.loopback(), 300);
    assert_eq!(report.answered(), 300, "{report}");
    assert_eq!(report.answers.keys().collect::<Vec<_>>(), ["1", "2", "3", "4"], "{report}");
}

#[test]
fn nginx() {
    spreads(&web(4));
}

#[test]
fn httpbin_on_gunicorn() {
    spreads(
        r#"
services:
  httpbin:
    image: ${HTTPBIN}
    environment: { REPLICA: "{{.Slot}}" }
    ports: ["${PORT}:8080"]
    scale: 4
"#,
    );
}

#[test]
fn caddy() {
    spreads(
        r#"
services:
  web:
    image: ${CADDY}
    environment: { REPLICA: "{{.Slot}}" }
    ports: ["${PORT}:8080"]
    deploy: { replicas: 4 }
"#,
    );
}

#[test]
fn on_the_network_of_the_host() {
    let project = Project::new(
        r#"
services:
  web:
    image: ${NGINX}
    network_mode: host
    environment: { REPLICA: "{{.Slot}}", PORT: "${PORT}" }
    deploy: { replicas: 3 }
"#,
    );
    project.run(&["up", "-d", "--wait"]);
    project.serves(3);
    assert_eq!(project.processes().len(), 3, "there is no sandbox where there is nothing to hold");
}
