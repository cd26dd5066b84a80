//! Images that do not share their port, where it is up to them.

use super::support::{
    load,
    project::Project,
    wait::{self, check},
};
use sameport::api::schema::ReplicaState;

/// The first replica serves on, the others are shown for what they are, and the user is told what to do: once.
fn says_so(service: &str, compose: &str, how: &str) {
    let project = Project::new(compose);
    let up = project.try_run(&["up", "-d", "--wait"]);
    let message = format!("{}{}", up.stdout, up.stderr);
    let image = project.docker.inspect(&format!("{}-{service}-1", project.name))["Config"]["Image"].take();
    for word in [image.as_str().unwrap(), "8080", "SO_REUSEPORT", how] {
        assert!(message.contains(word), "no `{word}` in:\n{message}");
    }
    assert_eq!(message.matches("listen 8080 reuseport").count(), 1, "the how-to is printed once:\n{message}");

    wait::until("one replica runs and the others are known to fail", || {
        let replicas = project.replicas(service);
        let up = replicas.iter().filter(|r| r.state.is_up()).count();
        let down = replicas
            .iter()
            .filter(|r| matches!(r.state, ReplicaState::Restarting { .. } | ReplicaState::Failed { .. }))
            .count();
        check(up == 1 && down == 2, &replicas)
    });
    wait::until("the table tells why, of both", || {
        let table = project.run(&["ps"]);
        check(table.matches("is not shared by its image").count() == 2, table)
    });
    let report = load::send(project.loopback(), 50);
    assert_eq!((report.answered(), report.answers.len()), (50, 1), "{report}");
}

#[test]
fn nginx_without_reuseport() {
    says_so(
        "web",
        r#"
services:
  web:
    image: ${NGINX}
    environment: { REPLICA: "{{.Slot}}", LISTEN: "" }
    ports: ["${PORT}:8080"]
    deploy: { replicas: 3 }
    x-sameport: { sharing: application }
"#,
        "reuseport",
    );
}

#[test]
fn node() {
    says_so(
        "app",
        r#"
services:
  app:
    image: ${NODE}
    environment: { REPLICA: "{{.Slot}}" }
    ports: ["${PORT}:8080"]
    deploy: { replicas: 3 }
    x-sameport: { sharing: application }
"#,
        "reusePort",
    );
}
