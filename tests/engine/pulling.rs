//! Images come from a registry: one of this test's own, which asks who is there.

use std::{path::PathBuf, process::Command};

use super::support::{docker::Docker, images, load, ports, project::Project, wait};

/// What its users have to say; `tests/images/registry` knows it.
const LOGIN: [&str; 4] = ["--username", "user", "--password", "secret"];

/// A registry with one image in it that no engine has. It and what was made for it go when it is dropped.
struct Registry {
    docker: Docker,
    name: String,
    image: String,
    /// Docker's settings of somebody who has logged in.
    config: tempfile::TempDir,
}

impl Registry {
    fn start() -> Self {
        let docker = Docker::default();
        let port = ports::free();
        let registry = Self {
            name: format!("spr{}-{port}", std::process::id()),
            image: format!("127.0.0.1:{port}/web:1"),
            config: tempfile::tempdir().unwrap(),
            docker,
        };
        let publish = format!("127.0.0.1:{port}:5000");
        let image = images::build("registry");
        registry.docker.run(&["run", "-d", "--name", &registry.name, "-p", &publish, &image]);
        wait::until("the registry answers", || registry.login());
        registry.fill();
        registry
    }

    fn login(&self) -> Result<String, String> {
        let host = self.image.split('/').next().unwrap();
        self.logged_in(&[&["login"], &LOGIN[..], &[host]].concat())
    }

    /// A `docker` command of somebody who has logged in.
    fn logged_in(&self, args: &[&str]) -> Result<String, String> {
        let config = self.config.path().display().to_string();
        self.docker.try_run(&[&["--config", &config], args].concat())
    }

    /// Puts nginx with a layer of its own there, and removes it from the engine.
    fn fill(&self) {
        let maker = format!("{}-maker", self.name);
        let line = "head -c 5000000 /dev/urandom > /more";
        self.docker.run(&[
            "run",
            "--name",
            &maker,
            "--entrypoint",
            "sh",
            &images::build("nginx"),
            "-c",
            line,
        ]);
        self.docker.run(&["commit", "-c", "ENTRYPOINT [\"/start\"]", "-c", "CMD []", &maker, &self.image]);
        self.docker.run(&["rm", &maker]);
        self.logged_in(&["push", &self.image]).unwrap();
        self.docker.run(&["rmi", &self.image]);
    }

    fn has_been_pulled(&self) -> bool {
        self.docker.try_run(&["image", "inspect", &self.image]).is_ok()
    }

    fn project(&self, policy: &str) -> Project {
        Project::new(&format!(
            "services:\n  web:\n    image: {}\n    pull_policy: {policy}\n    ports: [\"${{PORT}}:8080\"]\n    \
             scale: 2\n",
            self.image
        ))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let maker = format!("{}-maker", self.name);
        let _ = self.docker.try_run(&["rm", "-fv", &maker, &self.name]);
        // Some tests leave it there, and some do not.
        let _ = self.docker.try_run(&["rmi", "-f", &self.image]);
    }
}

fn by(config: PathBuf, mut command: Command) -> (Option<i32>, String) {
    let output = command.env("DOCKER_CONFIG", config).output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&printed).into_owned())
}

#[test]
fn who_has_logged_in_gets_the_image_and_nobody_else() {
    let registry = Registry::start();
    let project = registry.project("missing");
    let up = ["up", "-d", "--wait"];

    let foreign = tempfile::tempdir().unwrap();
    let (code, printed) = by(foreign.path().to_owned(), project.command(&up));
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains(&registry.image) && printed.contains("docker login"), "{printed}");
    assert_eq!(project.leftovers(), Vec::<String>::new(), "nothing is begun without the image");

    let (code, printed) = by(registry.config.path().to_owned(), project.command(&up));
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains(&format!("pulled {}", registry.image)), "{printed}");
    load::request(project.loopback()).unwrap();

    // What is there is not asked for again: anybody can use it.
    let (code, printed) = by(foreign.path().to_owned(), project.command(&up));
    assert_eq!(code, Some(0), "{printed}");
    assert!(!printed.contains("pull"), "{printed}");
    // Unless told so.
    let always = ["up", "-d", "--wait", "--pull", "always"];
    let (code, printed) = by(registry.config.path().to_owned(), project.command(&always));
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("pulled"), "{printed}");
}

#[test]
fn a_pull_shows_on_a_terminal_how_far_it_is() {
    let registry = Registry::start();
    let project = registry.project("always");
    let up = project.on_terminal("stty cols 100", &["up", "-d"]);
    let (code, printed) = by(registry.config.path().to_owned(), up);
    assert_eq!(code, Some(0), "{printed}");
    assert!(registry.has_been_pulled());
    assert!(printed.contains('█') && printed.contains("MiB"), "{printed}");
}

#[test]
fn what_must_never_be_pulled_is_not() {
    let registry = Registry::start();
    let project = registry.project("never");
    let (code, printed) = by(registry.config.path().to_owned(), project.command(&["up", "-d"]));
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("pull_policy"), "{printed}");
    assert!(!registry.has_been_pulled());
}
