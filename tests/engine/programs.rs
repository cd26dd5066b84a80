//! Programs that expect to have a network of their own: they talk to themselves, take a port as a lock, or hand out ports.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU32, Ordering},
};

use super::support::{
    docker::Docker,
    images,
    load::{self, Report},
    project::Project,
    wait::{self, check},
};

mod chooser;
mod ftp;
mod pairs;
mod postgres;
mod sidecars;
mod stack;

/// What gives a namespace the address `::1`, which Docker takes away where no network of the container has IPv6.
const WITH_IPV6: &str = "net.ipv6.conf.lo.disable_ipv6";

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

/// A container that `docker run` has made, with a network of its own: whatever goes on there is how it should be.
/// It goes when this is dropped.
struct Lone {
    docker: Docker,
    name: String,
}

impl Lone {
    /// Runs a container of an image of `tests/images`.
    fn run(image: &str, options: &[&str], command: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("spt{}-lone-{number}", std::process::id());
        let lone = Self { docker: Docker::default(), name };
        let image = images::build(image);
        lone.docker.run(&[&["run", "-d", "--name", &lone.name], options, &[&image], command].concat());
        lone
    }

    /// Runs a line of a shell within.
    fn within(&self, line: &str) -> Vec<String> {
        self.docker.lines(&["exec", &self.name, "sh", "-c", line])
    }

    /// Waits until a line of a shell within succeeds.
    fn passes(&self, line: &str) {
        wait::until(&format!("{line} succeeds"), || {
            self.docker.try_run(&["exec", &self.name, "sh", "-c", line])
        });
    }
}

impl Drop for Lone {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: {:?}", self.name, self.docker.try_run(&["logs", &self.name]));
        }
        if let Err(error) = self.docker.try_run(&["rm", "-fv", &self.name]) {
            eprintln!("{error}");
        }
    }
}

/// What a program is told that wants a port which is taken.
const TAKEN: &str = "Address already in use";

/// A line of a shell that tries to listen on these ports at each address in turn, and says how that went. Whoever could
/// listen does so until all are tried.
fn listen_on(ports: &[u16]) -> String {
    let ports = ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    format!(
        r#"
for port in {ports}; do
    for address in 127.0.0.1 [::1] 0.0.0.0 [::]; do
        said=$(busybox httpd -p $address:$port 2>&1) && said=free
        echo "$address:$port ${{said#httpd: bind: }}"
    done
done
busybox ps -o pid,args | while read -r pid args; do
    case "$args" in "busybox httpd"*) kill -9 $pid ;; esac
done
"#
    )
}

/// Who answered through a server before it, in answers such as `1 asked 2`.
fn asked(report: &Report) -> BTreeSet<(&str, &str)> {
    report.answers.keys().map(|answer| answer.split_once(" asked ").unwrap()).collect()
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
