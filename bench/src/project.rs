//! A project of sameport's, used through its binary as a user does.

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::command::run;

/// Whatever is to be done is done by then.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Compose file in a folder of its own, with what sameport keeps of it. It goes down when it is dropped.
pub struct Project {
    /// Its name.
    pub name: String,
    binary: std::path::PathBuf,
    folder: TempDir,
}

impl Project {
    /// One of which nothing runs yet.
    pub fn new(binary: &Path, name: &str, compose: &Value) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("sameport-bench").tempdir()?;
        let project = Self { name: name.to_owned(), binary: binary.to_owned(), folder };
        project.write(compose)?;
        Ok(project)
    }

    /// Replaces the file.
    pub fn write(&self, compose: &Value) -> Result<()> {
        Ok(fs::write(self.folder().join("compose.yaml"), compose.to_string())?)
    }

    /// Where the file is, and the supervisor's socket, as `$XDG_RUNTIME_DIR`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A `sameport` command.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .current_dir(self.folder())
            .env("COMPOSE_PROJECT_NAME", &self.name)
            .env("XDG_RUNTIME_DIR", self.folder())
            .env("XDG_STATE_HOME", self.folder())
            .args(args);
        command
    }

    /// Waits until all is as the file says, and all replicas get connections: `up -d` alone returns, as Compose does, once
    /// they are started.
    pub fn wait_until_converged(&self) -> Result<()> {
        let begin = Instant::now();
        loop {
            let status: Value = serde_json::from_str(&self.run(&["status", "--format", "json"])?)?;
            if status["converged"] == Value::Bool(true) {
                return Ok(());
            }
            if begin.elapsed() > PATIENCE {
                bail!("{} does not come to be as it should:\n{status:#}", self.name);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a `sameport` command to its end.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        run(&mut self.command(args))
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if let Err(error) = self.run(&["down", "--timeout", "1"]) {
            eprintln!("warning: something of {} is left: {error:#}", self.name);
        }
    }
}
