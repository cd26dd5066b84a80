//! Services that wait for each other.

use super::support::project::Project;

#[test]
fn a_service_starts_when_the_one_it_depends_on_is_healthy_or_done() {
    let project = Project::new(
        r#"
services:
  migrate:
    image: ${NGINX}
    command: ["sh", "-c", "sleep 1"]
    restart: "no"
  db:
    image: ${NGINX}
    command: ["sh", "-c", "sleep 2; touch /tmp/ready; while :; do sleep 1; done"]
    stop_grace_period: 0s
    healthcheck: { test: ["CMD", "ls", "/tmp/ready"], interval: 500ms, timeout: 5s, retries: 60 }
  web:
    image: ${NGINX}
    depends_on:
      db: { condition: service_healthy }
      migrate: { condition: service_completed_successfully }
    ports: ["${PORT}:8080"]
    environment: { REPLICA: "{{.Slot}}" }
    scale: 2
"#,
    );
    project.run(&["up", "-d", "--wait"]);
    project.serves(2);
    let state = |name: &str| project.docker.inspect(&format!("{}-{name}", project.name))["State"].take();
    let time = |value: &serde_json::Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let healthy = state("db-1")["Health"]["Log"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|probe| probe["ExitCode"] == 0)
        .map(|probe| time(&probe["Start"]))
        .min()
        .unwrap();
    let done = time(&state("migrate-1")["FinishedAt"]);
    for name in ["web-1", "web-2"] {
        let started = time(&state(name)["StartedAt"]);
        assert!(started > done, "{name} started {started}, migrate was done {done}");
        // Docker keeps the last five probes only.
        let db = time(&state("db-1")["StartedAt"]);
        assert!(started > db + jiff::Span::new().seconds(2), "{name} started before db was ready: {healthy}");
    }
}
