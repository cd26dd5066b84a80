//! The engine itself is restarted under a project, and the supervisor gets over it.

use super::support::{
    daemon::{Daemon, LiveRestore},
    load::{self, Load},
    project::{Project, web},
    wait::{self, check},
};

fn up(daemon: &Daemon) -> Project {
    let project = Project::on(daemon.docker(), &web(3));
    project.run(&["up", "-d", "--wait"]);
    project
}

fn converged(project: &Project) {
    wait::until("the supervisor has caught up", || {
        let status = project.status();
        check(status.converged && status.replicas.iter().all(|r| r.state.is_up()), status)
    });
}

#[test]
fn with_live_restore_nobody_notices() {
    let mut daemon = Daemon::start(LiveRestore::On);
    let project = up(&daemon);
    let before = project.processes();
    let supervisor = project.supervisor();
    // At the pod's own address: the daemon itself takes its published ports away for a moment when it starts.
    let load = Load::start_in(daemon.pod_address(&project.name, "web"), 100, daemon.enter());
    daemon.restart();
    converged(&project);
    assert_eq!(project.processes(), before);
    assert_eq!(project.supervisor(), supervisor, "the supervisor has waited");

    // It does not only look well: what dies now is replaced.
    let report = load.finish();
    assert!(report.failures.is_empty(), "{report}");
    assert_eq!(report.answers.len(), 3, "{report}");
    project.docker.run(&["kill", &format!("{}-web-2", project.name)]);
    wait::until("the replica is replaced", || {
        let after = project.processes();
        check(after.len() == 4 && after != before, after)
    });
}

#[test]
fn without_live_restore_everything_comes_back() {
    let mut daemon = Daemon::start(LiveRestore::Off);
    let project = up(&daemon);
    let before = project.processes();
    let supervisor = project.supervisor();
    daemon.restart();
    wait::until("all containers run again", || {
        let after = project.processes();
        check(after.len() == 4 && after.iter().all(|p| !before.contains(p)), after)
    });
    converged(&project);
    assert_eq!(project.supervisor(), supervisor, "the supervisor has waited");
    let address = daemon.address(&project.name, project.port);
    let enter = daemon.enter();
    let report = std::thread::spawn(move || {
        enter();
        wait::until("all three replicas serve", || {
            let report = load::send(address, 100);
            check(report.failures.is_empty() && report.answers.len() == 3, &report).map(|()| report)
        })
    });
    assert_eq!(report.join().unwrap().answered(), 100);
}
