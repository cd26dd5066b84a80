//! What a file means: the spec that comes out of it.

use sameport::spec::PortSet;
use serde_json::{Value, json};

use crate::support::{Folder, file, service};

fn project(folder: &Folder) -> Value {
    let loaded = folder.load().unwrap_or_else(|e| panic!("{e}"));
    serde_json::to_value(&loaded.project).unwrap()
}

fn ports(pod: &Value) -> String {
    let port = |p: &Value| {
        let text = |key: &str| p[key].as_str().map(|ip| format!("{ip}:")).unwrap_or_default();
        format!(
            "{}{}:{}/{}",
            text("host_ip"),
            p["host_port"],
            p["container_port"],
            p["protocol"].as_str().unwrap()
        )
    };
    pod["ports"].as_array().unwrap().iter().map(port).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_small_file_gets_composes_defaults() {
    let project = project(&file(
        "services:\n  web:\n    image: nginx\n    ports: [\"80:8080\"]\n    volumes: [\"data:/data\", \"/anon\"]\nvolumes: {data: }\n",
    ));
    assert_eq!(project["name"], "shop");
    let web = &project["services"]["web"];
    assert_eq!(web["replicas"], 1);
    assert_eq!(web["pod"], "web");
    assert_eq!(web["restart"]["condition"], "always");
    assert_eq!(web["stop_grace"]["secs"], 10);
    assert_eq!(web["pull_policy"], "missing");
    assert_eq!(web["container"]["mounts"][0]["source"]["volume"]["name"], "shop_data");
    assert_eq!(web["container"]["mounts"][1]["source"], "anonymous");
    assert_eq!(project["networks"]["default"]["name"], "shop_default");
    assert_eq!(project["volumes"]["data"]["name"], "shop_data");
    assert_eq!(ports(&project["pods"]["web"]), "80:8080/tcp");
}

#[test]
fn ports_are_spelled_out() {
    for (written, expected) in [
        ("\"8080\"", "null:8080/tcp"),
        ("8080", "null:8080/tcp"),
        ("\"127.0.0.1:80:8080/udp\"", "127.0.0.1:80:8080/udp"),
        ("\"3000-3002:4000-4002\"", "3000:4000/tcp 3001:4001/tcp 3002:4002/tcp"),
        ("\"[::1]:80:80\"", "::1:80:80/tcp"),
        ("\"8000-8999:80\"", "8000:80/tcp"),
        ("\"8000:1\", \"8000-8999:80\"", "8000:1/tcp 8001:80/tcp"),
        ("{target: 80, published: \"8080\", host_ip: 10.0.0.1, protocol: sctp}", "10.0.0.1:8080:80/sctp"),
        ("\"80:80\", \"80:80\", \"80:80/udp\"", "80:80/tcp 80:80/udp"),
    ] {
        let project = project(&service(&format!("ports: [{written}]")));
        assert_eq!(ports(&project["pods"]["web"]), expected, "{written}");
    }
}

#[test]
fn restart_rules() {
    for (written, condition, attempts) in [
        ("restart: \"no\"", "never", Value::Null),
        ("restart: no", "never", Value::Null),
        ("restart: always", "always", Value::Null),
        ("restart: unless-stopped", "always", Value::Null),
        ("restart: on-failure", "on_failure", Value::Null),
        ("restart: on-failure:3", "on_failure", json!(3)),
        ("deploy: {restart_policy: {condition: none}}", "never", Value::Null),
        ("deploy: {restart_policy: {condition: on-failure, max_attempts: 5}}", "on_failure", json!(5)),
        ("deploy: {restart_policy: {delay: 5s}}", "always", Value::Null),
    ] {
        let restart = project(&service(written))["services"]["web"]["restart"].clone();
        assert_eq!(
            (restart["condition"].as_str(), &restart["max_attempts"]),
            (Some(condition), &attempts),
            "{written}"
        );
    }
}

#[test]
fn a_service_that_others_wait_for_to_end_may_end() {
    let project = project(&file(
        "services:\n  web:\n    image: a\n    depends_on:\n      job: {condition: service_completed_successfully}\n  job: {image: b}\n",
    ));
    assert_eq!(project["services"]["job"]["restart"]["condition"], "on_failure");
    assert_eq!(project["services"]["web"]["depends_on"]["job"]["condition"], "completed_successfully");
}

#[test]
fn limits_have_two_names() {
    for written in [
        "mem_limit: 1g\ncpus: 1.5\npids_limit: 9",
        "deploy: {resources: {limits: {memory: 1024m, cpus: \"1.5\", pids: 9}}}",
        "mem_limit: 1g\ncpus: 1.5\npids_limit: 9\ndeploy: {resources: {limits: {memory: 1024m, cpus: \"1.50\", pids: 9}}}",
    ] {
        let resources = project(&service(written))["services"]["web"]["container"]["resources"].clone();
        let found = [&resources["memory"], &resources["nano_cpus"], &resources["pids"]];
        assert_eq!(found, [&json!(1_u64 << 30), &json!(1_500_000_000_u64), &json!(9)], "{written}");
    }
}

#[test]
fn commands_are_lists_lines_or_nothing() {
    for (written, command) in [
        ("command: [a, \"b c\"]", json!(["a", "b c"])),
        ("command: a 'b c' $$X", json!(["a", "b c", "$X"])),
        ("command: []", json!([])),
        ("command:", Value::Null),
        ("tty: true", Value::Null),
    ] {
        assert_eq!(
            project(&service(written))["services"]["web"]["container"]["command"],
            command,
            "{written}"
        );
    }
}

#[test]
fn health_tests() {
    for (written, test) in [
        ("test: curl x", json!({"shell": "curl x"})),
        ("test: [CMD, a, b]", json!({"cmd": ["a", "b"]})),
        ("test: [CMD-SHELL, a b]", json!({"shell": "a b"})),
        ("test: [NONE]", json!("none")),
        ("disable: true", json!("none")),
        ("interval: 5s", json!("inherit")),
    ] {
        let found = project(&service(&format!("healthcheck: {{{written}}}")));
        assert_eq!(found["services"]["web"]["container"]["healthcheck"]["test"], test, "{written}");
    }
}

#[test]
fn templates_stay_as_they_are() {
    let project = project(&file(
        "services:\n  web:\n    image: a\n    environment: {N: \"{{.Slot}} {{.Node.ID}}\"}\n    labels: {n: \"{{.Replica}}\"}\n    volumes: [\"data-{{.Slot}}:/data\", \"other:/other\"]\nvolumes:\n  data-{{.Slot}}:\n  other: {name: \"o-{{.Slot}}\"}\n",
    ));
    let web = &project["services"]["web"]["container"];
    assert_eq!(web["environment"]["N"], "{{.Slot}} {{.Node.ID}}");
    assert_eq!(web["labels"]["n"], "{{.Replica}}");
    assert_eq!(web["mounts"][0]["source"]["volume"]["name"], "shop_data-{{.Slot}}");
    assert_eq!(web["mounts"][1]["source"]["volume"]["name"], "o-{{.Slot}}");
}

#[test]
fn services_of_one_pod_share_its_network() {
    let project = project(&file(
        "services:\n  web:\n    image: a\n    ports: [\"80:8080\", \"81:81\"]\n    hostname: shop\n    networks: {front: {aliases: [www]}}\n    x-sameport: {pod: p}\n  metrics:\n    image: b\n    ports: [\"81:81\", \"9100:9100\"]\n    networks: {front: {aliases: [m]}, back: }\n    x-sameport: {pod: p}\n  alone: {image: c}\nnetworks: {front: , back: , unused: }\n",
    ));
    assert_eq!(project["pods"].as_object().unwrap().len(), 2);
    let pod = &project["pods"]["p"];
    assert_eq!(ports(pod), "81:81/tcp 9100:9100/tcp 80:8080/tcp");
    assert_eq!(pod["hostname"], "shop");
    assert_eq!(pod["network"]["networks"]["front"]["aliases"], json!(["m", "www"]));
    let networks: Vec<_> = project["networks"].as_object().unwrap().keys().collect();
    assert_eq!(networks, ["back", "default", "front"]);
}

#[test]
fn another_order_in_the_file_is_the_same_project() {
    let web = "  web: {image: a, ports: [\"80:80\", \"81:81\"], networks: {n: {aliases: [x, y]}}, x-sameport: {pod: p}}\n";
    let web_turned = "  web: {ports: [\"81:81\", \"80:80\"], x-sameport: {pod: p}, networks: {n: {aliases: [y, x]}}, image: a}\n";
    let db = "  db: {image: b, networks: [n], ports: [\"81:81\"], x-sameport: {pod: p}}\n";
    let first = project(&file(&format!("services:\n{web}{db}networks: {{n: }}\n")));
    let second = project(&file(&format!("networks: {{n: }}\nservices:\n{db}{web_turned}")));
    assert_eq!(first, second);
}

#[test]
fn network_modes() {
    for (written, network) in [
        ("network_mode: host", json!("host")),
        ("network_mode: none", json!("none")),
        ("network_mode: bridge", json!("bridge")),
        ("networks: []", json!("none")),
    ] {
        let project = project(&service(written));
        assert_eq!(project["pods"]["web"]["network"], network, "{written}");
        assert_eq!(project["networks"], json!({}), "{written}");
    }
}

#[test]
fn who_joins_the_network_of_a_service_is_in_its_pod() {
    let project = project(&file(
        "services:\n  web: {image: a, networks: [front], ports: [\"80:80\"], hostname: box}\n  \
         proxy: {image: b, network_mode: \"service:web\", expose: [81]}\n  \
         shell: {image: c, network_mode: \"service:proxy\", depends_on: [web]}\nnetworks: {front: }\n",
    ));
    assert_eq!(project["pods"].as_object().unwrap().keys().collect::<Vec<_>>(), ["web"]);
    for service in ["web", "proxy", "shell"] {
        assert_eq!(project["services"][service]["pod"], "web");
    }
    let networks = &project["pods"]["web"]["network"]["networks"];
    assert_eq!(
        networks.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["front"],
        "not the default one as well"
    );
    assert_eq!(project["pods"]["web"]["expose"], json!([[81, "tcp"]]));
    let waits_for = |service: &str| project["services"][service]["depends_on"].as_object().unwrap().clone();
    assert_eq!(waits_for("proxy").keys().collect::<Vec<_>>(), ["web"]);
    assert_eq!(waits_for("shell").keys().collect::<Vec<_>>(), ["proxy", "web"]);
}

#[test]
fn shared_memory_belongs_to_the_sandbox_where_there_is_one() {
    let sized = |keys: &str| {
        let project = project(&service(keys));
        (
            project["pods"]["web"]["shm_size"].clone(),
            project["services"]["web"]["container"]["resources"]["shm_size"].clone(),
        )
    };
    assert_eq!(sized("shm_size: 1m"), (json!(1 << 20), Value::Null));
    assert_eq!(sized("shm_size: 1m\nnetwork_mode: host"), (json!(1 << 20), json!(1 << 20)));
}

#[test]
fn each_replica_has_its_own_ipc_namespace_unless_the_file_says_otherwise() {
    let web = |ipc: &str, pod: &str| {
        let project = project(&file(&format!(
            "services:\n  web: {{image: a, {ipc}x-sameport: {{pod: {pod}}}}}\n  side: {{image: b, network_mode: \"service:web\"}}\n"
        )));
        project["services"]["web"]["container"]["ipc"].clone()
    };
    for (ipc, in_own_pod) in [
        ("", Value::Null),
        ("ipc: private, ", Value::Null),
        ("ipc: shareable, ", json!("pod")),
        ("ipc: \"service:side\", ", json!("pod")),
        ("ipc: host, ", json!("host")),
    ] {
        assert_eq!(web(ipc, "web"), in_own_pod, "{ipc}");
    }
    // In a pod with a name of its own that of the pod is what is not said.
    for (ipc, in_named_pod) in
        [("", Value::Null), ("ipc: private, ", json!("own")), ("ipc: shareable, ", Value::Null)]
    {
        assert_eq!(web(ipc, "shared"), in_named_pod, "{ipc}");
    }
}

#[test]
fn external_networks_and_volumes_keep_their_names() {
    let project = project(&file(
        "services:\n  web: {image: a, networks: [a, b, c], volumes: [\"v:/v\"]}\nnetworks:\n  a: {external: true}\n  b: {external: true, name: other}\n  c: {external: {name: old}}\nvolumes:\n  v: {external: true}\n",
    ));
    for (key, name) in [("a", "a"), ("b", "other"), ("c", "old")] {
        assert_eq!(project["networks"][key]["name"], name);
        assert_eq!(project["networks"][key]["external"], true, "{key}");
    }
    assert_eq!(project["volumes"]["v"]["name"], "v");
}

#[test]
fn short_binds_make_folders_and_long_ones_do_not() {
    let project = project(&service(
        "volumes:\n  - /a:/a\n  - {type: bind, source: /b, target: /b}\n  - {type: bind, source: /c, target: /c, bind: {create_host_path: true}}",
    ));
    let made: Vec<_> = project["services"]["web"]["container"]["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| mount["source"]["bind"]["create"].as_bool().unwrap())
        .collect();
    assert_eq!(made, [true, false, true]);
}

#[test]
fn health_checks_have_all_their_fields() {
    let written = "healthcheck: {test: [CMD, a], interval: 1m30s, timeout: 10s, retries: 3, start_period: 40s, start_interval: 5s}";
    let found = project(&service(written));
    let second = |secs: u32| json!({"secs": secs, "nanos": 0});
    assert_eq!(
        found["services"]["web"]["container"]["healthcheck"],
        json!({
            "test": {"cmd": ["a"]}, "interval": second(90), "timeout": second(10), "retries": 3,
            "start_period": second(40), "start_interval": second(5),
        })
    );
}

#[test]
fn probes() {
    let of = |written: &str| {
        let found = project(&service(&format!("ports: [\"80:80\"]\nx-sameport: {{probe: {written}}}")));
        found["services"]["web"]["probe"].clone()
    };
    let second = |secs: u32| json!({"secs": secs, "nanos": 0});
    let probe = |kind: serde_json::Value| {
        json!({
            "kind": kind, "port": null, "interval": second(2), "timeout": second(1), "failures": 3, "successes": 1,
            "start_period": null,
        })
    };
    let flat = of(
        "{http: /healthz, port: 8080, interval: 5s, timeout: 3s, failures: 4, successes: 2, start_period: 1m}",
    );
    assert_eq!(
        flat,
        json!({
            "startup": null, "liveness": null,
            "readiness": {
                "kind": {"http": {"path": "/healthz"}}, "port": 8080, "interval": second(5), "timeout": second(3),
                "failures": 4, "successes": 2, "start_period": second(60),
            },
        })
    );
    for (written, kind) in [
        ("{tcp: true}", json!("tcp")),
        ("{exec: [a, b c]}", json!({"exec": {"command": ["a", "b c"]}})),
        ("{exec: a | b}", json!({"exec": {"command": ["/bin/sh", "-c", "a | b"]}})),
    ] {
        assert_eq!(of(written)["readiness"], probe(kind), "{written}");
    }
    assert_eq!(of("{tcp: 81}")["readiness"]["port"], 81);
    let all = of("{startup: {exec: a}, readiness: {http: /}, liveness: {tcp: true}}");
    assert_eq!(all["startup"]["kind"], json!({"exec": {"command": ["/bin/sh", "-c", "a"]}}));
    assert_eq!(all["readiness"]["kind"], json!({"http": {"path": "/"}}));
    assert_eq!(all["liveness"], probe(json!("tcp")));
}

#[test]
fn whoever_is_unhealthy_is_replaced_unless_the_file_says_no() {
    for (written, wanted) in
        [("{}", "replace"), ("{replace_unhealthy: true}", "replace"), ("{replace_unhealthy: false}", "keep")]
    {
        let found = project(&service(&format!("x-sameport: {written}")));
        assert_eq!(found["services"]["web"]["unhealthy"], wanted, "{written}");
    }
}

/// The exclusive and the shared ports of `web`, as ranges.
fn sharing_of(folder: &Folder) -> (String, String) {
    let project = folder.load().unwrap_or_else(|e| panic!("{e}")).project;
    let web = &project.services[&"web".parse().unwrap()];
    let shown = |ports: &PortSet| ports.ranges().map(|range| range.to_string()).collect::<Vec<_>>().join(" ");
    (shown(&web.exclusive_ports), shown(&web.shared_ports))
}

#[test]
fn published_ranges_of_container_ports_are_exclusive_and_all_others_are_shared() {
    for (written, exclusive) in [
        ("\"8080\"", ""),
        ("\"80:8080\", \"443\"", ""),
        ("\"30000-30009:30000-30009\"", "30000-30009/tcp"),
        ("\"30000-30009\"", "30000-30009/tcp"),
        ("\"127.0.0.1:30000-30001:40000-40001/udp\"", "40000-40001/udp"),
        ("\"8000-8002:80\"", ""),
        ("\"3000-3000:3000-3000\"", ""),
        ("\"3000-3001:3000-3001/sctp\"", ""),
        ("{target: 40000-40002, published: 30000-30002, protocol: udp}", "40000-40002/udp"),
        ("{target: 80, published: 8000-8002}", ""),
        ("\"9:5\", \"1-4:1-4\", \"15-18:5-8\", \"1-2:1-2/udp\"", "1-8/tcp 1-2/udp"),
    ] {
        let folder = service(&format!("ports: [{written}]"));
        assert_eq!(sharing_of(&folder), (exclusive.to_owned(), String::new()), "{written}");
    }
    assert_eq!(sharing_of(&service("expose: [\"30000-30009\"]")).0, "", "these are not published");
}

#[test]
fn the_extension_decides_about_ports_otherwise() {
    let ports = "ports: [\"30000-30009:30000-30009\", \"80:8080\"]\nx-sameport:";
    for (written, exclusive, shared) in [
        ("{ports: {}}", "30000-30009/tcp", ""),
        ("{ports: }", "30000-30009/tcp", ""),
        ("{ports: {8080: shared}}", "30000-30009/tcp", "8080/tcp 8080/udp"),
        ("{ports: {\"30000-65535\": shared}}", "", "30000-65535/tcp 30000-65535/udp"),
        ("{ports: {30004/tcp: shared}}", "30000-30003/tcp 30005-30009/tcp", "30004/tcp"),
        ("{ports: {30004/udp: shared}}", "30000-30009/tcp", "30004/udp"),
        (
            "{ports: {53/udp: exclusive, 9000-9001: exclusive}}",
            "9000-9001/tcp 30000-30009/tcp 53/udp 9000-9001/udp",
            "",
        ),
        ("{ports: {1-9/tcp: exclusive, 5-20/TCP: exclusive}}", "1-20/tcp 30000-30009/tcp", ""),
        ("{ports: {1-65535: \"exclusive\"}}", "1-65535/tcp 1-65535/udp", ""),
    ] {
        let folder = service(&format!("{ports} {written}"));
        assert_eq!(folder.messages(), "", "{written}");
        assert_eq!(sharing_of(&folder), (exclusive.to_owned(), shared.to_owned()), "{written}");
    }
}

#[test]
fn what_is_said_about_ports_changes_no_version_and_no_pod() {
    let hashes = |extension: &str| {
        let folder = service(&format!("ports: [\"80:80\"]\nx-sameport: {extension}"));
        let project = folder.load().unwrap_or_else(|e| panic!("{e}")).project;
        let web = &project.services[&"web".parse().unwrap()];
        (web.generation(), web.declared(), project.pods[&web.pod].generation())
    };
    let before = hashes("{}");
    for extension in ["{ports: {80: exclusive}}", "{ports: {80: shared, 9000-9001: exclusive}}"] {
        assert_eq!(hashes(extension), before, "{extension}");
    }
}

#[test]
fn the_resolved_file_says_the_same_about_ports() {
    let folder = Folder::new(&[
        (
            "compose.yaml",
            "services: {web: {image: a, x-sameport: {ports: {8080: shared, 9000-9001/udp: exclusive}}}}",
        ),
        ("compose.override.yaml", "services: {web: {x-sameport: {ports: {8080: exclusive}}}}"),
    ]);
    let loaded = folder.load().unwrap_or_else(|e| panic!("{e}"));
    assert!(
        loaded
            .rendered
            .contains("ports:\n        \"8080\": exclusive\n        \"9000-9001/udp\": exclusive\n"),
        "{}",
        loaded.rendered
    );
    assert_eq!(sharing_of(&file(&loaded.rendered)), sharing_of(&folder));
}
