//! A server that attaches a program of its own, which chooses among the sockets of its port.

use std::collections::BTreeSet;

use super::{
    super::support::{
        load,
        wait::{self, check},
    },
    up,
};

/// nginx with `quic_bpf`: each replica attaches its program to the port that all share. They start and serve, and it is told who
/// did it.
#[test]
fn nginx_with_a_program_of_its_own_starts_and_is_named() {
    let project = up(r#"
services:
  web:
    image: ${NGINX_QUIC}
    cap_add: [NET_ADMIN, SYS_ADMIN]
    environment: { REPLICA: "{{.Slot}}" }
    ports: ["${PORT}:8080", "8443/udp"]
    deploy: { replicas: 2 }
"#);
    let report = load::one_by_one(40, || load::request(project.loopback()));
    assert_eq!(report.answered(), 40, "{report}");
    assert_eq!(report.answers.len(), 2, "{report}");
    wait::until("it is told who attached a program", || {
        let events = project.run(&["events", "--no-follow"]);
        let told: BTreeSet<_> = events.lines().filter(|line| line.contains("8443/udp: ignored")).collect();
        check(["web-1", "web-2"].iter().all(|name| told.iter().any(|line| line.contains(name))), &events)
    });
}
