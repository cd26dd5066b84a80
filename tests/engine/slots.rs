//! A replica's own values.

use super::support::project::Project;

#[test]
fn environment_labels_and_volumes_can_be_the_replicas_own() {
    let project = Project::new(
        r#"
services:
  worker:
    image: ${NGINX}
    command: ["sh", "-c", "echo $$WHO >> /data/visitors; while :; do sleep 1; done"]
    stop_grace_period: 0s
    environment: { WHO: "worker {{.Slot}}", OTHER: "{{.Replica}}" }
    labels: { com.example.shard: "shard-{{.Slot}}" }
    volumes: ["data-{{.Slot}}:/data", "common:/common"]
    scale: 2
volumes:
  "data-{{.Slot}}":
  common:
"#,
    );
    project.run(&["up", "-d", "--wait"]);
    for slot in ["1", "2"] {
        let name = format!("{}-worker-{slot}", project.name);
        let container = project.docker.inspect(&name);
        let environment = container["Config"]["Env"].to_string();
        assert!(environment.contains(&format!("WHO=worker {slot}")), "{environment}");
        assert!(environment.contains(&format!("OTHER={slot}")), "{environment}");
        assert_eq!(container["Config"]["Labels"]["com.example.shard"], format!("shard-{slot}"));
        let volumes: Vec<_> =
            container["Mounts"].as_array().unwrap().iter().filter_map(|m| m["Name"].as_str()).collect();
        let own = format!("{}_data-{slot}", project.name);
        assert!(volumes.contains(&own.as_str()), "{volumes:?}");
        assert!(volumes.contains(&format!("{}_common", project.name).as_str()), "{volumes:?}");
    }

    // The data of a replica outlives its container, and goes with `down -v` only.
    project.run(&["down"]);
    project.run(&["up", "-d", "--wait"]);
    let visitors =
        project.docker.run(&["exec", &format!("{}-worker-2", project.name), "cat", "/data/visitors"]);
    assert_eq!(visitors, "worker 2\nworker 2");
    project.run(&["down", "-v"]);
    assert_eq!(project.leftovers(), Vec::<String>::new());
}
