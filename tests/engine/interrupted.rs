//! A change of version that the engine's restart, or that of the whole host, comes into: it goes on.

use super::support::{
    daemon::{Daemon, LiveRestore},
    load::Load,
    project::Project,
    wait::{self, check},
};

/// Three replicas of nginx, of that release.
fn release(number: u32) -> String {
    format!(
        r#"
services:
  web:
    image: ${{NGINX}}
    environment: {{ LISTEN: "", RELEASE: "{number}" }}
    ports: ["${{PORT}}:8080"]
    deploy: {{ replicas: 3, update_config: {{ monitor: 2s }} }}
"#
    )
}

/// The releases that its replicas run.
fn releases(project: &Project) -> Vec<String> {
    let names = project.docker.lines(&["ps", "--format", "{{.Names}}", "--filter", "name=-web-"]);
    let replicas = names.iter().filter(|name| name.starts_with(&project.name) && !name.ends_with("sandbox"));
    let mut releases: Vec<_> = replicas
        .filter_map(|name| {
            // It may go at any time.
            let text = project.docker.try_run(&["inspect", "-f", "{{json .Config.Env}}", name]).ok()?;
            let environment: Vec<String> = serde_json::from_str(&text).unwrap();
            environment.iter().find_map(|pair| pair.strip_prefix("RELEASE=").map(str::to_owned))
        })
        .collect();
    releases.sort();
    releases
}

/// A project whose first replica runs the second release, and whose others do not yet.
fn half_way(daemon: &Daemon) -> Project {
    let project = Project::on(daemon.docker(), &release(1));
    project.run(&["up", "-d", "--wait"]);
    project.write(&release(2));
    project.run(&["up", "-d", "--dry-run"]);
    let _up = project.start(&["up", "-d", "--wait"]);
    wait::until("the first one is replaced", || {
        let text = project.run(&["rollout", "status", "web", "--format", "json"]);
        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        check(status["in_progress"]["done"].as_u64() >= Some(1), text)
    });
    project
}

fn is_done(project: &Project) {
    wait::until("all of them run the second release", || {
        let (status, releases) = (project.status(), releases(project));
        check(status.converged && releases == ["2", "2", "2"], (releases, status.replicas))
    });
}

#[test]
fn a_restart_of_the_engine_with_live_restore_costs_no_request() {
    let mut daemon = Daemon::start(LiveRestore::On);
    let project = half_way(&daemon);
    let load = Load::start_in(daemon.pod_address(&project.name, "web"), 100, daemon.enter());
    daemon.restart();
    is_done(&project);
    let report = load.finish();
    assert!(report.failures.is_empty() && report.answered() > 200, "{report}");
}

#[test]
fn a_restart_of_the_engine_only_delays_it() {
    let mut daemon = Daemon::start(LiveRestore::Off);
    let project = half_way(&daemon);
    daemon.restart();
    is_done(&project);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn after_the_host_was_off_it_goes_on() {
    let mut daemon = Daemon::start(LiveRestore::Off);
    let project = half_way(&daemon);
    project.kill_supervisor();
    daemon.restart();
    project.run(&["up", "-d", "--wait"]);
    is_done(&project);
}
