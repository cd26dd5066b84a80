//! Replicas that listen, but where nobody reaches them through their published port.

use super::support::{load, project::Project, wait};

/// gunicorn on port 8080 of that address. Its health check asks it from within.
fn gunicorn(address: &str) -> String {
    format!(
        r#"
services:
  web:
    image: ${{GUNICORN}}
    command: [sh, -c, "exec python3 -m gunicorn --chdir / --bind {address}:8080 --worker-tmp-dir /dev/shm app:app"]
    environment: {{ REPLICA: "{{{{.Slot}}}}" }}
    healthcheck: {{ test: "wget -qO- http://127.0.0.1:8080/", interval: 500ms, retries: 40 }}
    ports: ["${{PORT}}:8080", "127.0.0.1::9229"]
    deploy: {{ replicas: 2, update_config: {{ monitor: 1s }} }}
"#
    )
}

#[test]
fn who_listens_on_localhost_only_is_not_ready_and_is_told_where_to_listen() {
    let project = Project::new(&gunicorn("127.0.0.1"));
    let up = project.try_run(&["up", "-d", "--wait", "--wait-timeout", "12"]);
    assert_eq!(up.code, Some(1), "{up:#?}");
    for slot in [1, 2] {
        let words = format!(
            "web-{slot}: up, listens on 127.0.0.1:8080 only: nobody outside the container can reach it; let it listen on \
             0.0.0.0"
        );
        assert!(up.stderr.contains(&words), "{words}: {up:#?}");
    }
    let shown = project.try_run(&["ps"]);
    assert!(shown.stdout.contains("up, listens on 127.0.0.1:8080 only"), "{shown:#?}");
    assert!(!shown.stderr.contains("9229"), "there is nobody yet: {shown:#?}");
    assert!(!project.log().contains("web-1 ready"), "{}", project.log());
    // A version that is reached takes over from one that never was.
    project.write(&gunicorn("0.0.0.0"));
    project.run(&["up", "-d", "--wait"]);
    wait::until("both answer", || {
        let report = load::send(project.loopback(), 20);
        wait::check(report.failures.is_empty() && report.answers.len() == 2, report.to_string())
    });
    // One published port is enough; the other one is told.
    let shown = project.try_run(&["ps"]);
    assert!(shown.stderr.contains("web: nobody listens on published port 9229"), "{shown:#?}");
}

#[test]
fn a_version_that_listens_on_localhost_only_does_not_take_over() {
    let project = Project::new(&gunicorn("0.0.0.0"));
    project.run(&["up", "-d", "--wait"]);
    let before = project.processes();
    let load = load::Load::start(project.loopback(), 50);
    project.write(&gunicorn("127.0.0.1"));
    let up = project.try_run(&["up", "-d", "--wait"]);
    assert_eq!(up.code, Some(1), "{up:#?}");
    for words in ["it listens on 127.0.0.1:8080 only", "let it listen on 0.0.0.0"] {
        assert!(up.stderr.contains(words), "{words}: {up:#?}");
    }
    wait::until("everything is as before", || {
        let now = project.processes();
        wait::check(now == before, (&before, now))
    });
    let report = load.finish();
    assert!(report.failures.is_empty(), "{report}{}", project.log());
}
