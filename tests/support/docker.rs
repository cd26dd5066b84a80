//! The `docker` command: how tests look at an engine behind sameport's back, and break things.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use sameport::{engine::kept_images, spec::Image};
use serde_json::Value;

/// An engine.
#[derive(Clone, Debug, Default)]
pub struct Docker {
    socket: Option<PathBuf>,
}

impl Docker {
    /// The engine behind a socket; the default is the one that the `docker` command finds.
    pub fn at(socket: &Path) -> Self {
        Self { socket: Some(socket.to_owned()) }
    }

    /// Lets a command use this engine.
    pub fn choose(&self, command: &mut Command) {
        if let Some(socket) = &self.socket {
            command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
        }
    }

    /// Runs a `docker` command and returns what it printed.
    pub fn try_run(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new("docker");
        self.choose(&mut command);
        let output = command.args(args).output().map_err(|e| format!("docker: {e}"))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            false => Err(format!("docker {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr))),
        }
    }

    /// Runs a `docker` command that has to succeed.
    pub fn run(&self, args: &[&str]) -> String {
        self.try_run(args).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs a `docker` command that prints one thing a line.
    pub fn lines(&self, args: &[&str]) -> Vec<String> {
        self.run(args).lines().map(str::to_owned).collect()
    }

    /// All that the engine knows of a container.
    pub fn inspect(&self, container: &str) -> Value {
        self.find(container).unwrap_or_else(|| panic!("there is no container {container}"))
    }

    /// The same of one that may be gone.
    pub fn find(&self, container: &str) -> Option<Value> {
        match self.try_run(&["container", "inspect", container]) {
            Ok(text) => Some(serde_json::from_str::<Value>(&text).unwrap()[0].take()),
            Err(error) if error.contains("No such container") => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// The process id of a running container's first process.
    pub fn pid(&self, container: &str) -> i32 {
        let pid = self.inspect(container)["State"]["Pid"].as_i64().unwrap();
        assert!(pid > 0, "{container} does not run");
        i32::try_from(pid).unwrap()
    }

    /// Removes everything that carries a project's label, and its supervisor's lock, as far as it can.
    pub fn remove_project(&self, name: &str) -> Result<(), String> {
        let containers = self.remove(&of_project(name)).and(self.remove(&lock_of_project(name)));
        let images = self.kept_images(name)?;
        containers.and(images.iter().try_for_each(|image| self.try_run(&["rmi", image]).map(drop)))
    }

    /// The names that a project has given to images of its versions.
    pub fn kept_images(&self, project: &str) -> Result<Vec<String>, String> {
        let of_all =
            self.try_run(&["images", "--format", "{{.Repository}}:{{.Tag}}", kept_images::REPOSITORY])?;
        let project = project.parse().unwrap();
        let is_its = |name: &&str| kept_images::is_of(&project, &Image((*name).to_owned()));
        Ok(of_all.lines().filter(is_its).map(str::to_owned).collect())
    }

    /// Removes everything that a filter finds, as far as it can.
    pub fn remove(&self, filter: &str) -> Result<(), String> {
        for (list, remove) in [
            (&["ps", "-aq"][..], &["rm", "-fv"][..]),
            (&["network", "ls", "-q"], &["network", "rm"]),
            (&["volume", "ls", "-q"], &["volume", "rm", "-f"]),
        ] {
            let found = self.try_run(&[list, &["--filter", filter]].concat())?;
            let ids: Vec<_> = found.lines().collect();
            if !ids.is_empty() {
                self.try_run(&[remove, &ids].concat())?;
            }
        }
        Ok(())
    }
}

/// The filter for the lock that a project's supervisor holds on the engine.
pub fn lock_of_project(name: &str) -> String {
    format!("name=^/{name}\\.supervisor$")
}

/// The filter for what carries a project's label.
pub fn of_project(name: &str) -> String {
    format!("label={}={name}", sameport::engine::Labels::PROJECT)
}
