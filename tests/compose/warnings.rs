//! What a user is told about a file that can be used.

use crate::support::{Folder, assert_shown, file, gallery, service};

#[test]
fn keys_without_effect() {
    assert_shown(
        "warnings_keys_without_effect",
        &gallery([
            (
                "known keys",
                service("links: [db]\nbuild: .\nmac_address: 02:42:ac:11:65:43\npid: host\ncpu_shares: 5"),
            ),
            ("a slip", service("enviroment: {A: b}\nhealthcheck: {intervall: 5s}")),
            ("an unknown key", service("frobnicate: 1")),
            (
                "top level",
                file("version: \"3.8\"\nservices:\n  web: {image: a}\nvolume: {}\nsecrets: {a: {file: b}}\n"),
            ),
            (
                "deploy",
                service(
                    "deploy:\n  placement: {max_replicas_per_node: 1}\n  update_config: {order: start-first}\n  resources: {reservations: {cpus: 1}}",
                ),
            ),
            (
                "without the kernel",
                service(
                    "ports: [\"80:80\"]\nx-sameport:\n  sharing: application\n  balance: hash\n  drain: 30s\n  hold: 0s\n  ports: {80: exclusive}\n  probe: {tcp: true}",
                ),
            ),
            ("datagrams cannot wait", service("ports: [\"53:53/udp\"]\nx-sameport: {hold: 10s}")),
            (
                "probes without the kernel",
                service(
                    "ports: [\"80:80\"]\nx-sameport:\n  sharing: application\n  probe: {readiness: {http: /}, liveness: {exec: [\"true\"]}}",
                ),
            ),
            (
                "slips in probes",
                service("x-sameport: {probe: {exec: a, failure: 2}, replace_unhealty: false}"),
            ),
            ("a slip below a probe", service("x-sameport: {probe: {liveness: {exec: a, sucesses: 2}}}")),
            ("a tag", service("command: !vault x")),
            ("ports of the host", service("network_mode: host\nports: [\"80:80\"]")),
            ("a range for one port", service("ports: [\"8000-8003:80\"]")),
            ("two restart rules", service("restart: \"no\"\ndeploy: {restart_policy: {condition: any}}")),
            ("twice in a list", service("environment: [A=1, A=2]")),
            (
                "rights in a network that replicas share",
                service("scale: 2\nprivileged: true\ncap_add: [NET_ADMIN, CAP_net_raw, CHOWN]"),
            ),
            ("pull policy", service("pull_policy: daily")),
            (
                "a check by way of the host",
                service(
                    "ports: [\"8080:80\"]\nhealthcheck: {test: [CMD, curl, \"http://host.docker.internal:8080/\"]}",
                ),
            ),
        ]),
    );
}

#[test]
fn an_unset_variable_is_told_once_and_where() {
    assert_shown(
        "warnings_an_unset_variable_is_told_once_and_where",
        &gallery([("twice", service("command: run --tag=${TAG} --again=$TAG\nuser: \"${TAG}\""))]),
    );
}

#[test]
fn what_is_of_no_concern_is_not_told() {
    for keys in [
        "x-own: {anything: [1]}",
        "environment: {A: \"${B:-}\"}",
        "links:",
        "ports: [\"80:80\", \"80:80\"]",
        "restart: no",
        "ports: [\"53:53/udp\"]\nx-sameport: {hold: 0s}",
        "ports: [\"53:53/udp\"]\nexpose: [53]\nx-sameport: {hold: 10s}",
        "ports: [\"53:53/udp\"]",
    ] {
        assert_eq!(service(keys).messages(), "", "{keys}");
    }
}

#[test]
fn messages_travel_as_json() {
    let loaded = service("links: [db]").load().unwrap();
    let json = serde_json::to_value(&loaded.warnings).unwrap();
    let expected = serde_json::json!({"severity": "warning", "message": "`links` has no effect", "line": 4, "column": 5});
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&json[0][key], value, "{key}");
    }
    assert_eq!(json[0]["span"], serde_json::json!({"start": 38, "end": 43}));
}

#[test]
fn colour_is_only_where_it_is_asked_for() {
    let warning = &service("links: [db]").load().unwrap().warnings[0];
    assert!(warning.render(true).contains("\u{1b}["));
    assert!(!warning.render(false).contains('\u{1b}'));
}

#[test]
fn a_check_that_asks_its_own_service_by_way_of_the_host_is_told() {
    let hosts = "extra_hosts: {outside: host-gateway, other: 192.0.2.9}";
    for (ports, check, other, is_told) in [
        ("8080:80", "curl -f http://host.docker.internal:8080/", "", true),
        ("8080:80", "curl -f http://host.docker.internal:80801/", "", false),
        ("8080:80", "curl -f http://host.docker.internal:5432/", "", false),
        ("8080:80", "curl -f http://my.host.docker.internal:8080/", "", false),
        ("80:8080", "curl -f http://gateway.docker.internal/health", "", true),
        ("8080:80", "curl -f http://gateway.docker.internal/health", "", false),
        ("8080:80", "nc -z host.docker.internal 8080", "", true),
        ("8080:80", "curl -f http://outside:8080/", hosts, true),
        ("8080:80", "curl -f http://outside:8080/", "", false),
        ("8080:80", "curl -f http://other:8080/", hosts, false),
        ("8080:80", "curl -f http://192.0.2.7:8080/", "", true),
        ("8080:80", "curl -f http://192.0.2.70:8080/", "", false),
        ("8080:80", "curl -f http://[2001:db8::7]:8080/", "", true),
        ("8080:80", "curl -f http://127.0.0.1:8080/", "", false),
        ("8080:80", "curl -f http://web:80/", "", false),
    ] {
        let file = format!(
            "services:\n  web:\n    image: web\n    ports: [\"{ports}\"]\n    healthcheck: {{test: \"{check}\"}}\n    {other}\n"
        );
        let mut folder = Folder::new(&[("compose.yaml", &file)]);
        let addresses = ["127.0.0.1", "192.0.2.7", "2001:db8::7"];
        folder.options.host_addresses = addresses.map(|address| address.parse().unwrap()).to_vec();
        let told = folder.messages();
        assert_eq!(told.contains("the check goes through"), is_told, "{file}{told}");
    }
}
