//! What faults happen to: a project of two services, and clients that send to it all the time.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    cost::{AtRisk, Seen},
    engine::{self, Container},
    support::{
        load::{self, Load},
        project::Project,
        wait,
    },
    whole,
};

/// Clients that keep a connection.
pub const KEPT: u32 = 6;
/// Requests a second of each of the two kinds of clients.
const RATE: u32 = 60;
/// How many replicas the Compose file says.
pub const REPLICAS: u32 = 3;
/// Replicas of the service that nobody reaches from outside.
pub const STORES: u32 = 2;
/// How much memory a replica may take.
pub const MEMORY: i64 = 64 << 20;

/// The Compose file with that release of `web`, and more keys for it.
fn file(release: u32, more: &str) -> String {
    format!(
        r#"
services:
  web:
    image: ${{NGINX}}
    environment: {{ REPLICA: "{release}.{{{{.Slot}}}}", LISTEN: "" }}
    ports: ["${{PORT}}:8080"]
    volumes: ["data:/data"]
    tmpfs: [/tmp]
    stop_signal: SIGQUIT
    depends_on: [store]
    healthcheck: {{ test: ["CMD-SHELL", "test ! -e /tmp/ill"], interval: 500ms, timeout: 20s, retries: 2 }}
    deploy:
      replicas: {REPLICAS}
      update_config: {{ parallelism: 2, monitor: 0s, failure_action: rollback }}
      resources: {{ limits: {{ memory: {MEMORY}b }} }}
    x-sameport:
      drain: 300ms
      probe: {{ http: /get, port: 8080, interval: 200ms, timeout: 10s }}
{more}
  store:
    image: ${{REDIS}}
    environment: {{ REPLICA: "{{{{.Slot}}}}" }}
    expose: ["6379"]
    healthcheck: {{ test: ["CMD", "redis-cli", "ping"], interval: 2s, timeout: 20s }}
    deploy: {{ replicas: {STORES} }}
volumes: {{ data: {{}} }}
"#
    )
}

/// The project, its clients, and what is wanted of it now.
pub struct Scene {
    /// The project.
    pub project: Project,
    /// What decides about everything that is left to chance.
    pub rng: fastrand::Rng,
    /// Which release is to run.
    pub release: u32,
    /// How many replicas of it.
    pub replicas: u32,
    /// Containers that this fault takes the process of, by name.
    pub victims: Vec<String>,
    /// How many clients can have something in the hands of those.
    pub at_risk: AtRisk,
    /// What the engine showed when all was whole the last time.
    pub before: BTreeMap<String, Container>,
    /// What was pinned at first.
    pub pins: Vec<String>,
    /// When this fault began, by the clients' clock.
    pub begin: (Instant, Duration),
    fresh: Load,
    kept: Load,
}

impl Scene {
    /// Starts the project and its clients, and waits until all is whole.
    pub fn start(seed: u64) -> Self {
        let project = Project::new(&file(1, ""));
        project.run(&["up", "-d", "--wait"]);
        project.run(&["exec", "web-1", "--", "sh", "-c", "echo kept >/data/token"]);
        let fresh = Load::start(project.outside(), RATE);
        let kept = Load::kept(project.outside(), "/get", KEPT, RATE);
        let mut scene = Self {
            rng: fastrand::Rng::with_seed(seed),
            release: 1,
            replicas: REPLICAS,
            victims: Vec::new(),
            at_risk: AtRisk::default(),
            before: BTreeMap::new(),
            pins: Vec::new(),
            begin: (Instant::now(), fresh.elapsed()),
            fresh,
            kept,
            project,
        };
        wait::until("all is whole at first", || whole::look(&scene));
        scene.pins = whole::pins(&scene.project);
        scene.before = engine::containers(&scene.project).unwrap();
        let seen = scene.take();
        assert!(seen.all().failures.is_empty(), "{seen}");
        scene
    }

    /// The next fault begins.
    pub fn next(&mut self) {
        self.victims.clear();
        self.at_risk = AtRisk::default();
        self.begin = (Instant::now(), self.fresh.elapsed());
    }

    /// What the clients saw since the last time; whatever was under way is over.
    pub fn take(&self) -> Seen {
        Seen { fresh: self.fresh.take(), kept: self.kept.take() }
    }

    /// Any client may have something in the hands of a process that ends.
    pub fn all_at_risk(&mut self) {
        self.at_risk = AtRisk { fresh: load::CLIENTS as usize, kept: KEPT as usize };
    }

    /// What clients call the replica in a slot.
    pub fn replica(&self, slot: u32) -> String {
        format!("{}.{slot}", self.release)
    }

    /// The container of a replica of `web`.
    pub fn web(&self, slot: u32) -> String {
        self.container(&format!("web-{slot}"))
    }

    /// A container of the project: `web-1`, `store-sandbox`.
    pub fn container(&self, name: &str) -> String {
        format!("{}-{name}", self.project.name)
    }

    /// Chooses a replica that is going to lose its process: its slot and its container.
    pub fn victim(&mut self) -> (u32, String) {
        let (slot, container) = self.some_replica();
        self.loses(slot);
        (slot, container)
    }

    /// Chooses a replica: its slot and its container.
    pub fn some_replica(&mut self) -> (u32, String) {
        let slot = self.rng.u32(1..=self.replicas);
        (slot, self.web(slot))
    }

    /// The replica in that slot is going to lose its process, and what that has in hand.
    pub fn loses(&mut self, slot: u32) {
        self.victims.push(self.web(slot));
        self.at_risk.fresh = load::CLIENTS as usize;
        self.at_risk.kept += self.kept.last_answered_by(&self.replica(slot));
    }

    /// Whoever keeps a connection to the replica in that slot may lose it; nobody else is sent there.
    pub fn loses_kept(&mut self, slot: u32) {
        self.at_risk.kept += self.kept.last_answered_by(&self.replica(slot));
        self.victims.push(self.web(slot));
    }

    /// All replicas of `web` get new processes.
    pub fn all_change(&mut self) {
        self.victims = (1..=self.replicas).map(|slot| self.web(slot)).collect();
    }

    /// All of `web` gets new processes, with its network.
    pub fn pod_changes(&mut self) {
        self.all_change();
        self.victims.push(self.container("web-sandbox"));
    }

    /// A time of up to so many milliseconds.
    pub fn up_to(&mut self, milliseconds: u64) -> Duration {
        Duration::from_millis(self.rng.u64(0..=milliseconds))
    }

    /// Writes the file of the wanted release.
    pub fn write(&self) {
        self.project.write(&file(self.release, ""));
    }

    /// Writes the file of the next release, which is wanted from now on.
    pub fn write_next(&mut self) {
        self.release += 1;
        self.write();
    }

    /// Writes the file of a release that is not wanted, with more keys.
    pub fn write_unwanted(&self, more: &str) {
        self.project.write(&file(self.release + 1000, more));
    }

    /// Begins a supervisor if there is none.
    pub fn up(&self) {
        self.project.run(&["up", "-d"]);
    }

    /// A file that the supervisor keeps: `lock`, `sock`, `json`.
    pub fn kept_file(&self, kind: &str) -> PathBuf {
        self.project.path(&format!("sameport/{}.{kind}", self.project.name))
    }
}

/// Sends a signal to a process of the project.
pub fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap_or_else(|error| panic!("{signal} to {pid}: {error}"));
}

/// The child processes of a process.
pub fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// The parent of a process.
pub fn parent(pid: i32) -> i32 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = text.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    parent.trim().parse().unwrap()
}
