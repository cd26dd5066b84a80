//! Images that know nothing of sharing, as they are: the kernel shares their ports, chooses who gets a connection, and
//! has it wait where nobody is ready.

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    net::{Ipv6Addr, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use jiff::Timestamp;
use sameport::{
    api::schema::{Replica, ReplicaState},
    kernel::Netns,
};
use serde_json::Value;

use super::support::{
    load::{self, Failure, Load},
    project::Project,
    wait::{self, check},
};

/// Four replicas of an image come up and take turns, also after each of them has been restarted; nobody notices the
/// restart. `environment` is what it has besides its name.
fn take_turns(image: &str, environment: &str, port: u16, ask: fn(SocketAddr) -> Result<String, Failure>) {
    let project = Project::new(&format!(
        r#"
services:
  app:
    image: ${{{image}}}
    environment: {{ REPLICA: "{{{{.Slot}}}}", {environment} }}
    ports: ["${{PORT}}:{port}"]
    deploy: {{ replicas: 4 }}
"#
    ));
    project.run(&["up", "-d", "--wait"]);
    let status: Value = serde_json::from_str(&project.run(&["status", "--format", "json"])).unwrap();
    assert_eq!(status["pods"][0]["sharing"], "kernel", "{status:#}");
    evenly(&project, 4, || ask(project.loopback()));
    let started = || project.replicas("app").iter().map(|replica| replica.started_at).collect::<Vec<_>>();
    let (before, address) = (started(), project.outside());
    let load = Load::of(100, move || ask(address));
    project.run(&["restart", "app"]);
    let report = load.finish();
    eprintln!("restart of {image}: {report}");
    assert!(report.failures.is_empty(), "{report}");
    let after = started();
    assert!(after.iter().zip(&before).all(|(after, before)| after > before), "{before:?}, {after:?}");
    evenly(&project, 4, || ask(project.loopback()));
}

/// So many replicas, which have nothing to do, each get their share of connections that come one after the other.
fn evenly(project: &Project, replicas: u32, ask: impl Fn() -> Result<String, Failure>) {
    const SHARE: u32 = 30;
    nobody_is_connected(project);
    let report = load::one_by_one(SHARE * replicas, ask);
    assert_eq!(report.answered(), SHARE * replicas, "{report}");
    let slots: Vec<_> = (1..=replicas).map(|slot| slot.to_string()).collect();
    assert_eq!(report.answers.keys().collect::<Vec<_>>(), slots.iter().collect::<Vec<_>>(), "{report}");
    // A replica that happens to be at work, as by a health check, rightly gets nothing for that long.
    assert!(report.answers.values().all(|answers| *answers >= SHARE / 2), "{report}");
    nobody_is_connected(project);
}

/// Waits until no replica has a connection.
fn nobody_is_connected(project: &Project) {
    wait::until("no connection is open", || {
        let replicas = project.status().replicas;
        let live: Vec<_> =
            replicas.iter().map(|replica| Some(replica.traffic.as_ref()?.connections)).collect();
        check(live.iter().all(|live| *live == Some(0)), &replicas)
    });
}

#[test]
fn replicas_of_go_take_turns() {
    take_turns("GO", "", 8080, load::request);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn replicas_of_python_take_turns() {
    take_turns("PYTHON", "", 8080, load::request);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn replicas_of_gunicorn_take_turns() {
    take_turns("HTTPBIN", "SHARE: \"no\"", 8080, load::request);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn replicas_of_uvicorn_take_turns() {
    take_turns("UVICORN", "", 8080, load::request);
}

#[test]
fn replicas_of_node_take_turns() {
    take_turns("NODE", "", 8080, load::request);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn replicas_of_java_take_turns() {
    take_turns("JAVA", "", 8080, load::request);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn replicas_of_redis_take_turns() {
    take_turns("REDIS", "", 6379, load::request_redis);
}

#[test]
fn replicas_of_nginx_with_three_workers_on_one_listener_take_turns() {
    take_turns("NGINX", r#"LISTEN: "", WORKERS: "3""#, 8080, load::request);
}

#[test]
fn a_replica_with_a_listener_for_each_worker_counts_as_one_on_ipv4_and_ipv6() {
    let project = Project::new(
        r#"
services:
  web:
    image: ${NGINX}
    environment: { REPLICA: "{{.Slot}}", WORKERS: "4", LISTEN6: "ipv6only=on reuseport" }
    ports: ["${PORT}:8080"]
    sysctls: { net.ipv6.conf.lo.disable_ipv6: 0 }
    deploy: { replicas: 3 }
"#,
    );
    project.run(&["up", "-d", "--wait"]);
    evenly(&project, 3, || load::request(project.loopback()));
    let netns = Netns::of(sandbox(&project, "web")).unwrap();
    evenly(&project, 3, || netns.within(|| Ok(load::request((Ipv6Addr::LOCALHOST, 8080).into()))).unwrap());
}

#[test]
fn a_service_with_four_listeners_and_one_with_a_single_one_get_half_each() {
    let project = Project::new(
        r#"
services:
  a:
    image: ${NGINX}
    environment: { REPLICA: a, WORKERS: "4" }
    ports: ["${PORT}:8080"]
    x-sameport: { pod: shared }
  b:
    image: ${NGINX}
    environment: { REPLICA: b, LISTEN: "" }
    x-sameport: { pod: shared }
"#,
    );
    project.run(&["up", "-d", "--wait"]);
    nobody_is_connected(&project);
    let report = load::one_by_one(200, || load::request(project.loopback()));
    assert_eq!(report.answered(), 200, "{report}");
    assert!(report.answers.values().all(|answers| (80..=120).contains(answers)), "{report}");
}

#[test]
fn localhost_is_a_replica_itself() {
    for image in ["GO", "PYTHON"] {
        let project = Project::new(&format!(
            r#"
services:
  web:
    image: ${{{image}}}
    environment: {{ REPLICA: "{{{{.Slot}}}}" }}
    ports: ["${{PORT}}:8080"]
    deploy: {{ replicas: 3 }}
"#
        ));
        project.run(&["up", "-d", "--wait"]);
        for slot in 1..=3 {
            for host in ["localhost", "127.0.0.1"] {
                let script = format!("for i in 0 1 2 3 4 5 6 7 8 9; do wget -qO- http://{host}:8080/; done");
                let name = format!("{}-web-{slot}", project.name);
                let answers = project.docker.lines(&["exec", &name, "sh", "-c", &script]);
                assert_eq!(answers, vec![format!("replica {slot}"); 10], "{image}, {host}");
            }
        }
    }
}

/// Replicas of Go that are healthy after some seconds, by a check that each of them runs within itself.
fn checked(replicas: u32, ready_after: &str) -> String {
    format!(
        r#"
services:
  web:
    image: ${{GO}}
    environment: {{ REPLICA: "{{{{.Slot}}}}", READY_AFTER: "{ready_after}" }}
    healthcheck:
      test: ["CMD", "wget", "-qO-", "http://localhost:8080/healthz"]
      interval: 1s
      start_period: 5m
    ports: ["${{PORT}}:8080"]
    deploy: {{ replicas: {replicas} }}
"#
    )
}

#[test]
fn a_health_check_by_way_of_localhost_asks_the_replica_that_it_is_run_in() {
    // Replica N is ready after 10 to the power of N-1 seconds.
    let project = Project::new(&checked(3, "0.1e{{.Slot}}"));
    project.run(&["up", "-d"]);
    let is_healthy = |replica: &Replica| replica.state == ReplicaState::Healthy;
    wait::until("the first two are healthy", || {
        let replicas = project.replicas("web");
        check(replicas.iter().filter(|replica| is_healthy(replica)).count() == 2, replicas)
    });
    let now = Timestamp::now();
    let replicas = project.replicas("web");
    assert_eq!(replicas[2].state, ReplicaState::Starting);
    let age = now.duration_since(replicas[1].started_at.unwrap().0);
    assert!(age.as_secs() >= 10, "the second one was healthy after {age}");
    let report = load::send(project.loopback(), 60);
    assert_eq!(report.answered(), 60, "{report}");
    assert_eq!(report.answers.keys().collect::<Vec<_>>(), ["1", "2"], "{report}");
}

#[test]
fn connections_wait_until_a_replica_is_healthy_and_are_all_answered() {
    const READY_AFTER: Duration = Duration::from_secs(5);
    let project = Project::new(&checked(3, "5"));
    // It returns once connections are taken.
    let _up = project.start(&["up", "-d"]);
    wait::until("all of them listen", || {
        let replicas = project.replicas("web");
        check(replicas.len() == 3 && replicas.iter().all(listens), replicas)
    });
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let address = project.loopback();
            thread::spawn(move || (load::request(address), Timestamp::now()))
        })
        .collect();
    wait::until("all connections wait", || {
        let status = project.status();
        assert!(status.replicas.iter().all(|r| r.state == ReplicaState::Starting), "{status:#?}");
        let waiting: Vec<_> = status.pods[0].waiting.iter().map(|w| (w.port, w.connections)).collect();
        check(waiting == [(8080, 20)], status)
    });
    let started = project.replicas("web").iter().filter_map(|replica| replica.started_at).min().unwrap();
    for client in clients {
        let (answer, at) = client.join().unwrap();
        assert!(answer.is_ok(), "{answer:?}");
        let after = at.duration_since(started.0);
        assert!(after >= READY_AFTER.try_into().unwrap(), "{answer:?} after {after}");
    }
    project.run(&["up", "-d", "--wait"]);
    evenly(&project, 3, || load::request(project.loopback()));
}

fn listens(replica: &Replica) -> bool {
    replica.traffic.as_ref().is_some_and(|traffic| traffic.ports.iter().any(|port| port.listening))
}

#[test]
fn a_replica_gets_nothing_before_it_is_healthy_and_no_request_fails_when_scaling_up() {
    let project = Project::new(&checked(1, "3"));
    project.run(&["up", "-d", "--wait"]);
    let load = Load::start(project.loopback(), 100);
    let _scale = project.start(&["scale", "web=3"]);
    let mut listened = BTreeSet::new();
    let mut answered = BTreeSet::new();
    wait::until("all three are healthy", || {
        answered.extend(load::send(project.loopback(), 20).answers.into_keys());
        let replicas = project.replicas("web");
        for replica in replicas.iter().filter(|replica| replica.state != ReplicaState::Healthy) {
            let slot = replica.slot.to_string();
            assert!(!answered.contains(&slot), "{answered:?} have answered: {replica:#?}");
            if listens(replica) {
                listened.insert(slot);
            }
        }
        check(replicas.len() == 3 && replicas.iter().all(|r| r.state == ReplicaState::Healthy), replicas)
    });
    assert_eq!(listened, ["2", "3"].map(str::to_owned).into(), "they listened before they were healthy");
    let report = load.finish();
    assert!(report.failures.is_empty(), "{report}");
    evenly(&project, 3, || load::request(project.loopback()));
}

/// So many replicas of Go under load: the first one closes its listener and opens another one 300 ms later, thrice.
fn reload(replicas: u32) {
    let project = Project::new(&format!(
        r#"
services:
  web:
    image: ${{GO}}
    environment: {{ REPLICA: "{{{{.Slot}}}}" }}
    ports: ["${{PORT}}:8080"]
    deploy: {{ replicas: {replicas} }}
"#
    ));
    project.run(&["up", "-d", "--wait"]);
    let load = Load::start(project.loopback(), 100);
    for _ in 0..3 {
        let before = listeners(&project);
        project.run(&["kill", "-s", "SIGHUP", "web-1"]);
        wait::until("it has another listener", || {
            let now = listeners(&project);
            check(now.len() == before.len() && now != before, (&before, now))
        });
        project.serves(replicas as usize);
    }
    let report = load.finish();
    assert!(report.failures.is_empty(), "{report}");
}

/// Sockets that listen on port 8080 of the pod.
fn listeners(project: &Project) -> BTreeSet<String> {
    let table = fs::read_to_string(format!("/proc/{}/net/tcp6", sandbox(project, "web"))).unwrap();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[1].ends_with(":1F90") && row[3] == "0A").map(|row| row[9].to_owned()).collect()
}

fn sandbox(project: &Project, pod: &str) -> u32 {
    project.docker.pid(&format!("{}-{pod}-sandbox", project.name)).try_into().unwrap()
}

#[test]
fn one_of_two_replicas_opens_its_listener_anew_and_no_request_fails() {
    reload(2);
}

#[test]
fn the_only_replica_opens_its_listener_anew_and_no_request_fails() {
    reload(1);
}

#[test]
fn curl_asks_exactly_the_replica_that_is_named() {
    let project = Project::new(
        r#"
services:
  web:
    image: ${NGINX}
    environment: { REPLICA: "{{.Slot}}", LISTEN: "" }
    ports: ["${PORT}:8080"]
    deploy: { replicas: 3 }
"#,
    );
    project.run(&["up", "-d", "--wait"]);
    for _ in 0..5 {
        for slot in 1..=3 {
            let answer = project.run(&["curl", &format!("web.{slot}"), "/get"]);
            assert_eq!(answer, format!("replica {slot}\n"));
        }
    }
    let wrong = project.try_run(&["curl", "web-4", "/get"]);
    assert_eq!((wrong.code, wrong.stdout.as_str()), (Some(2), ""), "{wrong:#?}");
    assert!(wrong.stderr.contains("there is no replica web-4"), "{wrong:#?}");
}

#[test]
fn curl_says_why_it_cannot_where_the_images_share_their_ports() {
    let project = Project::new(
        r#"
services:
  web:
    image: ${NGINX}
    environment: { REPLICA: "{{.Slot}}" }
    ports: ["${PORT}:8080"]
    x-sameport: { sharing: application }
    deploy: { replicas: 2 }
"#,
    );
    project.run(&["up", "-d", "--wait"]);
    let curl = project.try_run(&["curl", "web-1", "/get"]);
    assert_eq!((curl.code, curl.stdout.as_str()), (Some(1), ""), "{curl:#?}");
    assert!(curl.stderr.contains("the images share their ports"), "{curl:#?}");
}

#[test]
fn a_replica_that_is_told_to_end_gets_nothing_new_while_it_does() {
    let project = Project::new(
        r#"
services:
  web:
    image: ${PYTHON}
    command:
      - python3
      - -c
      - |
        import http.server, os, signal, threading
        name = os.environ["REPLICA"]
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("X-Replica", name)
                self.end_headers()
            def log_message(self, *_):
                pass
        def end(*_):
            global name
            name = "one that ends"
            threading.Timer(2, lambda: os._exit(0)).start()
        signal.signal(signal.SIGTERM, end)
        http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
    environment: { REPLICA: "{{.Slot}}" }
    ports: ["${PORT}:8080"]
    scale: 2
"#,
    );
    project.run(&["up", "-d", "--wait"]);
    let load = Load::start(project.loopback(), 100);
    project.run(&["restart", "web"]);
    let report = load.finish();
    assert!(report.failures.is_empty(), "{report}");
    assert_eq!(report.answers.keys().collect::<Vec<_>>(), ["1", "2"], "{report}");
}

#[test]
fn a_replica_that_listens_no_more_has_the_time_to_finish_its_connections() {
    let project = Project::new(
        r#"
services:
  web:
    image: ${PYTHON}
    command:
      - python3
      - -c
      - |
        import os, signal, socket, time
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        listener = socket.create_server(("", 8080))
        connection, _ = listener.accept()
        listener.close()
        time.sleep(3)
        connection.sendall(os.environ["REPLICA"].encode())
        connection.close()
        time.sleep(600)
    environment: { REPLICA: "{{.Slot}}" }
    ports: ["${PORT}:8080"]
    scale: 2
"#,
    );
    project.run(&["up", "-d", "--wait"]);
    let clients = [(); 2].map(|()| TcpStream::connect(project.in_pod("web", 8080)).unwrap());
    wait::until("both of them listen no more", || {
        let replicas = project.replicas("web");
        check(!replicas.iter().any(listens), replicas)
    });
    // It would wait until the one that stays listens.
    let _scale = project.start(&["scale", "web=1"]);
    let mut answers = clients.map(|mut client| {
        let mut answer = String::new();
        client.read_to_string(&mut answer).map(|_| answer).unwrap_or_else(|error| error.to_string())
    });
    answers.sort();
    assert_eq!(answers, ["1", "2"]);
}
