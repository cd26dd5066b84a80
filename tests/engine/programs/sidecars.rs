//! A service that reaches another one of the same pod on localhost.

use std::{collections::BTreeSet, thread, time::Duration};

use sameport::api::schema::ReplicaState;

use super::{
    super::support::{
        load::{self, Load},
        project::Project,
        wait::{self, check},
    },
    Lone, asked, container,
    stack::asked_itself,
    up, within,
};

/// How a sidecar comes into a pod: what the service says, and what the sidecar does.
const BY_POD: [&str; 2] = ["x-sameport: { pod: shop }"; 2];
const BY_NETWORK_MODE: [&str; 2] = ["", "network_mode: service:web"];

/// Replicas of Go on localhost, beside as many of a sidecar in the same pod.
fn with_sidecars([service, sidecar]: [&str; 2]) -> Project {
    up(&format!(
        r#"
services:
  web:
    image: ${{GO}}
    environment: {{ REPLICA: "{{{{.Slot}}}}", ADDRESS: "127.0.0.1:8080" }}
    expose: [8080]
    {service}
    deploy: {{ replicas: 3 }}
  sidecar:
    image: ${{GO}}
    command: [sleep, infinity]
    init: true
    {sidecar}
    deploy: {{ replicas: 3 }}
"#
    ))
}

/// Each sidecar reaches the server of its own slot.
fn reach_their_own(project: &Project) {
    for slot in 1..=3 {
        let line = "for i in 0 1 2 3 4 5 6 7 8 9; do wget -qO- http://127.0.0.1:8080/; done";
        let answers = within(project, "sidecar", slot, line);
        assert_eq!(answers, vec![format!("replica {slot}"); 10], "sidecar-{slot}");
    }
}

#[test]
fn a_sidecar_reaches_the_server_on_localhost_of_its_own_slot() {
    reach_their_own(&with_sidecars(BY_POD));
}

#[test]
fn who_joins_the_network_of_a_service_reaches_its_replica_of_the_same_slot() {
    let project = with_sidecars(BY_NETWORK_MODE);
    reach_their_own(&project);
    // A new version of the service takes neither its network nor the sidecars away.
    let before: Vec<_> = project.replicas("sidecar").into_iter().map(|replica| replica.id).collect();
    project.run(&["restart", "web"]);
    reach_their_own(&project);
    let after: Vec<_> = project.replicas("sidecar").into_iter().map(|replica| replica.id).collect();
    assert_eq!(before, after);
}

/// What the container of nginx does, and the one of gunicorn.
const PROXY: &str =
    "sed s/@REPLICA@/$REPLICA/ /nginx.conf >/tmp/nginx.conf && exec nginx -c /tmp/nginx.conf -e stderr";
const APP: &str =
    "exec python3 -m gunicorn --chdir / --bind 127.0.0.1:9000 --worker-tmp-dir /dev/shm app:app";

/// Replicas of nginx that have the published port, in one pod with those of a gunicorn that listens on 127.0.0.1 alone.
fn proxied(proxies: u32, apps: u32) -> String {
    let proxy = PROXY.replace('$', "$$");
    format!(
        r#"
services:
  proxy:
    image: ${{GUNICORN}}
    command: [sh, -c, "{proxy}"]
    environment: {{ REPLICA: "{{{{.Slot}}}}" }}
    stop_signal: SIGQUIT
    ports: ["${{PORT}}:80"]
    healthcheck: {{ test: "wget -qO- http://127.0.0.1/", interval: 500ms, retries: 40 }}
    x-sameport: {{ pod: shop }}
    deploy: {{ replicas: {proxies} }}
  app:
    image: ${{GUNICORN}}
    command: [sh, -c, "{APP}"]
    environment: {{ REPLICA: "{{{{.Slot}}}}" }}
    healthcheck: {{ test: "wget -qO- http://127.0.0.1:9000/", interval: 500ms, retries: 40 }}
    x-sameport: {{ pod: shop }}
    deploy: {{ replicas: {apps} }}
"#
    )
}

fn names(slots: u32) -> BTreeSet<String> {
    (1..=slots).map(|slot| slot.to_string()).collect()
}

/// So many requests, none of which fails; each proxy has asked the server of its own slot. As long as that is not known to
/// listen, which may take a moment on a busy machine, it asks others.
fn pairs_answer(project: &Project, slots: u32) {
    wait::until("each proxy asks the server of its own slot", || {
        let report = load::one_by_one(30, || load::request(project.loopback()));
        check(asked(&report).iter().all(|(proxy, app)| proxy == app), report.to_string())
    });
    let report = load::one_by_one(300, || load::request(project.loopback()));
    assert_eq!(report.answered(), 300, "{report}");
    assert_eq!(asked_itself(&report), names(slots), "{report}");
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn a_proxy_in_front_asks_the_server_on_localhost_of_its_own_slot() {
    // How it is with a container that joins the network of another one.
    let app = Lone::run("gunicorn", &["-e", "REPLICA=1"], &["sh", "-c", APP]);
    let network = format!("container:{}", app.name);
    let proxy = Lone::run("gunicorn", &["-e", "REPLICA=1", "--network", &network], &["sh", "-c", PROXY]);
    proxy.passes("wget -qO- http://127.0.0.1/");
    assert_eq!(
        proxy.within("wget -qSO- http://127.0.0.1/ 2>&1 | grep -o 'X-Replica.*'"),
        ["X-Replica: 1 asked 1"]
    );

    let project = up(&proxied(2, 2));
    pairs_answer(&project, 2);
    project.write(&proxied(3, 3));
    project.run(&["up", "-d", "--wait"]);
    pairs_answer(&project, 3);
    // No other address leads to it.
    let address = within(&project, "proxy", 1, "hostname -i").concat();
    let refused =
        within(&project, "proxy", 1, &format!("wget -qO- http://{address}:9000/ 2>&1 || true")).concat();
    assert!(refused.contains("refused"), "{refused}");

    // Without a server in its slot a proxy asks that of another one.
    project.write(&proxied(3, 2));
    project.run(&["up", "-d", "--wait"]);
    let report = load::one_by_one(150, || load::request(project.loopback()));
    assert_eq!(report.answered(), 150, "{report}");
    for (proxy, app) in asked(&report) {
        let expected: &[&str] = if proxy == "3" { &["1", "2"] } else { &[proxy] };
        assert!(expected.contains(&app), "{report}");
    }
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn while_the_server_of_a_slot_is_killed_its_proxy_alone_asks_others() {
    const CLIENTS: usize = 4;
    let project = up(&proxied(3, 3));
    let load = Load::start(project.outside(), 100);
    let killed = container(&project, "app", 2);
    for _ in 0..2 {
        thread::sleep(Duration::from_millis(500));
        let before = project.docker.pid(&killed);
        project.run(&["kill", "app-2"]);
        wait::until("the killed one is replaced", || {
            let all = project.replicas("app");
            check(all.iter().all(|replica| replica.state == ReplicaState::Healthy), all)
        });
        assert_ne!(project.docker.pid(&killed), before);
    }
    thread::sleep(Duration::from_millis(500));
    let report = load.finish();
    eprintln!("two kills of one of 3: {report}");
    // What the killed ones had in their hands.
    assert!(report.failures.len() <= 2 * CLIENTS, "{report}");
    for (proxy, app) in asked(&report) {
        assert!(proxy == app || proxy == "2", "{report}");
    }
    pairs_answer(&project, 3);
}
