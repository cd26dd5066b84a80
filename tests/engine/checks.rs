//! Health checks as people write them: with the engine's default interval of 30 s, with programs that the image does not have,
//! and such as never pass.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::support::{
    load::{self, Load},
    project::Project,
    wait::{self, check},
};

/// gunicorn with that health check, and that many replicas of it.
fn gunicorn(check: &str, replicas: u32) -> Project {
    Project::new(&format!(
        r#"
services:
  web:
    image: ${{GUNICORN}}
    command: [sh, -c, "exec python3 -m gunicorn --chdir / --bind 0.0.0.0:8080 --worker-tmp-dir /dev/shm app:app"]
    environment: {{ REPLICA: "{{{{.Slot}}}}" }}
    healthcheck: {check}
    ports: ["${{PORT}}:8080"]
    deploy: {{ replicas: {replicas} }}
"#
    ))
}

/// Asks a path that gunicorn answers; the interval is the engine's own, 30 s.
const BY_DEFAULT: &str = r#"{ test: "wget -qO- http://127.0.0.1:8080/ >/dev/null" }"#;

#[test]
fn a_lone_replica_that_is_killed_serves_again_as_soon_as_it_answers_its_health_check() {
    let project = gunicorn(BY_DEFAULT, 1);
    let begun = Instant::now();
    project.run(&["up", "-d", "--wait"]);
    assert!(begun.elapsed() < wait::slowly(Duration::from_secs(15)), "{:?}", begun.elapsed());
    let load = Load::start(project.loopback(), 20);
    let replica = project.replicas("web").remove(0);
    let begun = Instant::now();
    project.docker.run(&["kill", replica.id.as_deref().unwrap()]);
    wait::until("it is healthy again", || {
        let now = project.replicas("web").remove(0);
        check(now.started_at > replica.started_at && now.state.is_up(), now)
    });
    let took = begun.elapsed();
    let report = load.finish();
    assert!(report.failures.is_empty(), "{report}{}", project.log());
    assert!(took < wait::slowly(Duration::from_secs(10)), "{took:?}");
}

#[test]
fn a_worker_is_checked_from_its_start_on_and_what_the_check_says_is_shown() {
    let project = Project::new(
        r#"
services:
  worker:
    image: ${GUNICORN}
    command: [sh, -c, "sleep 6; touch /tmp/done; exec sleep 1000"]
    healthcheck: { test: "test -e /tmp/done || { echo not done yet; exit 1; }" }
"#,
    );
    project.run(&["up", "-d"]);
    wait::until("ps quotes the check", || {
        let shown = project.run(&["ps"]);
        check(shown.contains("up, not healthy yet: not done yet"), shown)
    });
    let begun = Instant::now();
    project.run(&["up", "-d", "--wait"]);
    assert!(begun.elapsed() < wait::slowly(Duration::from_secs(15)), "{:?}", begun.elapsed());
}

#[test]
fn a_check_whose_program_is_not_in_the_image_is_told_and_ignored() {
    for check in [
        r#"{ test: "nosuchcurl -f http://127.0.0.1:8080/ || exit 1" }"#,
        r#"{ test: [CMD, nosuchcurl, "-f", "http://127.0.0.1:8080/"] }"#,
    ] {
        let project = gunicorn(check, 2);
        let up = project.try_run(&["up", "-d", "--wait"]);
        assert_eq!(up.code, Some(0), "{up:#?}");
        let words = ["web: its health check cannot be run (", "nosuchcurl", "is ignored", "`healthcheck`"];
        for words in words {
            assert!(up.stderr.contains(words), "{words}: {up:#?}");
        }
        assert!(up.stderr.contains("compose.yaml:7:"), "where it is in the file: {up:#?}");
        project.serves(2);
        let shown = project.try_run(&["ps"]);
        assert!(shown.stderr.contains(words[0]), "{shown:#?}");
        assert!(!shown.stdout.contains("healthy"), "{shown:#?}");
    }
}

#[test]
fn a_check_that_has_never_passed_keeps_nobody_from_being_served() {
    let never = r#"{ test: "echo no database; exit 1", interval: 1s, retries: 2 }"#;
    let project = gunicorn(never, 2);
    let up = project.try_run(&["up", "-d", "--wait"]);
    assert_eq!(up.code, Some(1), "{up:#?}");
    let words = "all replicas of web fail their health check (no database), which no replica of this version has ever passed";
    assert!(up.stderr.contains(words), "{up:#?}");
    let before = project.processes();
    wait::until("both answer", || {
        let report = load::send(project.loopback(), 20);
        check(report.failures.is_empty() && report.answers.len() == 2, report.to_string())
    });
    let shown = project.try_run(&["ps"]);
    assert!(shown.stderr.contains(words), "{shown:#?}");
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(project.processes(), before, "nobody is replaced for it: {}", project.log());
    // It served without ever having been ready: there is nothing to go back to.
    let undo = project.try_run(&["rollout", "undo", "web"]);
    assert_ne!(undo.code, Some(0), "{undo:#?}");
}

/// ZooKeeper, which binds the ports of its ensemble to the address of its host name, and is checked by a name.
fn zookeeper(name: &str, version: u32) -> String {
    format!(
        r#"
services:
  zk:
    image: ${{ZOOKEEPER}}
    environment: {{ V: "{version}" }}
    ports: ["${{PORT}}:2181"]
    volumes: [data:/data]
    healthcheck: {{ test: "echo srvr | busybox nc {name} 2181 | grep -q Mode" }}
volumes: {{ data: {{}} }}
"#
    )
}

fn is_zookeeper_there(project: &Project) -> Result<(), String> {
    let mut connection = TcpStream::connect(project.loopback()).map_err(|error| error.to_string())?;
    connection.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    connection.write_all(b"ruok").map_err(|error| error.to_string())?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    check(answer == "imok", answer)
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn a_java_server_that_is_checked_by_its_own_name_comes_up_comes_back_and_is_replaced() {
    for name in ["$$(hostname)", "zk"] {
        let project = Project::new(&zookeeper(name, 1));
        for version in [1, 2] {
            project.write(&zookeeper(name, version));
            let up = project.try_run(&["up", "-d", "--wait", "--wait-timeout", "120"]);
            assert_eq!(up.code, Some(0), "{name}: {up:#?}{}", project.log());
            is_zookeeper_there(&project).unwrap();
        }
        let replica = project.replicas("zk").remove(0);
        project.docker.run(&["kill", replica.id.as_deref().unwrap()]);
        wait::until("it is healthy again", || {
            let now = project.replicas("zk").remove(0);
            check(now.started_at > replica.started_at && now.state.is_up(), now)
        });
        is_zookeeper_there(&project).unwrap();
    }
}
