//! What somebody changes behind sameport's back is mended as `docs/explanation/drift.md` says, row by row. What dies is in `faults`, limits
//! that the file moves are in `limits`, who hangs is in `health`, names are in `connections`.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::support::{
    load::{self, Load},
    project::Project,
    wait::{self, check},
};

mod paused;
mod process;
mod recreated;
mod replica;
mod sandbox;

/// Requests a second while something is mended.
const LIGHT: u32 = 50;

/// A supervisor that does not see what happens meanwhile; it goes on when this is dropped.
struct Frozen(Pid);

impl Frozen {
    fn supervisor(project: &Project) -> Self {
        let pid = project.supervisor().expect("a supervisor runs");
        kill(pid, Signal::SIGSTOP).unwrap();
        Self(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // It fails where the supervisor is gone, which the test finds out.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// A container of a project, by what follows the project's name.
fn name(project: &Project, rest: &str) -> String {
    format!("{}-{rest}", project.name)
}

/// What the events of that kind say.
fn events(project: &Project, kind: &str) -> Vec<Value> {
    project.events().into_iter().filter(|event| event["event"] == kind).collect()
}

/// Waits until the project has converged and no error is reported.
fn is_converged(project: &Project) {
    wait::until("the project has converged", || {
        let status = project.status();
        check(status.converged && status.errors.is_empty() && status.foreign_resources.is_empty(), status)
    });
}

/// No request fails while something is done, and light load comes to the port of the pod.
fn unnoticed(what: &str, project: &Project, work: impl FnOnce()) -> load::Report {
    let load = Load::start(project.in_pod("web", 8080), LIGHT);
    work();
    let report = load.finish();
    assert!(report.failures.is_empty(), "{what}: {report}");
    assert!(report.answered() > 0, "{what}: {report}");
    report
}
