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
            "web-{slot}: up, listens on 127.0.0.1:8080 only, which cannot be reached from outside the container; make it listen on 0.0.0.0"
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
    assert!(shown.stderr.contains("web: no replica listens on published port 9229"), "{shown:#?}");
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
    for words in ["it listens on 127.0.0.1:8080 only", "make it listen on 0.0.0.0"] {
        assert!(up.stderr.contains(words), "{words}: {up:#?}");
    }
    wait::until("everything is as before", || {
        let now = project.processes();
        wait::check(now == before, (&before, now))
    });
    let report = load.finish();
    assert!(report.failures.is_empty(), "{report}{}", project.log());
}

#[test]
fn who_listens_on_the_containers_own_address_is_probed_and_asked_there() {
    let project = Project::new(
        r#"
services:
  web:
    image: ${GUNICORN}
    command:
      - sh
      - -c
      - "exec python3 -m gunicorn --chdir / --bind $$(hostname -i):8080 --worker-tmp-dir /dev/shm app:app"
    environment: { REPLICA: "{{.Slot}}" }
    ports: ["${PORT}:8080"]
    deploy: { replicas: 3 }
    x-sameport: { probe: { http: /, interval: 1s } }
"#,
    );
    project.run(&["up", "-d", "--wait"]);
    project.serves(3);
    for slot in ["1", "2", "3"] {
        let answer = project.run(&["curl", &format!("web-{slot}"), "/"]);
        assert!(answer.contains(slot), "{answer}");
    }
}

/// gunicorn on two published ports, or what else is run; the health check asks the first one by HTTP.
fn two_ports(command: &str) -> String {
    format!(
        r#"
services:
  web:
    image: ${{GUNICORN}}
    command: [sh, -c, "{command}"]
    environment: {{ REPLICA: "{{{{.Slot}}}}" }}
    healthcheck: {{ test: "wget -qO- http://127.0.0.1:8080/", interval: 1s, timeout: 2s, retries: 3 }}
    ports: ["${{PORT}}:8080", "127.0.0.1::8081"]
    deploy: {{ replicas: 2, update_config: {{ monitor: 2s }} }}
    stop_grace_period: 1s
    x-sameport: {{ progress_deadline: 25s }}
"#
    )
}

const PYTHON: &str = "exec python3 -m gunicorn --chdir / --worker-tmp-dir /dev/shm";

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn a_bad_version_never_gets_the_place_of_a_good_one() {
    let project =
        Project::new(&two_ports(&format!("{PYTHON} --bind 0.0.0.0:8080 --bind 0.0.0.0:8081 app:app")));
    project.run(&["up", "-d", "--wait"]);
    let before = project.processes();
    let accepts = "import socket, time; s = socket.create_server(('', 8080)); t = socket.create_server(('', 8081)); time.sleep(1000)";
    let burns = "import socket; s = socket.create_server(('', 8080)); t = socket.create_server(('', 8081));\\nwhile True: pass";
    let fails = "def app(e, r): r('500 no', []); return [b'no']";
    for (case, command, words) in [
        ("listens nowhere", "exec sleep 1000".to_owned(), "its health check fails"),
        (
            "listens on another port",
            format!("{PYTHON} --bind 0.0.0.0:9090 app:app"),
            "its health check fails",
        ),
        (
            "listens on localhost",
            format!("{PYTHON} --bind 127.0.0.1:8080 --bind 127.0.0.1:8081 app:app"),
            "127.0.0.1:808",
        ),
        ("listens on one of two ports", format!("{PYTHON} --bind 0.0.0.0:8080 app:app"), "and not on 8081"),
        ("accepts and never answers", format!("exec python3 -c \\\"{accepts}\\\""), "health check"),
        (
            "burns its processor",
            format!("printf \\\"{burns}\\\" >/tmp/b.py; exec python3 /tmp/b.py"),
            "its health check fails",
        ),
        (
            "answers 500",
            format!(
                "printf \\\"{fails}\\\" >/tmp/bad.py; {PYTHON} --chdir /tmp --bind 0.0.0.0:8080 --bind 0.0.0.0:8081 bad:app"
            ),
            "its health check fails",
        ),
    ] {
        let load = load::Load::start(project.loopback(), 50);
        project.write(&two_ports(&command));
        let up = project.try_run(&["up", "-d", "--wait", "--wait-timeout", "90"]);
        let report = load.finish();
        assert_eq!(up.code, Some(1), "{case}: {up:#?}");
        assert!(up.stderr.contains(words), "{case}: {words}: {up:#?}");
        assert!(!up.stderr.contains("not done within"), "{case}: {up:#?}");
        assert!(report.failures.is_empty(), "{case}: {report}{}", project.log());
        wait::until("everything is as before", || {
            let now = project.processes();
            wait::check(now == before, (case, &before, now))
        });
    }
}

/// Accepts connections, or hangs with a full queue.
fn takes_connections(takes: bool) -> String {
    let server = r#"
import socket, sys, time
s = socket.socket()
s.bind(("0.0.0.0", 8080))
s.listen(1)
if sys.argv[1] == "false":
    clients = [socket.socket() for _ in range(4)]
    for client in clients:
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", 8080))
    time.sleep(1000)
while True:
    connection, _ = s.accept()
    connection.sendall(b"220 greeting\r\n")
    while connection.recv(4096):
        pass
    connection.close()
"#;
    let server = server.trim().replace('\n', "\n        ");
    format!(
        r#"
services:
  web:
    image: ${{GUNICORN}}
    command:
      - python3
      - -c
      - |
        {server}
      - "{takes}"
    ports: ["${{PORT}}:8080"]
    deploy: {{ replicas: 2, update_config: {{ monitor: 5s }} }}
    stop_grace_period: 1s
"#
    )
}

#[test]
fn a_version_that_no_connection_reaches_is_rolled_back_also_where_no_clients_come() {
    let project = Project::new(&takes_connections(true));
    project.run(&["up", "-d", "--wait"]);
    let before = project.processes();
    project.write(&takes_connections(false));
    let up = project.try_run(&["up", "-d", "--wait"]);
    assert_eq!(up.code, Some(1), "{up:#?}");
    assert!(up.stderr.contains("web-1: the new version failed: "), "{up:#?}");
    assert!(!up.stderr.contains("ended"), "{up:#?}");
    eprintln!("{}", up.stderr);
    wait::until("everything is as before", || {
        let now = project.processes();
        wait::check(now == before, (&before, now))
    });
    // A good one is reached, and nothing of that is a failure.
    let resets = |project: &Project| {
        let pods = project.status().pods.into_iter();
        pods.filter_map(|pod| pod.counters).map(|counters| counters.reset).sum::<u64>()
    };
    let before = resets(&project);
    project.write(&takes_connections(true).replace("220", "221"));
    project.run(&["up", "-d", "--wait"]);
    let status = project.status();
    assert!(status.replicas.iter().all(|replica| replica.up_to_date), "{status:#?}");
    assert_eq!(resets(&project), before, "{status:#?}");
}
