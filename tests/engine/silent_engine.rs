//! The engine takes calls and does not answer, and commands say what is known.

use std::time::{Duration, Instant};

use super::support::{
    daemon::{Daemon, LiveRestore},
    project::{Finished, Project, web},
    wait::{self, check, slowly},
};

/// Thaws the daemon at the end, whatever comes of the test.
struct Frozen<'a>(&'a Daemon);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.thaw();
    }
}

#[test]
fn what_is_known_is_told_at_once_and_that_the_engine_does_not_answer() {
    let daemon = Daemon::start(LiveRestore::On);
    let project = Project::on(daemon.docker(), &web(2));
    project.run(&["up", "-d", "--wait"]);
    daemon.freeze();
    let frozen = Frozen(&daemon);
    for args in [&["ps"][..], &["drain", "web-1"], &["weight", "web-1=100"], &["events", "--no-follow"]] {
        let (told, time) = timed(&project, args);
        assert_eq!(told.code, Some(0), "{args:?}: {told:#?}");
        assert!(time < slowly(Duration::from_secs(2)), "{args:?} took {time:?}");
    }
    let (ps, _) = timed(&project, &["ps"]);
    assert!(ps.stdout.contains("web-2") && ps.stderr.contains("the engine does not answer"), "{ps:#?}");
    // It waits for the engine, and says so.
    let logs = project.start(&["logs"]);
    let begin = Instant::now();
    wait::until("it says what it waits for", || {
        check(logs.printed().contains("the engine does not answer"), logs.printed())
    });
    assert!(begin.elapsed() < slowly(Duration::from_secs(2)), "{:?}", begin.elapsed());
    drop(logs);
    // Once the supervisor has asked in vain, it is known since when: a restart has it look.
    let waiting = project.start(&["restart", "web-1"]);
    wait::until("the supervisor knows since when", || {
        let (ps, time) = timed(&project, &["ps"]);
        assert!(time < slowly(Duration::from_secs(2)), "{time:?}");
        check(ps.stderr.contains("it answered the supervisor last at 20"), ps)
    });
    drop(frozen);
    drop(waiting);
    wait::until("everything is as before", || {
        let status = project.status();
        check(status.converged && status.engine_unreachable_since.is_none(), status)
    });
}

fn timed(project: &Project, args: &[&str]) -> (Finished, Duration) {
    let begin = Instant::now();
    let finished = project.try_run(args);
    (finished, begin.elapsed())
}
