//! The process of a sandbox ends, and the engine does not learn of it. That of a replica is among the engine's faults.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    super::support::{
        daemon::{Daemon, LiveRestore},
        project::{Project, web},
        wait::{self, check},
    },
    events, is_converged, name,
};

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn a_sandbox_whose_process_is_gone_is_replaced_with_its_pod_though_the_engine_says_that_it_runs() {
    let mut daemon = Daemon::start(LiveRestore::On);
    let project = Project::on(daemon.docker(), &web(3));
    project.run(&["up", "-d", "--wait"]);
    let sandbox = name(&project, "web-sandbox");
    let before = project.processes();
    let victim = project.docker.pid(&sandbox);
    daemon.kill_containerd();
    daemon.kill_shim(Pid::from_raw(victim));
    kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
    let state = project.docker.inspect(&sandbox)["State"].take();
    assert!(state["Running"] == true && state["Pid"] == victim, "it is made: {state:#}");
    daemon.begin_containerd();
    wait::until("it is told", || {
        let lost = events(&project, "process_lost");
        check(lost.len() == 1, lost)
    });
    wait::until("the pod is made anew", || {
        let state = project.docker.find(&sandbox).map(|mut found| found["State"].take());
        let is_new = |state: &serde_json::Value| state["Running"] == true && state["Pid"] != victim;
        check(state.as_ref().is_some_and(is_new), (state, project.try_run(&["ps"])))
    });
    is_converged(&project);
    let after = project.processes();
    assert_eq!(after.len(), 4);
    assert!(after.iter().all(|process| !before.contains(process)), "all of it is new: {after:?}");
}
