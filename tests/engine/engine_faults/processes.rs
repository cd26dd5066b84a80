//! The engine's processes are killed, ended, stopped.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    super::support::{
        daemon::{Daemon, LiveRestore},
        load,
        project::{Project, web},
        wait::{self, check},
    },
    FeatureProbe, Way,
};

/// How long the daemon is stopped by a signal.
const STOPPED: Duration = Duration::from_secs(10);

fn up(daemon: &Daemon) -> Project {
    let project = Project::on(daemon.docker(), &web(3));
    project.run(&["up", "-d", "--wait"]);
    project
}

/// Ends the daemon in that way while a replica is killed, and starts it again.
fn with_live_restore(end: fn(&mut Daemon)) {
    let mut daemon = Daemon::start(LiveRestore::On);
    let project = up(&daemon);
    let mut feature_probe = FeatureProbe::begin(&project, Way::through(&daemon, &project));
    end(&mut daemon);
    feature_probe.tells("engine_unreachable");
    feature_probe.shows_silence();
    feature_probe.kill_replica();
    daemon.begin();
    feature_probe.tells("engine_reachable");
    feature_probe.ends_well();
}

#[test]
fn the_daemon_is_killed_with_live_restore() {
    with_live_restore(Daemon::kill);
}

#[test]
fn the_daemon_is_ended_with_live_restore() {
    with_live_restore(Daemon::stop);
}

/// The daemon ends all containers when it starts again, if not before.
fn without_live_restore(end: fn(&mut Daemon)) {
    let mut daemon = Daemon::start(LiveRestore::Off);
    let project = up(&daemon);
    let before = project.processes();
    let supervisor = project.supervisor();
    end(&mut daemon);
    daemon.begin();
    wait::until("all containers run again", || {
        let after = project.processes();
        check(after.len() == 4 && after.iter().all(|p| !before.contains(p)), after)
    });
    wait::until("the supervisor has caught up", || {
        let status = project.status();
        check(status.converged && status.replicas.iter().all(|r| r.state.is_up()), status)
    });
    assert_eq!(project.supervisor(), supervisor, "the supervisor has waited");
    let address = daemon.address(&project.name, project.port);
    let enter = daemon.enter();
    let report = thread::spawn(move || {
        enter();
        wait::until("all three replicas serve", || {
            let report = load::send(address, 100);
            check(report.failures.is_empty() && report.answers.len() == 3, &report).map(|()| report)
        })
    });
    assert_eq!(report.join().unwrap().answered(), 100);
    project.run(&["down", "-v"]);
    assert_eq!(project.leftovers(), Vec::<String>::new());
}

#[test]
fn the_daemon_is_killed_without_live_restore_and_everything_comes_back() {
    without_live_restore(Daemon::kill);
}

#[test]
fn the_daemon_is_ended_without_live_restore_and_everything_comes_back() {
    without_live_restore(Daemon::stop);
}

/// Without a sandbox whose end shows that nobody has meant it.
fn on_the_hosts_network(end: fn(&mut Daemon)) {
    let mut daemon = Daemon::start(LiveRestore::Off);
    let compose = "services:\n  web:\n    image: ${NGINX}\n    command: [sleep, \"1000\"]\n    network_mode: host\n    \
                   stop_grace_period: 0s\n    deploy: { replicas: 2 }\n";
    let project = Project::on(daemon.docker(), compose);
    project.run(&["up", "-d", "--wait"]);
    let before = project.processes();
    end(&mut daemon);
    daemon.begin();
    wait::until("both run again", || {
        let after = project.processes();
        check(after.len() == 2 && after.iter().all(|p| !before.contains(p)), (after, project.status()))
    });
    // A stop by somebody is meant all the same.
    let stopped = project.replicas("web")[0].name.clone();
    daemon.docker().run(&["stop", &stopped]);
    wait::until("it is known who has stopped it", || {
        let told = project.status().replicas;
        check(told.iter().any(|r| r.name == stopped && r.stopped_externally_at.is_some()), told)
    });
    project.run(&["down", "-v"]);
    assert_eq!(project.leftovers(), Vec::<String>::new());
}

#[test]
fn replicas_on_the_hosts_network_come_back_once_a_killed_daemon_is_back() {
    on_the_hosts_network(Daemon::kill);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn replicas_on_the_hosts_network_come_back_once_an_ended_daemon_is_back() {
    on_the_hosts_network(Daemon::stop);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn the_daemon_is_stopped_by_a_signal_and_goes_on() {
    let daemon = Daemon::start(LiveRestore::On);
    let project = up(&daemon);
    let mut feature_probe = FeatureProbe::begin(&project, Way::through(&daemon, &project));
    let begin = Instant::now();
    daemon.freeze();
    feature_probe.kill_replica();
    feature_probe.tells("engine_unreachable");
    feature_probe.shows_silence();
    // Nothing is done about silence, however long it takes.
    thread::sleep(STOPPED.saturating_sub(begin.elapsed()));
    daemon.thaw();
    feature_probe.tells("engine_reachable");
    feature_probe.ends_well();
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn containerd_is_killed() {
    let mut daemon = Daemon::start(LiveRestore::On);
    let project = up(&daemon);
    let mut feature_probe = FeatureProbe::begin(&project, Way::through(&daemon, &project));
    daemon.kill_containerd();
    feature_probe.kill_replica();
    feature_probe.tells("process_lost");
    feature_probe.others_live();
    daemon.begin_containerd();
    feature_probe.ends_well();
}

/// The shims of containerd, which are the parents of containers' processes, tell of their ends. Without one, nobody does.
#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn a_process_that_is_gone_though_the_engine_says_that_it_runs_is_replaced() {
    let mut daemon = Daemon::start(LiveRestore::On);
    let project = up(&daemon);
    let mut feature_probe = FeatureProbe::begin(&project, Way::through(&daemon, &project));
    // It would tell the daemon that a shim has ended.
    daemon.kill_containerd();
    daemon.kill_shim(feature_probe.victim.1);
    feature_probe.kill_replica();
    let state = project.docker.inspect(&feature_probe.victim.0)["State"].take();
    assert_eq!(state["Running"], true, "{state}");
    daemon.begin_containerd();
    feature_probe.tells("process_lost");
    feature_probe.replaces();
    feature_probe.ends_well();
}
