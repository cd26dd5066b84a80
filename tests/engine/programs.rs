//! Programs that expect to have a network of their own: they talk to themselves, take a port as a lock, or hand out ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    ops::RangeInclusive,
    thread,
    time::Duration,
};

use sameport::api::schema::ReplicaState;

use super::support::{
    load::{self, Load, Report},
    ports,
    project::Project,
    wait::{self, check},
};

fn up(compose: &str) -> Project {
    let project = Project::new(compose);
    project.run(&["up", "-d", "--wait"]);
    project
}

fn container(project: &Project, service: &str, slot: u32) -> String {
    format!("{}-{service}-{slot}", project.name)
}

/// Runs a line of a shell within a replica.
fn within(project: &Project, service: &str, slot: u32, line: &str) -> Vec<String> {
    project.docker.lines(&["exec", &container(project, service, slot), "sh", "-c", line])
}

/// Replicas of nginx, each with a gunicorn behind it on a port of localhost.
fn stack(version: &str, replicas: u32) -> String {
    format!(
        r#"
services:
  web:
    image: ${{GUNICORN}}
    environment: {{ REPLICA: "{version}.{{{{.Slot}}}}" }}
    healthcheck: {{ test: ["CMD", "wget", "-qO-", "http://localhost/"], interval: 500ms, retries: 20 }}
    stop_signal: SIGQUIT
    ports: ["${{PORT}}:80"]
    deploy: {{ replicas: {replicas}, update_config: {{ monitor: 500ms, parallelism: 3 }} }}
"#
    )
}

/// Each nginx has asked the gunicorn of its own replica; returns which replicas there were.
fn asked_itself(report: &Report) -> BTreeSet<String> {
    let both = report.answers.keys().map(|answer| answer.split_once(" asked ").unwrap());
    both.inspect(|(nginx, gunicorn)| assert_eq!(nginx, gunicorn, "{report}"))
        .map(|(nginx, _)| nginx.to_owned())
        .collect()
}

/// It does so from the beginning, while one of them is killed, and during a rollout.
fn each_asks_itself(replicas: u32) {
    const CLIENTS: usize = 4;
    let names =
        |version: &str| (1..=replicas).map(|slot| format!("{version}.{slot}")).collect::<BTreeSet<_>>();
    let project = up(&stack("v1", replicas));
    let report = load::one_by_one(100, || load::request(project.loopback()));
    assert_eq!(report.answered(), 100, "{report}");
    assert_eq!(asked_itself(&report), names("v1"));
    for slot in 1..=replicas {
        let answer = within(&project, "web", slot, "wget -qO- http://127.0.0.1:9000/");
        assert_eq!(answer, [format!("replica v1.{slot}")]);
    }

    let load = Load::start(project.outside(), 100);
    let before = project.docker.pid(&container(&project, "web", replicas));
    project.run(&["kill", &format!("web-{replicas}")]);
    wait::until("the killed one is replaced", || {
        let all = project.replicas("web");
        check(all.iter().all(|replica| replica.state == ReplicaState::Healthy), all)
    });
    assert_ne!(project.docker.pid(&container(&project, "web", replicas)), before);
    thread::sleep(Duration::from_millis(500));
    let report = load.finish();
    eprintln!("kill of one of {replicas}: {report}");
    // What the killed one had in its hands.
    assert!(report.failures.len() <= CLIENTS, "{report}");
    assert_eq!(asked_itself(&report), names("v1"));

    let load = Load::start(project.outside(), 100);
    project.write(&stack("v2", replicas));
    project.run(&["up", "-d", "--wait"]);
    thread::sleep(Duration::from_millis(500));
    let report = load.finish();
    eprintln!("rollout of {replicas}: {report}");
    assert!(report.failures.is_empty(), "{report}");
    assert_eq!(asked_itself(&report), &names("v1") | &names("v2"));
}

#[test]
fn the_only_nginx_asks_the_server_behind_it_on_localhost() {
    each_asks_itself(1);
}

#[test]
fn each_of_three_nginx_asks_the_server_behind_it_on_localhost() {
    each_asks_itself(3);
}

#[test]
fn redis_on_localhost_is_healthy_and_each_replica_sees_its_own_data() {
    let project = up(r#"
services:
  cache:
    image: ${REDIS}
    command: [redis-server, --bind, 127.0.0.1, --save, ""]
    healthcheck: { test: redis-cli ping, interval: 500ms, retries: 20 }
    deploy: { replicas: 3 }
"#);
    let redis = |slot, line: &str| within(&project, "cache", slot, &format!("redis-cli {line}"));
    assert_eq!(redis(1, "ping"), ["PONG"]);
    for slot in 1..=3 {
        assert_eq!(redis(slot, &format!("set who {slot}")), ["OK"]);
    }
    for slot in 1..=3 {
        let own = "for i in 0 1 2 3 4 5 6 7 8 9; do redis-cli get who; done; redis-cli dbsize";
        let mut expected = vec![slot.to_string(); 10];
        expected.push("1".to_owned());
        assert_eq!(within(&project, "cache", slot, own), expected, "cache-{slot}");
    }
}

#[test]
fn a_port_as_a_lock_is_had_by_one_worker_of_each_replica() {
    const LOCKED: &str = "locked";
    let project = up(r#"
services:
  web:
    image: ${GUNICORN}
    command: [python3, -m, gunicorn, --chdir, /, --bind, "0.0.0.0:80", --workers, "4", --worker-tmp-dir, /dev/shm, "app:app"]
    environment: { REPLICA: "{{.Slot}}", LOCK: "47200" }
    ports: ["${PORT}:80"]
    deploy: { replicas: 3 }
"#);
    // What the workers of a replica have said in the order of their beginning: the process id, and how it went.
    let said = |slot, workers| {
        wait::until("all workers have tried", || {
            let lines = project.docker.lines(&["logs", &container(&project, "web", slot)]);
            let said: Vec<_> = lines
                .iter()
                .filter_map(|line| line.strip_prefix("worker ")?.split_once(": "))
                .map(|(worker, how)| (worker.to_owned(), how.to_owned()))
                .collect();
            check(said.len() == workers, &lines).map(|()| said)
        })
    };
    for slot in 1..=3 {
        let workers = said(slot, 4);
        let locked: Vec<_> = workers.iter().filter(|(_, how)| how == LOCKED).collect();
        assert_eq!(locked.len(), 1, "web-{slot}: {workers:?}");
        let others = workers.iter().filter(|(_, how)| how == "Address already in use");
        assert_eq!(others.count(), 3, "web-{slot}: {workers:?}");
        // Whoever comes after it gets it.
        within(&project, "web", slot, &format!("kill -9 {}", locked[0].0));
        let workers = said(slot, 5);
        assert_eq!(workers[4].1, LOCKED, "web-{slot}: {workers:?}");
    }
    let report = load::send(project.loopback(), 60);
    assert_eq!(report.answered(), 60, "{report}");
}

/// How a user's download went.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Download {
    /// It was the user's own file.
    Own,
    /// It was something else.
    Foreign(String),
    /// The server found all ports of its range taken, and so chose one that is not published.
    NoPortLeft,
    /// Anything else.
    Failed(String),
}

/// A user of an FTP server.
struct User {
    name: String,
    server: SocketAddr,
    passive: RangeInclusive<u16>,
}

impl User {
    const PATIENCE: Duration = Duration::from_secs(5);

    /// Downloads the user's file; returns which replica that was, and how it went.
    fn download(&self) -> (String, Download) {
        let mut replica = String::new();
        let how = match self.try_download(&mut replica) {
            Ok(Some(file)) if file == self.name => Download::Own,
            Ok(Some(file)) => Download::Foreign(file),
            Ok(None) => Download::NoPortLeft,
            Err(error) => Download::Failed(format!("replica {replica}: {error}")),
        };
        (replica, how)
    }

    fn try_download(&self, replica: &mut String) -> Result<Option<String>, String> {
        let mut control = BufReader::new(self.connect(self.server.port())?);
        let mut say = |line: &str, code: &str| {
            if !line.is_empty() {
                control
                    .get_mut()
                    .write_all(format!("{line}\r\n").as_bytes())
                    .map_err(|e| format!("{line}: {e}"))?;
            }
            let mut answer = String::new();
            control.read_line(&mut answer).map_err(|error| format!("{line}: {error}"))?;
            let text = answer.strip_prefix(code).ok_or_else(|| format!("{line}: answered `{answer}`"))?;
            Ok::<_, String>(text.trim().to_owned())
        };
        *replica = say("", "220 replica ")?;
        say(&format!("USER {}", self.name), "331")?;
        say(&format!("PASS {}", self.name), "230")?;
        let port = say("EPSV", "229")?;
        let port = port.split('|').nth(3).and_then(|port| port.parse().ok()).ok_or(port)?;
        if !self.passive.contains(&port) {
            return Ok(None);
        }
        let mut data = self.connect(port)?;
        say("RETR name", "1")?;
        let mut file = String::new();
        data.read_to_string(&mut file).map_err(|error| format!("port {port}: {error}"))?;
        say("", "226")?;
        Ok(Some(file))
    }

    fn connect(&self, port: u16) -> Result<TcpStream, String> {
        let address = (self.server.ip(), port).into();
        let connect = || {
            let stream = TcpStream::connect_timeout(&address, Self::PATIENCE)?;
            stream.set_read_timeout(Some(Self::PATIENCE))?;
            Ok(stream)
        };
        connect().map_err(|error: std::io::Error| format!("port {port}: {error}"))
    }
}

/// So many ports one after the other that nobody uses.
fn free_ports(count: u16) -> RangeInclusive<u16> {
    let ranges = (0..1000).map(|_| ports::free()).map(|first| first..=first + count - 1);
    let is_free =
        |range: &RangeInclusive<u16>| range.clone().all(|p| TcpListener::bind(("0.0.0.0", p)).is_ok());
    ranges.into_iter().find(is_free).expect("free ports")
}

/// Users of FTP servers with fewer ports for data than there are users; all download again and again.
fn users_get_their_own_files(replicas: u32) {
    const USERS: usize = 8;
    const TIMES: usize = 15;
    let passive = free_ports(4);
    let (first, last) = (passive.start(), passive.end());
    let project = up(&format!(
        r#"
services:
  ftp:
    image: ${{FTP}}
    environment: {{ REPLICA: "{{{{.Slot}}}}", PASSIVE: "{first}-{last}" }}
    ports: ["${{PORT}}:2121", "{first}-{last}:{first}-{last}"]
    deploy: {{ replicas: {replicas} }}
"#
    ));
    let users: Vec<_> = (0..USERS)
        .map(|number| {
            let user =
                User { name: format!("u{number}"), server: project.outside(), passive: passive.clone() };
            thread::spawn(move || (0..TIMES).map(|_| user.download()).collect::<Vec<_>>())
        })
        .collect();
    let downloads: Vec<_> = users.into_iter().flat_map(|user| user.join().unwrap()).collect();
    let (mut seen, mut own) = (BTreeMap::<_, usize>::new(), BTreeSet::new());
    for (replica, how) in downloads {
        if how == Download::Own {
            own.insert(replica);
        }
        *seen.entry(how).or_default() += 1;
    }
    eprintln!("downloads from {replicas}: {seen:?}");
    let expected = |how: &Download| matches!(how, Download::Own | Download::NoPortLeft);
    assert!(seen.keys().all(expected), "{seen:#?}");
    assert!(seen[&Download::Own] >= USERS * TIMES / 2, "{seen:#?}");
    let slots: BTreeSet<_> = (1..=replicas).map(|slot| slot.to_string()).collect();
    assert_eq!(own, slots, "{seen:#?}");
}

#[test]
fn users_of_the_only_ftp_server_get_their_own_files() {
    users_get_their_own_files(1);
}

#[test]
fn users_of_three_ftp_servers_on_one_range_of_ports_get_their_own_files() {
    users_get_their_own_files(3);
}

/// Replicas of Go at that address, beside as many of a sidecar in the same pod.
fn with_sidecars(address: &str) -> Project {
    up(&format!(
        r#"
services:
  web:
    image: ${{GO}}
    environment: {{ REPLICA: "{{{{.Slot}}}}", ADDRESS: "{address}" }}
    ports: ["${{PORT}}:8080"]
    x-sameport: {{ pod: shop }}
    deploy: {{ replicas: 3 }}
  sidecar:
    image: ${{GO}}
    command: [sleep, infinity]
    init: true
    x-sameport: {{ pod: shop }}
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
    reach_their_own(&with_sidecars("127.0.0.1:8080"));
}

#[test]
fn a_health_check_by_the_own_name_asks_the_replica_that_it_is_run_in() {
    let project = up(r#"
services:
  web:
    image: ${GO}
    environment: { REPLICA: "{{.Slot}}" }
    healthcheck: { test: "wget -qO- http://$$(hostname):8080/ | grep -qx \"replica $$REPLICA\"", interval: 500ms, retries: 20 }
    ports: ["${PORT}:8080"]
    deploy: { replicas: 3 }
"#);
    project.serves(3);
    for slot in 1..=3 {
        for host in ["$(hostname)", "$(hostname -i)", "web"] {
            let line = format!("for i in 0 1 2 3 4 5 6 7 8 9; do wget -qO- http://{host}:8080/; done");
            assert_eq!(within(&project, "web", slot, &line), vec![format!("replica {slot}"); 10], "{host}");
        }
    }
}
