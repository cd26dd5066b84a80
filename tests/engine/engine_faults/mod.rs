//! The engine itself is at fault under a project that serves: what goes on, what is told, and what is mended afterwards.

mod answers;
mod processes;
mod room;

use std::{
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sameport::kernel::Pins;

use super::support::{
    daemon::Daemon,
    load::{self, Load},
    project::Project,
    wait::{self, check, slowly},
};

/// How many clients the load has, each with one request at a time.
const CLIENTS: usize = 4;

/// How long the supervisor may take to tell of a fault.
const SOON: Duration = Duration::from_secs(10);

/// How clients reach a pod: past all that the engine has between them.
#[derive(Clone)]
struct Way {
    address: SocketAddr,
    enter: Arc<dyn Fn() + Send + Sync>,
}

impl Way {
    /// On a private daemon.
    fn through(daemon: &Daemon, project: &Project) -> Self {
        let enter = daemon.enter();
        Self { address: daemon.pod_address(&project.name, "web"), enter: Arc::new(enter) }
    }

    /// On the engine of this host.
    fn on_host(project: &Project) -> Self {
        Self { address: project.in_pod("web", 8080), enter: Arc::new(|| ()) }
    }

    fn load(&self) -> Load {
        let enter = Arc::clone(&self.enter);
        Load::start_in(self.address, 100, move || enter())
    }

    /// Waits until so many replicas serve.
    fn serves(&self, replicas: usize) {
        let way = self.clone();
        let serving = thread::spawn(move || {
            (way.enter)();
            wait::until("all replicas serve", || {
                let report = load::send(way.address, 100);
                check(report.failures.is_empty() && report.answers.len() == replicas, report)
            });
        });
        serving.join().unwrap();
    }
}

/// Three replicas under load while their engine is at fault. One of them, web-2, can be killed meanwhile.
struct FeatureProbe<'a> {
    project: &'a Project,
    way: Way,
    load: Load,
    begin: Instant,
    supervisor: Pid,
    before: Vec<(String, String)>,
    victim: (String, Pid),
    killed: Option<Duration>,
}

impl<'a> FeatureProbe<'a> {
    /// All is well so far.
    fn begin(project: &'a Project, way: Way) -> Self {
        way.serves(3);
        let victim = project.docker.inspect(&format!("{}-web-2", project.name));
        Self {
            project,
            load: way.load(),
            begin: Instant::now(),
            supervisor: project.supervisor().unwrap(),
            before: project.processes(),
            victim: (
                victim["Id"].as_str().unwrap().to_owned(),
                Pid::from_raw(i32::try_from(victim["State"]["Pid"].as_i64().unwrap()).unwrap()),
            ),
            killed: None,
            way,
        }
    }

    /// Ends the process of web-2, without a word to the engine.
    fn kill_replica(&mut self) {
        self.killed = Some(self.begin.elapsed());
        kill(self.victim.1, Signal::SIGKILL).unwrap();
    }

    /// Waits until another process has taken the place of web-2.
    fn replaces(&self) {
        wait::until("web-2 is replaced", || {
            let after = self.project.processes();
            let is_new = after.len() == self.before.len() && self.before.iter().any(|p| !after.contains(p));
            check(is_new, (&self.before, after))
        });
    }

    /// How often an event of that name was told.
    fn events(&self, name: &str) -> usize {
        let told = self.project.run(&["events", "--no-follow", "--format", "json"]);
        told.lines().filter(|line| line.contains(&format!(r#""event":"{name}""#))).count()
    }

    /// Waits until an event of that name is told, which has to be soon.
    fn tells(&self, name: &str) {
        let begin = Instant::now();
        wait::until(&format!("{name} is told"), || {
            check(self.events(name) > 0, self.project.try_run(&["events", "--no-follow"]))
        });
        assert!(begin.elapsed() < slowly(SOON), "{name}: {:?}", begin.elapsed());
    }

    /// Waits until `ps` says that the engine does not answer, and since when, and lists what is known: within a second.
    fn shows_silence(&self) {
        wait::until("`ps` says within a second that the engine does not answer", || {
            let begin = Instant::now();
            let told = self.project.try_run(&["ps"]);
            let time = begin.elapsed();
            let is_whole = ["web-1", "web-2", "web-3"].iter().all(|name| told.stdout.contains(name));
            let is_told = told.stderr.contains("it answered the supervisor last at 20");
            check(is_whole && is_told && time < slowly(Duration::from_secs(1)), (time, told))
        });
    }

    /// Whether nothing but web-2 has ended.
    fn others_live(&self) {
        let after = self.project.processes();
        let gone: Vec<_> =
            self.before.iter().filter(|p| p.0 != self.victim.0 && !after.contains(p)).collect();
        assert!(gone.is_empty(), "{gone:?} of {:?}; {after:?}", self.before);
    }

    /// The fault has passed: all is as before but for web-2, which another process has replaced if it was killed, and no
    /// request has failed but those that web-2 had in hand. At last the project goes, and leaves nothing.
    fn ends_well(self) {
        wait::until("everything is up", || {
            let status = self.project.status();
            let is_up = status.replicas.len() == 3 && status.replicas.iter().all(|r| r.state.is_up());
            check(status.converged && is_up && status.engine_unreachable_since.is_none(), status)
        });
        let after = self.project.processes();
        let kept = self.before.iter().filter(|process| after.contains(process)).count();
        let replaced = usize::from(self.killed.is_some());
        assert_eq!((after.len(), kept), (4, 4 - replaced), "{:?}, {after:?}", self.before);
        self.way.serves(3);
        assert_eq!(self.project.supervisor(), Some(self.supervisor), "the supervisor has waited");
        let report = self.load.finish();
        let in_hand = |at: Duration| {
            self.killed.is_some_and(|killed| at >= killed && at < killed + slowly(Duration::from_secs(1)))
        };
        assert!(report.failures.len() <= CLIENTS, "{report}");
        assert!(report.failures.iter().all(|(at, _)| in_hand(*at)), "{:?}: {report}", self.killed);
        assert!(["1", "2", "3"].iter().all(|slot| report.answers.contains_key(*slot)), "{report}");
        self.project.run(&["down", "-v"]);
        assert_eq!(self.project.leftovers(), Vec::<String>::new());
        assert!(!Pins::exist(&self.project.name.parse().unwrap()), "something stays in the kernel");
    }
}
