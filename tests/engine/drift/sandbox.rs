//! A sandbox: its networks, names and addresses, published ports, settings.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::Value;

use super::{
    super::support::{
        images,
        made::Made,
        project::Project,
        wait::{self, check},
    },
    Frozen, events, is_converged, name,
};

/// The addresses of a network that no other test has.
fn subnet() -> String {
    static NETWORKS: AtomicU32 = AtomicU32::new(0);
    let number = std::process::id().wrapping_mul(8) + NETWORKS.fetch_add(1, Ordering::Relaxed);
    let [.., high, low] = number.to_be_bytes();
    format!("10.{}.{low}", 128 + high % 100)
}

/// A pod in two networks, in one of which it has an address of its own.
fn connected(subnet: &str) -> Project {
    let project = Project::new(&format!(
        r#"
services:
  web:
    image: ${{NGINX}}
    environment: {{ REPLICA: "{{{{.Slot}}}}" }}
    ports: ["${{PORT}}:8080"]
    networks: {{ front: {{ priority: 1 }}, back: {{ ipv4_address: {subnet}.10 }} }}
    deploy: {{ replicas: 2 }}
networks:
  front: {{}}
  back: {{ ipam: {{ config: [{{ subnet: {subnet}.0/24 }}] }} }}
"#
    ));
    project.run(&["up", "-d", "--wait"]);
    project.serves(2);
    project
}

fn endpoint(project: &Project, network: &str) -> Value {
    let network = format!("{}_{network}", project.name);
    project.docker.inspect(&name(project, "web-sandbox"))["NetworkSettings"]["Networks"][&network].take()
}

/// Whether the pod is known by its name in a network.
fn is_named(project: &Project, network: &str) -> Result<(), String> {
    let found = endpoint(project, network);
    let aliases = found["Aliases"].as_array();
    check(aliases.is_some_and(|aliases| aliases.contains(&"web".into())), &found)
}

fn has_address(project: &Project, address: &str) -> Result<(), String> {
    let found = endpoint(project, "back");
    check(found["IPAddress"] == address, &found)
}

/// Takes the pod off a network, and connects it by hand.
fn reconnect(project: &Project, network: &str, args: &[&str]) {
    let (network, sandbox) = (format!("{}_{network}", project.name), name(project, "web-sandbox"));
    project.docker.run(&["network", "disconnect", &network, &sandbox]);
    project.docker.run(&[&["network", "connect"], args, &[&network, &sandbox]].concat());
}

#[test]
fn the_connections_of_a_sandbox_are_mended_in_place() {
    let subnet = subnet();
    let project = connected(&subnet);
    let (own, other) = (format!("{subnet}.10"), format!("{subnet}.77"));
    let before = project.processes();
    let sandbox = name(&project, "web-sandbox");
    type Row<'a> = (&'a str, &'a dyn Fn(), &'a dyn Fn() -> Result<(), String>);
    let rows: [Row<'_>; 4] = [
        (
            "it is taken off the network by which its ports are published",
            &|| {
                let network = format!("{}_front", project.name);
                drop(project.docker.run(&["network", "disconnect", &network, &sandbox]));
            },
            &|| is_named(&project, "front"),
        ),
        (
            "it is taken off another network",
            &|| {
                let network = format!("{}_back", project.name);
                drop(project.docker.run(&["network", "disconnect", &network, &sandbox]));
            },
            &|| is_named(&project, "back").and_then(|()| has_address(&project, &own)),
        ),
        ("none of its names is known", &|| reconnect(&project, "front", &[]), &|| {
            is_named(&project, "front")
        }),
        (
            "it has another address",
            &|| reconnect(&project, "back", &["--ip", &other, "--alias", "web"]),
            &|| has_address(&project, &own),
        ),
    ];
    for (case, make, is_mended) in rows {
        let frozen = Frozen::supervisor(&project);
        make();
        assert!(is_mended().is_err(), "{case}: it is made");
        drop(frozen);
        wait::until(case, is_mended);
        is_converged(&project);
        project.serves(2);
        assert_eq!(project.processes(), before, "{case}: nothing was replaced for it");
    }
    let networks: Vec<_> =
        events(&project, "pod_disconnected").iter().map(|event| event["network"].clone()).collect();
    assert_eq!(networks, ["front", "back"].map(|network| format!("{}_{network}", project.name)));

    // What has put it right once does so again.
    for (network, args, is_mended) in [
        ("front", &[][..], &(|| is_named(&project, "front")) as &dyn Fn() -> Result<(), String>),
        ("back", &["--ip", &other, "--alias", "web"], &|| has_address(&project, &own)),
    ] {
        let frozen = Frozen::supervisor(&project);
        reconnect(&project, network, args);
        assert!(is_mended().is_err(), "{network}: it is made once more");
        drop(frozen);
        wait::until(network, is_mended);
        is_converged(&project);
    }
    project.serves(2);
    assert_eq!(project.processes(), before, "nothing was replaced for it");
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn a_port_that_another_program_takes_meanwhile_is_published_again_once_it_is_free() {
    let project = Project::web(2);
    let engine = project.docker.run(&["version", "--format", "{{.Server.Version}}"]);
    if engine.starts_with("20.") {
        eprintln!(
            "left out: Engine {engine} leaves an interface behind when it cannot publish, and connects no more"
        );
        return;
    }
    project.run(&["up", "-d", "--wait"]);
    project.serves(2);
    let before = project.processes();
    let frozen = Frozen::supervisor(&project);
    let network = format!("{}_default", project.name);
    project.docker.run(&["network", "disconnect", &network, &name(&project, "web-sandbox")]);
    let other = wait::until("the port is free", || {
        TcpListener::bind(("0.0.0.0", project.port)).map_err(|error| error.to_string())
    });
    drop(frozen);
    wait::until("it is told, and tried again", || {
        let errors = project.status().errors;
        let told = errors.iter().any(|error| {
            error.error.contains("already in use") && error.attempts.is_some_and(|attempts| attempts >= 4)
        });
        check(told, errors)
    });
    assert_eq!(project.processes(), before, "nothing is replaced for it");
    drop(other);
    project.serves(2);
    is_converged(&project);
    assert_eq!(project.processes(), before, "nothing was replaced for it");
}

/// A new sandbox could not have it, either.
#[test]
fn a_fixed_address_that_another_container_takes_meanwhile_is_the_pods_again_once_it_is_free() {
    let subnet = subnet();
    let project = connected(&subnet);
    let before = project.processes();
    let sandbox = name(&project, "web-sandbox");
    let network = format!("{}_back", project.name);
    let frozen = Frozen::supervisor(&project);
    project.docker.run(&["network", "disconnect", &network, &sandbox]);
    let (ip, image) = (format!("{subnet}.10"), images::build("nginx"));
    let thief = name(&project, "thief");
    let thief = Made::container(&project.docker, &thief, &["--network", &network, "--ip", &ip, &image]);
    drop(frozen);
    wait::until("it is told, and tried again", || {
        let errors = project.status().errors;
        let told = errors.iter().any(|error| {
            error.error.contains("already in use") && error.attempts.is_some_and(|attempts| attempts >= 4)
        });
        check(told, errors)
    });
    assert_eq!(project.processes(), before, "nothing is replaced for it");
    drop(thief);
    wait::until("it is connected again", || has_address(&project, &ip));
    project.serves(2);
    is_converged(&project);
    assert_eq!(project.processes(), before, "nothing was replaced for it");
}

#[test]
fn another_port_in_the_file_is_only_told_until_the_pod_is_to_be_made_anew() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    project.serves(2);
    let before = project.processes();
    let compose = super::super::support::project::web(2);
    project.write(&compose.replace("    deploy:", "    hostname: elsewhere\n    deploy:"));
    let up = project.try_run(&["up", "-d"]);
    assert!(format!("{}{}", up.stdout, up.stderr).contains("--recreate-pod"), "{up:#?}");
    wait::until("it is told", || {
        let status = project.status();
        let told = status
            .errors
            .iter()
            .any(|error| error.help.as_ref().is_some_and(|help| help.contains("sameport up --recreate-pod")));
        check(told, status)
    });
    project.serves(2);
    assert_eq!(project.processes(), before, "nothing is replaced for it");
    project.run(&["up", "-d", "--wait", "--recreate-pod"]);
    project.serves(2);
    is_converged(&project);
    let after = project.processes();
    assert!(after.len() == 3 && after.iter().all(|process| !before.contains(process)), "{after:?}");
    let hostname = project.docker.inspect(&name(&project, "web-sandbox"))["Config"]["Hostname"].take();
    assert_eq!(hostname, "elsewhere");
}

#[test]
fn the_loss_of_a_pod_is_told() {
    let project = Project::web(1);
    project.run(&["up", "-d", "--wait"]);
    let before = project.processes();
    project.docker.run(&["kill", &name(&project, "web-sandbox")]);
    wait::until("the pod is rebuilt", || {
        let after = project.processes();
        check(after.len() == 2 && after.iter().all(|process| !before.contains(process)), after)
    });
    let lost = events(&project, "pod_lost");
    assert!(lost.len() == 1 && lost[0]["pod"] == "web", "{lost:?}");
}
