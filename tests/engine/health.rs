//! Replicas that run and do not work: out of rotation at once, replaced when they stay so; and those that are merely
//! busy, which stay.

use std::{
    thread,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use sameport::api::schema::{Replica, ReplicaState};

use super::support::{
    load::{self, Failure, Load, Report},
    project::Project,
    wait::{self, check},
};

/// When the supervisor wrote a line with all these words, after that time.
fn told(project: &Project, after: Timestamp, words: &[&str]) -> Option<Timestamp> {
    let log = project.log();
    let lines = log.lines().filter(|line| words.iter().all(|word| line.contains(word)));
    let mut times = lines.filter_map(|line| line.split_whitespace().next()?.parse::<Timestamp>().ok());
    times.find(|time| *time >= after)
}

fn when(project: &Project, after: Timestamp, words: &[&str]) -> Timestamp {
    wait::until(&format!("the supervisor tells {words:?}"), || {
        told(project, after, words).ok_or_else(|| project.log())
    })
}

/// The replicas' processes, by when they started.
fn started(project: &Project, service: &str) -> Vec<Option<Timestamp>> {
    project.replicas(service).iter().map(|replica| replica.started_at.map(|at| at.0)).collect()
}

fn traffic(replica: &Replica) -> u64 {
    replica.traffic.as_ref().map_or(0, |traffic| traffic.connections_total)
}

/// One of three replicas is stopped under load, as by a debugger or a bug.
fn one_of_three_hangs(image: &str, rest: &str) {
    let project = Project::new(&format!(
        r#"
services:
  web:
    image: ${{{image}}}
    environment: {{ REPLICA: "{{{{.Slot}}}}" {rest} }}
    ports: ["${{PORT}}:8080"]
    deploy: {{ replicas: 3 }}
"#
    ));
    project.run(&["up", "-d", "--wait"]);
    project.serves(3);
    let before = started(&project, "web");
    let load = Load::start(project.loopback(), 100);
    let seen: Vec<_> = project.replicas("web").iter().map(traffic).collect();
    wait::until("all of them have connections", || {
        let replicas = project.replicas("web");
        check(replicas.iter().zip(&seen).all(|(now, then)| traffic(now) > then + 20), replicas)
    });
    let container = format!("{}-web-2", project.name);
    let stopped = Timestamp::now();
    project.docker.run(&["kill", "-s", "STOP", &container]);
    let out = when(&project, stopped, &["rotation", "slot=2", "weight=0"]);
    let after = out.duration_since(stopped);
    eprintln!("out of rotation after {after:#}");
    // The engine's own call is in it.
    assert!(after < SignedDuration::from_secs(2), "out of rotation after {after:#}:\n{}", project.log());
    let begun = Instant::now();
    let report = load::send(project.loopback(), 40);
    assert!(report.failures.is_empty() && !report.answers.contains_key("2"), "{report}");
    assert!(begun.elapsed() < Duration::from_secs(4), "40 requests took {:?}", begun.elapsed());
    wait::until("the state is told", || {
        let replicas = project.replicas("web");
        // It may have been replaced meanwhile, on a slow machine.
        let is_new = replicas[1].started_at.map(|at| at.0) != before[1];
        check(replicas[1].state == ReplicaState::Stuck || is_new, replicas)
    });
    let replaced = when(&project, stopped, &["replaced", "slot=2", "stopped by a signal"]);
    eprintln!("replaced after {:#}", replaced.duration_since(stopped));
    assert!(replaced.duration_since(stopped) >= SignedDuration::from_secs(4), "not before it is certain");
    when(&project, replaced, &["rotation", "slot=2", "weight=100"]);
    let report = load.finish();
    // Those that it had in its hands: one for each client at most. Those that waited for it have moved on.
    assert!(
        report.failures.len() <= 2
            && report
                .failures
                .iter()
                .all(|(_, failure)| *failure == Failure::Reset || *failure == Failure::CutShort),
        "{report}"
    );
    eprintln!("{report}");
    project.serves(3);
    let now = started(&project, "web");
    assert_eq!((now[0], now[2]), (before[0], before[2]), "nobody else is touched");
    assert_ne!(now[1], before[1]);
}

#[test]
fn a_replica_of_go_that_is_stopped_is_out_at_once_and_replaced() {
    one_of_three_hangs("GO", "");
}

#[test]
fn a_replica_of_python_that_is_stopped_is_out_at_once_and_replaced() {
    one_of_three_hangs("PYTHON", "");
}

#[test]
fn a_stopped_replica_that_goes_on_in_time_is_put_back_and_not_replaced() {
    let project = Project::new(
        r#"
services:
  web:
    image: ${GO}
    environment: { REPLICA: "{{.Slot}}" }
    ports: ["${PORT}:8080"]
    deploy: { replicas: 3 }
"#,
    );
    project.run(&["up", "-d", "--wait"]);
    project.serves(3);
    let before = started(&project, "web");
    let load = Load::start(project.loopback(), 100);
    let signal = |name: &str| project.docker.run(&["kill", "-s", name, &format!("{}-web-2", project.name)]);
    let stopped = Timestamp::now();
    signal("STOP");
    let out = when(&project, stopped, &["rotation", "slot=2", "weight=0"]);
    signal("CONT");
    let back = when(&project, out, &["rotation", "slot=2", "weight=100"]);
    eprintln!("out after {:#}, back {:#} later", out.duration_since(stopped), back.duration_since(out));
    project.serves(3);
    // Longer than the one that stays stopped has.
    thread::sleep(Duration::from_secs(7));
    let report = load.finish();
    assert!(report.failures.is_empty(), "{report}");
    assert_eq!(started(&project, "web"), before);
    assert_eq!(told(&project, stopped, &["replaced"]), None);
}

/// Python's server that does one thing at a time; the replica of that slot takes its time with each.
fn one_thing_at_a_time(slow: &str, seconds: &str) -> String {
    format!(
        r#"
services:
  web:
    image: ${{PYTHON}}
    command:
      - python3
      - -c
      - |
        import http.server, os, time
        name = os.environ["REPLICA"]
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if name in "{slow}".split():
                    time.sleep({seconds})
                self.send_response(200)
                self.send_header("X-Replica", name)
                self.end_headers()
            def log_message(self, *_):
                pass
        http.server.HTTPServer(("", 8080), Handler).serve_forever()
    environment: {{ REPLICA: "{{{{.Slot}}}}" }}
    ports: ["${{PORT}}:8080"]
    deploy: {{ replicas: 3 }}
"#
    )
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn a_replica_that_is_merely_busy_is_not_replaced() {
    let project = Project::new(&one_thing_at_a_time("2", "2.5"));
    project.run(&["up", "-d", "--wait"]);
    let (begun, before) = (Timestamp::now(), started(&project, "web"));
    let total = traffic(&project.replicas("web")[1]);
    let load = Load::start(project.loopback(), 100);
    wait::until("it has served several", || {
        let replicas = project.replicas("web");
        let long = Timestamp::now().duration_since(begun) > SignedDuration::from_secs(20);
        check(traffic(&replicas[1]) > total + 4 && long, replicas)
    });
    let report = load.finish();
    eprintln!("{report}");
    assert!(report.failures.is_empty(), "{report}");
    assert_eq!(report.answers.keys().collect::<Vec<_>>(), ["1", "2", "3"], "{report}");
    assert_eq!(started(&project, "web"), before, "nobody is replaced");
    assert_eq!(told(&project, begun, &["replaced"]), None);
}

#[test]
fn a_replica_that_hangs_by_itself_is_out_at_once_and_replaced_once_it_is_certain() {
    // It takes one connection, and waits for something that never comes.
    let project = Project::new(&one_thing_at_a_time("2", "1000"));
    project.run(&["up", "-d", "--wait"]);
    let (begun, before) = (Timestamp::now(), started(&project, "web"));
    // At four rates, so that a connection sometimes arrives while the other two replicas are both busy: only then is it
    // sent to a replica that already has one. Requests of a single load never overlap on a quick machine.
    let loads = [100, 70, 50, 30].map(|rate| Load::start(project.loopback(), rate));
    let out = when(&project, begun, &["rotation", "slot=2", "weight=0"]);
    let report = load::send(project.loopback(), 40);
    assert!(report.failures.is_empty() && !report.answers.contains_key("2"), "{report}");
    let replaced = when(&project, out, &["replaced", "slot=2", "takes no connections"]);
    let after = replaced.duration_since(out);
    assert!(after > SignedDuration::from_secs(8), "replaced {after:#} after it was out of rotation");
    let mut report = Report::default();
    loads.into_iter().for_each(|load| report.merge(load.finish()));
    // The one in its hands, and the one that waited behind it for nearly as long as a client does.
    assert!(report.failures.len() <= 4, "{report}");
    wait::until("another process is there", || {
        let now = started(&project, "web");
        check(now[1].is_some() && now[1] != before[1] && (now[0], now[2]) == (before[0], before[2]), now)
    });
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn where_all_are_equally_busy_nobody_is_out_of_rotation() {
    let project = Project::new(&one_thing_at_a_time("1 2 3", "2"));
    project.run(&["up", "-d", "--wait"]);
    let (begun, before) = (Timestamp::now(), started(&project, "web"));
    // Four clients, each on its own: always one more than there are replicas.
    let load = Load::start(project.loopback(), 100);
    thread::sleep(Duration::from_secs(15));
    let report = load.finish();
    eprintln!("{report}");
    assert!(report.failures.is_empty() && report.answers.len() == 3, "{report}");
    assert_eq!(started(&project, "web"), before);
    assert_eq!(told(&project, begun, &["takes no connections"]), None, "{}", project.log());
}

/// Replicas of Go that are unhealthy as long as there is a file.
fn checked(x_sameport: &str) -> Project {
    let project = Project::new(&format!(
        r#"
services:
  web:
    image: ${{GO}}
    environment: {{ REPLICA: "{{{{.Slot}}}}" }}
    healthcheck:
      test: ["CMD-SHELL", "test ! -e /tmp/ill || {{ echo no database; exit 1; }}"]
      interval: 500ms
      timeout: 10s
      retries: 2
    tmpfs: [/tmp]
    ports: ["${{PORT}}:8080"]
    deploy: {{ replicas: 2 }}
    {x_sameport}
"#
    ));
    project.run(&["up", "-d", "--wait"]);
    project.serves(2);
    project
}

#[test]
fn whoever_the_engine_finds_unhealthy_is_replaced_and_everybody_is_told_why() {
    let project = checked("");
    let before = started(&project, "web");
    let load = Load::start(project.loopback(), 50);
    let begun = Timestamp::now();
    project.docker.run(&["exec", &format!("{}-web-1", project.name), "touch", "/tmp/ill"]);
    when(&project, begun, &["replaced", "slot=1", "unhealthy", "no database"]);
    // Its files in memory are gone with its process.
    let told = wait::until("it is told why", || {
        let shown = project.run(&["ps"]);
        check(shown.contains("replaced: unhealthy"), &shown).map(|()| shown)
    });
    assert!(told.contains("no database"), "{told}");
    wait::until("it is healthy again", || {
        let replicas = project.replicas("web");
        let is_new = replicas[0].started_at.map(|at| at.0) != before[0];
        check(is_new && replicas[0].state == ReplicaState::Healthy, replicas)
    });
    project.serves(2);
    let report = load.finish();
    assert!(report.failures.is_empty(), "{report}");
    assert_eq!(started(&project, "web")[1], before[1]);
}

#[test]
fn whoever_is_to_be_kept_is_only_out_of_rotation() {
    let project = checked("x-sameport: { replace_unhealthy: false }");
    let (begun, before) = (Timestamp::now(), started(&project, "web"));
    let run = |words: &[&str]| {
        let container = format!("{}-web-1", project.name);
        project.docker.run(&[&["exec", &container], words].concat())
    };
    run(&["touch", "/tmp/ill"]);
    when(&project, begun, &["rotation", "slot=1", "weight=0"]);
    let report = load::send(project.loopback(), 20);
    assert_eq!(report.answers.keys().collect::<Vec<_>>(), ["2"], "{report}");
    assert!(project.run(&["ps"]).contains("up, unhealthy"));
    thread::sleep(Duration::from_secs(10));
    assert_eq!(told(&project, begun, &["replaced"]), None);
    run(&["busybox", "rm", "/tmp/ill"]);
    project.serves(2);
    assert_eq!(started(&project, "web"), before);
}

#[test]
fn a_command_tells_whether_a_replica_lives_also_where_images_share_their_ports() {
    let project = Project::new(
        r#"
services:
  web:
    image: ${NGINX}
    environment: { REPLICA: "{{.Slot}}" }
    ports: ["${PORT}:8080"]
    deploy: { replicas: 2 }
    tmpfs: [/run/test]
    x-sameport:
      sharing: application
      probe:
        startup: { exec: ["sh", "-c", "test -d /run/test"], interval: 200ms, timeout: 10s }
        liveness: { exec: "test ! -e /run/test/ill || { echo gone mad; exit 7; }", interval: 300ms, timeout: 10s, failures: 2 }
"#,
    );
    project.run(&["up", "-d", "--wait"]);
    wait::until("both are known to be up", || {
        let replicas = project.replicas("web");
        check(replicas.iter().all(|replica| replica.state == ReplicaState::Healthy), replicas)
    });
    let (begun, before) = (Timestamp::now(), started(&project, "web"));
    project.docker.run(&["exec", &format!("{}-web-2", project.name), "touch", "/run/test/ill"]);
    when(&project, begun, &["replaced", "slot=2", "no sign of life", "exit code 7: gone mad"]);
    wait::until("it is up again", || {
        let replicas = project.replicas("web");
        let is_new = replicas[1].started_at.map(|at| at.0) != before[1];
        check(is_new && replicas[1].state == ReplicaState::Healthy, replicas)
    });
    assert_eq!(started(&project, "web")[0], before[0]);
}

#[test]
fn whoever_does_not_come_up_is_replaced_again_and_again_each_time_after_a_longer_pause() {
    let project = Project::new(
        r#"
services:
  web:
    image: ${GO}
    environment: { REPLICA: "{{.Slot}}", READY_AFTER: "1000" }
    ports: ["${PORT}:8080"]
    x-sameport:
      probe:
        startup: { http: /healthz, interval: 100ms, failures: 3, start_period: 500ms }
        readiness: { http: /, interval: 200ms }
"#,
    );
    project.run(&["up", "-d"]);
    let begun = Timestamp::UNIX_EPOCH;
    let mut last = begun;
    for _ in 0..3 {
        let words = ["replaced", "slot=1", "not up", "the status is 503"];
        last = when(&project, last + SignedDuration::from_millis(1), &words);
    }
    let words = wait::until("it is told to be a crash loop", || {
        let shown = project.run(&["ps"]);
        check(shown.contains("crash loop, "), &shown).map(|()| shown)
    });
    assert!(words.contains("replaced: not up"), "{words}");
    assert_eq!(told(&project, begun, &["weight=100"]), None, "it gets nothing");
}

#[test]
fn who_asks_for_what_the_engine_cannot_do_is_told() {
    let project = Project::new(
        r#"
services:
  web:
    image: ${GO}
    healthcheck: { test: ["CMD", "true"], interval: 1s, start_period: 5s, start_interval: 200ms }
"#,
    );
    let finished = project.try_run(&["up", "-d"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let version = project.docker.run(&["version", "--format", "{{.Server.APIVersion}}"]);
    let minor: u32 = version.rsplit('.').next().unwrap().parse().unwrap();
    let is_told = finished.stderr.contains("`start_interval` in the health check of web has no effect");
    assert_eq!(is_told, minor < 44, "API {version}: {finished:#?}");
}
