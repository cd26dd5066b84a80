//! A project of a test's own, used through the `sameport` binary as a user does.

use std::{
    ffi::OsStr,
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sameport::api::schema::{Replica, Status};
use tempfile::TempDir;

use super::{
    docker::{self, Docker},
    images, load, ports, wait,
};

static PROJECTS: AtomicU32 = AtomicU32::new(0);
/// How many seconds no command takes, on however slow a machine.
const TOO_LONG: &str = "240";

/// A Compose file in a folder of its own, with folders of its own for what sameport keeps. It goes down when it
/// is dropped.
pub struct Project {
    /// Its name, which nothing else has.
    pub name: String,
    /// The free port that stands for `${PORT}` in the file.
    pub port: u16,
    /// The engine that it runs on.
    pub docker: Docker,
    folder: TempDir,
    variables: Vec<(&'static str, String)>,
}

/// What a finished `sameport` command left.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Project {
    /// A project on the engine that the `docker` command finds. In the file, `${PORT}` is a free port, `${NGINX}`
    /// and so on are the images of `tests/images`.
    pub fn new(compose: &str) -> Self {
        Self::on(Docker::default(), compose)
    }

    /// A project of nginx behind the port, in so many replicas that name their slot in each answer.
    pub fn web(replicas: u32) -> Self {
        Self::new(&web(replicas))
    }

    /// A project on that engine.
    pub fn on(docker: Docker, compose: &str) -> Self {
        let number = PROJECTS.fetch_add(1, Ordering::Relaxed);
        let port = ports::free();
        let mut variables = images::named_in(compose);
        variables.push(("PORT", port.to_string()));
        let project = Self {
            name: format!("spt{}-{number}", std::process::id()),
            port,
            docker,
            // A path of a socket may have 107 bytes.
            folder: tempfile::Builder::new().prefix("spt").tempdir_in("/tmp").unwrap(),
            variables,
        };
        project.write(compose);
        project
    }

    /// The same project, whose `sameport` commands find another socket than that of its engine.
    pub fn by(mut self, socket: &Path) -> Self {
        self.variables.push(("DOCKER_HOST", format!("unix://{}", socket.display())));
        self
    }

    /// What a variable of the file such as `${GO}` stands for.
    pub fn image(&self, name: &str) -> String {
        let found = self.variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, image)| image.clone()).unwrap()
    }

    /// A file of that name beside the project's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces the file.
    pub fn write(&self, compose: &str) {
        fs::write(self.folder.path().join("compose.yaml"), compose).unwrap();
    }

    /// A `sameport` command for this project.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sameport"));
        self.docker.choose(&mut command);
        command
            .current_dir(self.folder.path())
            .envs(self.variables.iter().map(|(key, value)| (key, value)))
            .env("COMPOSE_PROJECT_NAME", &self.name)
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env("XDG_STATE_HOME", self.folder.path())
            .stdin(Stdio::null())
            .args(args);
        command
    }

    /// A `sameport` command on a terminal of its own, on which a line of a shell is run first. What the terminal
    /// shows is its standard output.
    pub fn on_terminal(&self, first: &str, args: &[&str]) -> Command {
        let inside = self.command(args);
        let words: Vec<_> = words(&inside).map(|word| format!("'{}'", word.to_str().unwrap())).collect();
        // It gives its child a terminal, and its own exit code is the child's.
        let mut command = self.around(&inside, "script");
        command.args(["-qec", &format!("{first}\nexec {}", words.join(" ")), "/dev/null"]);
        command
    }

    /// A command that is to run another one.
    fn around(&self, inside: &Command, program: &str) -> Command {
        let mut command = Command::new(program);
        for (key, value) in inside.get_envs() {
            command.env(key, value.unwrap());
        }
        command.current_dir(&self.folder).stdin(Stdio::null());
        command
    }

    /// Runs a `sameport` command to its end. One that hangs is ended, so that what it said is seen: its exit code is
    /// 124.
    pub fn try_run(&self, args: &[&str]) -> Finished {
        let inside = self.command(args);
        let mut command = self.around(&inside, "timeout");
        command.args(["--foreground", "--kill-after=10", TOO_LONG]).args(words(&inside));
        command.output().unwrap().into()
    }

    /// Runs a line of a shell in the project's folder to its end, as a user types it.
    pub fn shell(&self, line: &str) -> Finished {
        let binary = Path::new(env!("CARGO_BIN_EXE_sameport"));
        let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
        let mut command = self.around(&self.command(&[]), "timeout");
        command.args(["--foreground", "--kill-after=10", TOO_LONG, "sh", "-c", line]).env("PATH", path);
        command.output().unwrap().into()
    }

    /// As [`Self::try_run`], by way of `setpriv` (1) with these settings. `program`: a copy of the binary, for whoever may not
    /// read the one that was built.
    pub fn try_run_by_setpriv(&self, settings: &[&str], program: Option<&Path>, args: &[&str]) -> Finished {
        let inside = self.command(args);
        let mut command = self.around(&inside, "setpriv");
        command.args(settings).args(["timeout", "--foreground", "--kill-after=10", TOO_LONG]);
        command.arg(program.map_or(inside.get_program(), Path::as_os_str)).args(inside.get_args());
        command.output().unwrap().into()
    }

    /// Runs a `sameport` command that has to succeed, and returns what it printed.
    pub fn run(&self, args: &[&str]) -> String {
        let finished = self.try_run(args);
        assert_eq!(finished.code, Some(0), "sameport {}: {finished:#?}", args.join(" "));
        finished.stdout
    }

    /// Starts a `sameport` command that stays in the foreground.
    pub fn start(&self, args: &[&str]) -> Foreground {
        self.start_command(self.command(args))
    }

    /// Starts a command of this project that stays in the foreground.
    pub fn start_command(&self, mut command: Command) -> Foreground {
        let number = PROJECTS.fetch_add(1, Ordering::Relaxed);
        let output = self.folder.path().join(format!("foreground-{number}.log"));
        let file = fs::File::create(&output).unwrap();
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Foreground { child, output }
    }

    /// The project's status, as `sameport status` says.
    pub fn status(&self) -> Status {
        let text = self.run(&["status", "--format", "json"]);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// What has happened so far, as `sameport events` says.
    pub fn events(&self) -> Vec<serde_json::Value> {
        let text = self.run(&["events", "--no-follow", "--format", "json"]);
        let event = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        text.lines().map(event).collect()
    }

    /// The replicas of a service, as `sameport status` says.
    pub fn replicas(&self, service: &str) -> Vec<Replica> {
        let mut replicas = self.status().replicas;
        replicas.retain(|replica| replica.service == service);
        replicas
    }

    /// What makes a running process that process: the container and when it started.
    pub fn processes(&self) -> Vec<(String, String)> {
        let filter = docker::of_project(&self.name);
        let mut found: Vec<_> = self
            .docker
            .lines(&["ps", "-q", "--no-trunc", "--filter", &filter])
            .into_iter()
            // Whoever is just being removed is none.
            .filter_map(|id| {
                let started_at = self.docker.find(&id)?["State"]["StartedAt"].as_str().unwrap().to_owned();
                Some((id, started_at))
            })
            .collect();
        found.sort();
        found
    }

    /// Everything on the engine that carries the project's label, and its supervisor's lock.
    pub fn leftovers(&self) -> Vec<String> {
        let filter = docker::of_project(&self.name);
        let mut found = self.docker.lines(&["ps", "-aq", "--filter", &filter]);
        let lock = docker::lock_of_project(&self.name);
        found.extend(self.docker.lines(&["ps", "-aq", "--filter", &lock]));
        found.extend(self.docker.lines(&["network", "ls", "-q", "--filter", &filter]));
        found.extend(self.docker.lines(&["volume", "ls", "-q", "--filter", &filter]));
        found.extend(self.docker.kept_images(&self.name).unwrap());
        found
    }

    /// The published port, as a program on this host reaches it.
    pub fn loopback(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The published port, as other machines reach it: without Docker's user-space proxy.
    pub fn outside(&self) -> SocketAddr {
        outside(self.port)
    }

    /// A port of a pod, as programs on this host reach it: past the published ports, and past all that Docker has
    /// between those and the pod.
    pub fn in_pod(&self, pod: &str, port: u16) -> SocketAddr {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let sandbox = format!("{}-{pod}-sandbox", self.name);
        let address = self.docker.run(&["container", "inspect", &sandbox, "-f", format]);
        (address.parse::<Ipv4Addr>().unwrap(), port).into()
    }

    /// Waits until so many replicas serve at once, each of them seen answering.
    pub fn serves(&self, replicas: usize) -> load::Report {
        wait::until(&format!("{replicas} replicas of {} serve", self.name), || {
            let report = load::send(self.loopback(), 40 * u32::try_from(replicas).unwrap());
            match report.failures.is_empty() && report.answers.len() == replicas {
                true => Ok(report),
                false => Err(format!("{report}{:#?}", self.try_run(&["ps"]))),
            }
        })
    }

    /// Waits until the published port is answered by anybody.
    pub fn serves_some(&self) {
        wait::until("the port is served", || load::request(self.loopback()).map_err(|f| format!("{f:?}")));
    }

    /// The process id of the supervisor, from the lock that it holds.
    pub fn supervisor(&self) -> Option<Pid> {
        let lock = self.folder.path().join(format!("sameport/{}.lock", self.name));
        let pid: i32 = fs::read_to_string(lock).ok()?.trim().parse().ok()?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let ours = String::from_utf8_lossy(&command).contains("sameport");
        ours.then(|| Pid::from_raw(pid))
    }

    /// Kills the supervisor in the background, and waits until it is gone.
    pub fn kill_supervisor(&self) {
        let pid = self.supervisor().expect("a supervisor runs");
        kill(pid, Signal::SIGKILL).unwrap();
        wait::until("the supervisor is gone", || {
            let gone = self.supervisor().is_none();
            wait::check(gone, pid)
        });
    }

    /// The container that is its supervisor's lock on the engine.
    pub fn engine_lock(&self) -> String {
        format!("{}.supervisor", self.name)
    }

    /// Where its supervisor listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join(format!("sameport/{}.sock", self.name))
    }

    /// What the supervisor in the background has written.
    pub fn log(&self) -> String {
        let log = self.folder.path().join(format!("sameport/{}.log", self.name));
        fs::read_to_string(log).unwrap_or_default()
    }

    fn show(&self) {
        let filter = docker::of_project(&self.name);
        eprintln!("{:#?}", self.try_run(&["ps"]));
        eprintln!("{:?}", self.docker.try_run(&["ps", "-a", "--filter", &filter]));
        let log = self.log();
        let lines: Vec<_> = log.lines().rev().take(60).collect();
        lines.iter().rev().for_each(|line| eprintln!("supervisor: {line}"));
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show();
        }
        if let Some(pid) = self.supervisor() {
            // It may have ended by itself just now.
            let _ = kill(pid, Signal::SIGKILL);
        }
        // An action of the engine may still have been under way when the supervisor was killed.
        for _ in 0..2 {
            if let Err(error) = self.docker.remove_project(&self.name) {
                eprintln!("not everything of {} is removed: {error}", self.name);
            }
        }
        if let Err(error) = sameport::kernel::Pins::clear(&self.name.parse().unwrap()) {
            eprintln!("something of {} stays in the kernel: {error}", self.name);
        }
    }
}

/// A published port, as other machines reach it: without Docker's user-space proxy.
pub fn outside(port: u16) -> SocketAddr {
    // No packet is sent: the kernel only chooses the address that it would use.
    let address = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    (address.map_or(Ipv4Addr::LOCALHOST.into(), |a| a.ip()), port).into()
}

/// The file of [`Project::web`].
pub fn web(replicas: u32) -> String {
    format!(
        r#"
services:
  web:
    image: ${{NGINX}}
    environment: {{ REPLICA: "{{{{.Slot}}}}" }}
    ports: ["${{PORT}}:8080"]
    deploy: {{ replicas: {replicas} }}
"#
    )
}

/// A `sameport` command that runs; it is killed when it is dropped.
pub struct Foreground {
    child: Child,
    output: PathBuf,
}

impl Foreground {
    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// What it printed so far.
    pub fn printed(&self) -> String {
        fs::read_to_string(&self.output).unwrap()
    }

    /// Waits for its end, and returns its exit code.
    pub fn exit_code(&mut self) -> Option<i32> {
        let status = wait::until("the command ends", || match self.child.try_wait().unwrap() {
            Some(status) => Ok(status),
            None => Err(self.printed()),
        });
        status.code()
    }

    /// Whether it is still there.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Whether it is still there after that long.
    pub fn outlives(&mut self, time: Duration) -> bool {
        std::thread::sleep(time);
        self.is_running()
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command's program and arguments.
fn words(command: &Command) -> impl Iterator<Item = &OsStr> {
    [command.get_program()].into_iter().chain(command.get_args())
}
