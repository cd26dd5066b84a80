//! Compose files, and Docker Compose itself as a peer, used by its command.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    command::{run, sh},
    docker::INSIDE,
};

/// A file with one service, `web`, which has these keys besides its image. Written as JSON, it is YAML.
pub fn file(image: &str, keys: &Value) -> Value {
    let mut service = keys.clone();
    service["image"] = json!(image);
    json!({ "services": { "web": service } })
}

/// One whose replicas listen on a port of their own inside, and have a published one for all.
pub fn published(image: &str, port: u16, replicas: u32) -> Value {
    file(
        image,
        &json!({
            "environment": { "LISTEN": "" },
            "ports": [format!("{port}:{INSIDE}")],
            "deploy": { "replicas": replicas },
        }),
    )
}

/// A project of Docker Compose in a folder of its own. It goes down when it is dropped.
pub struct Compose {
    name: String,
    folder: TempDir,
    is_plugin: bool,
}

impl Compose {
    /// One of which nothing runs yet.
    pub fn new(name: &str, file: &Value) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("sameport-bench").tempdir()?;
        let is_plugin = sh("docker compose version").is_ok();
        let compose = Self { name: name.to_owned(), folder, is_plugin };
        compose.write(file)?;
        Ok(compose)
    }

    /// Replaces the file.
    pub fn write(&self, file: &Value) -> Result<()> {
        let mut file = file.clone();
        // Docker Compose 1 takes a file without a version for one of the first.
        file["version"] = json!("3.8");
        // The name that both versions know.
        Ok(fs::write(self.folder().join("docker-compose.yml"), file.to_string())?)
    }

    /// Runs a command of it to its end.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(if self.is_plugin { "docker" } else { "docker-compose" });
        command
            .args(self.is_plugin.then_some("compose"))
            .args(["-p", &self.name])
            .args(args)
            .current_dir(self.folder())
            // Version 1 gives up after a minute, which many containers may take.
            .env("COMPOSE_HTTP_TIMEOUT", "600");
        run(&mut command).context("is Docker Compose there? bench/install installs it")
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        if let Err(error) = self.run(&["down", "-t", "1"]) {
            eprintln!("warning: something of {} is left: {error:#}", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_image_and_the_other_keys() {
        let file = file("nginx", &json!({ "ports": ["80:8080"] }));
        assert_eq!(file["services"]["web"], json!({ "image": "nginx", "ports": ["80:8080"] }));
    }
}
