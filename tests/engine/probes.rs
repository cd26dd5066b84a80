//! Probes of sameport's own, for images that have no health check.

use std::time::Duration;

use sameport::api::schema::ReplicaState;

use super::support::{
    load::{self, Load},
    project::Project,
    wait::{self, check},
};

#[test]
fn a_replica_is_ready_once_its_path_says_so() {
    let project = Project::new(
        r#"
services:
  web:
    image: ${GO}
    environment: { REPLICA: "{{.Slot}}", READY_AFTER: "2" }
    ports: ["${PORT}:8080"]
    scale: 1
    x-sameport: { probe: { http: /healthz, interval: 200ms } }
"#,
    );
    project.run(&["up", "-d", "--wait"]);
    let load = Load::start(project.outside(), 100);
    let mut scale = project.start(&["scale", "web=3"]);
    wait::until("all are ready", || {
        let report = load::send(project.outside(), 20);
        let replicas = project.replicas("web");
        // Who is not ready now was not while the requests were sent.
        for replica in replicas.iter().filter(|replica| replica.state != ReplicaState::Healthy) {
            assert_eq!(report.answers.get(&replica.slot.to_string()), None, "{report}{replica:#?}");
        }
        let ready = replicas.iter().filter(|replica| replica.state == ReplicaState::Healthy).count();
        check(ready == 3, &replicas)
    });
    assert_eq!(scale.exit_code(), Some(0), "{}", scale.printed());
    let report = load.finish();
    assert!(report.failures.is_empty(), "{report}");
    project.serves(3);
    let events = project.log();
    let first = |words: &str| events.lines().position(|line| line.contains("slot=3") && line.contains(words));
    assert!(
        first("health=healthy") < first("weight=100"),
        "it is in rotation only once it is ready:\n{events}"
    );
}

/// The server hangs, as by a bug: it takes connections and answers none.
#[test]
fn a_replica_that_hangs_is_taken_out_and_comes_back() {
    let project = Project::new(
        r#"
services:
  web:
    image: ${NGINX}
    environment: { REPLICA: "{{.Slot}}", LISTEN: "" }
    ports: ["${PORT}:8080"]
    scale: 2
    x-sameport: { probe: { http: /, interval: 200ms, timeout: 300ms, failures: 2 } }
"#,
    );
    project.run(&["up", "-d", "--wait"]);
    project.serves(2);
    let signal =
        |name: &str| project.docker.run(&["exec", &format!("{}-web-2", project.name), "sh", "-c", name]);
    signal("kill -STOP $(busybox pidof nginx | tr ' ' '\\n' | sort -n | tail -1)");
    let state = |wanted: &ReplicaState| {
        let replicas = project.replicas("web");
        check(&replicas[1].state == wanted, &replicas)
    };
    wait::until("it is known to hang", || state(&ReplicaState::Unhealthy));
    std::thread::sleep(Duration::from_millis(50));
    let report = load::send(project.outside(), 40);
    assert_eq!(report.answers.keys().collect::<Vec<_>>(), ["1"], "{report}");
    signal("kill -CONT $(busybox pidof nginx | tr ' ' '\\n' | sort -n | tail -1)");
    wait::until("it is back", || state(&ReplicaState::Healthy));
    project.serves(2);
}

#[test]
fn a_port_that_takes_connections_is_enough_where_nothing_more_is_asked() {
    let project = Project::new(
        r#"
services:
  store:
    image: ${REDIS}
    environment: { REPLICA: "{{.Slot}}" }
    ports: ["${PORT}:6379"]
    scale: 2
    x-sameport: { probe: { tcp: true, interval: 200ms } }
"#,
    );
    project.run(&["up", "-d", "--wait"]);
    assert!(project.replicas("store").iter().all(|replica| replica.state == ReplicaState::Healthy));
}
