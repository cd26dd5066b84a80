//! A user with an empty home and no engine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use assert_cmd::cargo::cargo_bin;
use tempfile::TempDir;

/// Where an engine is looked for, and none is.
pub const NO_ENGINE: &str = "tcp://127.0.0.1:1";

/// A home with a folder `shop` to work in; gone when dropped.
pub struct Home {
    folder: TempDir,
}

impl Home {
    /// With nothing in it.
    pub fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("shop")).unwrap();
        Self { folder }
    }

    /// With a Compose file in `shop`.
    pub fn with(compose: &str) -> Self {
        let home = Self::empty();
        home.write("compose.yaml", compose);
        home
    }

    /// Writes a file in `shop`.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.shop().join(name), text).unwrap();
    }

    /// The folder to work in.
    pub fn shop(&self) -> PathBuf {
        self.path().join("shop")
    }

    /// The home.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The program, with nothing of the environment that the test runs in.
    pub fn program(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path())
            .env("XDG_RUNTIME_DIR", self.path().join("run"))
            .env("XDG_STATE_HOME", self.path().join("state"))
            .env("DOCKER_HOST", NO_ENGINE)
            .env("TZ", "UTC")
            .current_dir(self.shop())
            .stdin(Stdio::null());
        command
    }

    /// `sameport` with arguments as they would be typed.
    pub fn sameport(&self, line: &str) -> Command {
        let mut command = self.program(&cargo_bin("sameport"));
        command.args(line.split_whitespace());
        command
    }

    /// Runs `sameport`, and tells all that a user sees of it.
    pub fn transcript(&self, line: &str) -> String {
        let output = self.sameport(line).output().unwrap();
        self.tell(line, &output)
    }

    /// All that a user sees of a command: what it writes, and its exit code.
    pub fn tell(&self, line: &str, output: &Output) -> String {
        let out = self.readable(&output.stdout);
        let err = self.readable(&output.stderr);
        let code = output.status.code().map_or("none".to_owned(), |code| code.to_string());
        let mut text = format!("$ sameport {line}\n");
        for (name, stream) in [("output", out), ("errors", err)] {
            if !stream.is_empty() {
                text.push_str(&format!("--- {name}\n{stream}"));
            }
        }
        text + &format!("--- exit code {code}\n")
    }

    fn readable(&self, bytes: &[u8]) -> String {
        let here = self.path().display().to_string();
        String::from_utf8_lossy(bytes)
            .replace(&here, "[home]")
            .replace(env!("CARGO_PKG_VERSION"), "[version]")
    }
}
