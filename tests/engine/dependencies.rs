//! Services that wait for each other.

use super::{
    notes::Notes,
    support::{
        project::Project,
        wait::{self, check},
    },
};

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

/// When the process of a service's only replica started.
fn started(project: &Project, service: &str) -> jiff::Timestamp {
    project.replicas(service)[0].started_at.unwrap().0
}

#[test]
fn who_asks_for_it_is_restarted_after_what_is_done_on_purpose_to_a_dependency() {
    let file = |version: &str| {
        format!(
            r#"
services:
  db:
    image: ${{NGINX}}
    environment: {{ VERSION: "{version}" }}
  api:
    image: ${{NGINX}}
    depends_on: {{ db: {{ condition: service_started, restart: true }} }}
  web:
    image: ${{NGINX}}
    depends_on: {{ api: {{ condition: service_started, restart: true }} }}
  other:
    image: ${{NGINX}}
    depends_on: [db, api]
"#
        )
    };
    let project = Project::new(&file("one"));
    project.run(&["up", "-d", "--wait"]);
    let other = started(&project, "other");
    let containers =
        |project: &Project| ["api", "web"].map(|name| project.replicas(name)[0].id.clone().unwrap());
    let before = containers(&project);
    let in_order = |project: &Project, after: jiff::Timestamp| {
        wait::until("one is restarted after the other", || {
            let times = ["db", "api", "web"].map(|name| started(project, name));
            check(after < times[0] && times.is_sorted() && project.status().converged, times)
        });
    };
    let first = started(&project, "web");
    project.run(&["restart", "db"]);
    in_order(&project, first);

    // A new version of it, too.
    let second = started(&project, "web");
    project.write(&file("two"));
    project.run(&["up", "-d", "--wait"]);
    in_order(&project, second);
    assert_eq!(containers(&project), before, "they got other processes only");

    // Its own end is its own business.
    let third = ["db", "api", "web"].map(|name| started(&project, name));
    project.docker.run(&["kill", &format!("{}-db-1", project.name)]);
    wait::until("it is back", || {
        let status = project.status();
        check(started(&project, "db") > third[2] && status.converged, &status.replicas)
    });
    assert_eq!(["api", "web"].map(|name| started(&project, name)), third[1..]);
    assert_eq!(started(&project, "other"), other);
}

#[test]
fn a_restart_that_is_due_outlives_the_supervisor() {
    let notes = Notes::new();
    let project = Project::new(&notes.mounted_in(
        r#"
services:
  db:
    image: ${NGINX}
    stop_grace_period: 5s
    volumes: OUT
    pre_stop: [{ command: ["sh", "-c", "echo begin >> /notes/log; sleep 3"] }]
  web:
    image: ${NGINX}
    depends_on: { db: { condition: service_started, restart: true } }
"#,
    ));
    project.run(&["up", "-d", "--wait"]);
    let before = started(&project, "web");
    let mut restart = project.command(&["restart", "db"]).spawn().unwrap();
    notes.are(&["begin"]);
    project.kill_supervisor();
    restart.wait().unwrap();
    project.docker.run(&["restart", &format!("{}-db-1", project.name)]);
    project.run(&["up", "-d", "--wait"]);
    wait::until("its dependent is restarted", || {
        let now = started(&project, "web");
        check(now > before && now > started(&project, "db"), now)
    });
}

#[test]
fn services_start_in_their_order_and_end_in_the_opposite_one() {
    let notes = Notes::new();
    let service = |name: &str, more: &str| {
        format!(
            "  {name}:\n    image: ${{NGINX}}\n    volumes: OUT\n    entrypoint: [sh, -c, \"echo up {name} >> /notes/log; \
             trap 'sleep 1; echo down {name} >> /notes/log; exit 0' TERM; while :; do sleep 0.1; done\"]\n    \
             healthcheck: {{ test: [CMD, grep, \"up {name}\", /notes/log], interval: 300ms, timeout: 5s, retries: 60 }}\n{more}"
        )
    };
    let compose = [
        "services:\n".to_owned(),
        service(
            "app",
            "    depends_on: {api: {condition: service_healthy}, extra: {condition: service_started, required: false}}\n",
        ),
        service("api", "    depends_on: {db: {condition: service_healthy}}\n"),
        service("db", ""),
        service("extra", "    profiles: [more]\n"),
    ];
    let project = Project::new(&notes.mounted_in(&compose.concat()));
    project.run(&["up", "-d", "--wait"]);
    let up = ["up db", "up api", "up app"];
    let down = ["down app", "down api", "down db"];
    assert_eq!(notes.lines(), up);
    project.run(&["stop"]);
    assert_eq!(notes.lines(), [up, down].concat());
    project.run(&["start"]);
    wait::until("all is up again", || check(project.status().converged, project.status()));
    project.run(&["down"]);
    assert_eq!(notes.lines(), [up, down, up, down].concat());

    // One that need not be there is waited for where it is.
    let compose = notes.mounted_in(
        r#"
services:
  app:
    image: ${NGINX}
    depends_on: { extra: { condition: service_healthy, required: false } }
  extra:
    image: ${NGINX}
    profiles: [more]
    healthcheck: { test: ["CMD", "sh", "-c", "sleep 1"], interval: 2s, timeout: 5s }
"#,
    );
    let project = Project::new(&compose);
    project.run(&["up", "-d", "--wait"]);
    assert_eq!(project.status().replicas.len(), 1);
    project.run(&["down"]);
    project.run(&["--profile", "more", "up", "-d", "--wait"]);
    assert!(started(&project, "app") > started(&project, "extra") + jiff::Span::new().seconds(1));
}
