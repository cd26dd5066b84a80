//! A project as an older release leaves it, and a supervisor of that release.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use nix::fcntl::{Flock, FlockArg};
use sameport::supervisor::StateFile;

use super::{
    engine, fixtures,
    kernel::OldKernel,
    support::{docker::Docker, images, project::Project, wait},
};

/// The port and the volume of `upgrade.yaml`. Each project gets others, so that several can be there at once.
const PORT: &str = "32744";
const VOLUME: &str = "sameport-upgrade-data";
/// What a sandbox is made of is known by this name.
const SANDBOX: &str = "localhost/sameport-sandbox:upgrade";
const IMAGE: &str = "localhost/sameport-upgrade:1";

/// Where the old release comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Its binary.
    Binary(PathBuf),
    /// The fixtures that it made.
    Fixtures,
}

impl Origin {
    /// All that can be had.
    pub fn all() -> Vec<Self> {
        let binary = env::var_os("SAMEPORT_OLD").map(|path| Self::Binary(path.into()));
        [Self::Fixtures].into_iter().chain(binary).collect()
    }
}

/// Three replicas of nginx, of which the third one gets nothing, and a volume.
pub struct Older {
    pub project: Project,
    origin: Origin,
    supervisor: Option<Child>,
}

impl Older {
    /// As it is while a supervisor of the old release runs.
    pub fn supervised(origin: Origin) -> Self {
        let mut older = Self::begun(origin);
        if older.origin == Origin::Fixtures {
            older.supervisor = Some(stub(&older.project));
        }
        older
    }

    /// As it is after its supervisor was killed.
    pub fn killed(origin: Origin) -> Self {
        let older = Self::begun(origin);
        if older.origin != Origin::Fixtures {
            older.project.kill_supervisor();
        }
        older
    }

    fn begun(origin: Origin) -> Self {
        let docker = Docker::default();
        let nginx = images::build("nginx");
        [IMAGE, SANDBOX].iter().for_each(|name| drop(docker.run(&["tag", &nginx, name])));
        let project = Project::new("");
        let older = Self { project, origin, supervisor: None };
        let compose = fs::read_to_string(fixtures::folder().join("compose/upgrade.yaml")).unwrap();
        older.project.write(&older.own(&compose));
        match &older.origin {
            Origin::Binary(binary) => {
                run(&older.project, binary, &["up", "-d", "--wait"]);
                run(&older.project, binary, &["weight", "web.3=0"]);
            }
            Origin::Fixtures => older.make(),
        }
        wait::until("two replicas serve", || {
            let report = super::support::load::send(older.project.loopback(), 40);
            wait::check(report.failures.is_empty() && report.answers.len() == 2, report.to_string())
        });
        older
    }

    /// Removes it by the release that made it; what only looks like that has this one do it.
    pub fn down(&self) {
        match &self.origin {
            Origin::Binary(binary) => run(&self.project, binary, &["down", "-v"]),
            Origin::Fixtures => drop(self.project.run(&["down", "-v"])),
        }
    }

    /// A text of the fixtures for this project: with its name, port and volume.
    fn own(&self, text: &str) -> String {
        let name = &self.project.name;
        text.replace(fixtures::PROJECT, name)
            .replace(PORT, &self.project.port.to_string())
            .replace(VOLUME, &format!("{VOLUME}-{name}"))
    }

    /// What a label of the fixtures says, and what it is with this project's port and volume. That the hash itself is the
    /// old one is for `generations` to show.
    fn generations(&self, state: &Path) -> [(String, String); 2] {
        let label = |container: &str| fixtures::generation(&format!("upgrade/{container}")).to_string();
        let state = StateFile::at(state.to_owned()).load().unwrap().state;
        let service = state.versions.values().next().unwrap().revisions.last().unwrap().service.generation();
        let project = fixtures::load(self.project.path("compose.yaml"), &self.project.name);
        let pod = project.pods.values().next().unwrap().generation();
        [(label("web-1"), service.to_string()), (label("web-sandbox"), pod.to_string())]
    }

    fn make(&self) {
        let state = self.project.path("sameport");
        fs::create_dir_all(&state).unwrap();
        let file = state.join(format!("{}.json", self.project.name));
        fs::write(&file, self.own(&fixtures::text("states/upgrade.json"))).unwrap();
        let generations = self.generations(&file);
        let mut kernel = None;
        let containers = ["web-sandbox", "web-1", "web-2", "web-3"];
        let own =
            |text: &str| generations.iter().fold(self.own(text), |text, (old, new)| text.replace(old, new));
        engine::make(&self.project.docker, SANDBOX, &containers, &own, |container, pid| {
            match container.strip_prefix("web-").unwrap().parse::<u8>() {
                Err(_) => kernel = Some(OldKernel::of(&self.project.name, pid, 8080)),
                Ok(slot) => {
                    let kernel: &OldKernel = kernel.as_ref().unwrap();
                    kernel.enter(slot, pid);
                    kernel.weigh(&(1..=slot.min(2)).collect::<Vec<_>>());
                }
            }
        });
    }
}

impl Drop for Older {
    fn drop(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            // It may have ended as it was asked to.
            let _ = supervisor.kill();
            let _ = supervisor.wait();
        }
    }
}

/// Runs another release's binary for a project.
pub fn run(project: &Project, binary: &Path, args: &[&str]) {
    let ours = project.command(args);
    let mut command = Command::new(binary);
    command.args(args).current_dir(ours.get_current_dir().unwrap()).stdin(Stdio::null());
    for (key, value) in ours.get_envs() {
        command.env(key, value.unwrap());
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
}

/// Something that holds the project's lock, and answers as a supervisor of protocol 1 does: it ends when it is asked to. It
/// looks as one that `up -d` began.
fn stub(project: &Project) -> Child {
    let lock = project.socket().with_extension("lock");
    let mut supervisor = Command::new("flock")
        .arg("--no-fork")
        .arg(&lock)
        .args(["sh", "-c", "echo locked; read _", "sameport", "supervise", "--background"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut locked = String::new();
    BufReader::new(supervisor.stdout.take().unwrap()).read_line(&mut locked).unwrap();
    assert_eq!(locked, "locked\n", "`flock` of util-linux");
    fs::write(&lock, supervisor.id().to_string()).unwrap();
    let (socket, stdin) = (project.socket(), supervisor.stdin.take().unwrap());
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            if answer(BufReader::new(stream.unwrap())) == Some(Request::ToLeave) {
                break;
            }
        }
        fs::remove_file(socket).unwrap();
        drop(stdin);
    });
    supervisor
}

#[derive(Debug, PartialEq, Eq)]
enum Request {
    ToLeave,
    SomethingElse,
}

fn answer(mut stream: BufReader<std::os::unix::net::UnixStream>) -> Option<Request> {
    let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
    // Who only looks whether somebody listens sends nothing.
    stream.read_line(&mut first).ok().filter(|read| *read > 0)?;
    while stream.read_line(&mut line).ok()? > 2 {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    let leaves = first.starts_with("POST /v1/request ") && body == b"\"detach\"";
    let (status, text) = if leaves { ("200 OK", "\"accepted\"") } else { ("404 Not Found", "") };
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    stream.get_mut().write_all(answer.as_bytes()).ok()?;
    Some(if leaves { Request::ToLeave } else { Request::SomethingElse })
}

/// Whether a project's lock is free.
pub fn is_unsupervised(project: &Project) -> bool {
    // A project that never had one has no file.
    let Ok(lock) = fs::File::open(project.socket().with_extension("lock")) else { return true };
    Flock::lock(lock, FlockArg::LockExclusiveNonblock).is_ok()
}
