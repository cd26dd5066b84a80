//! `sameport version`, and the metadata of the Docker CLI plugin.

use clap::Args;
use sameport::{
    api::schema::{EngineVersion, VERSION, Version},
    engine::{Engine, EngineInfo, docker::Docker},
    kernel::LAYOUT,
};
use serde_json::json;

use super::{context::Context, error::CliError, output};

/// Arguments of `sameport version`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  sameport version --format json")]
pub struct VersionArgs {}

/// Runs `sameport version`.
pub async fn run(context: &Context, _: VersionArgs) -> Result<(), CliError> {
    let version = env!("CARGO_PKG_VERSION");
    // `config/release` and `./demo` set it: a build script would compile everything anew with each commit.
    let commit = option_env!("SAMEPORT_COMMIT").filter(|commit| !commit.is_empty());
    let platform = format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH);
    let engine: Result<EngineInfo, _> = async { Docker::connect().await?.info().await }.await;
    if let Some(format) = context.data() {
        let engine = engine.ok().map(|info| EngineVersion { name: info.name, api_version: info.api_version });
        return format.item(&Version {
            release: version.to_owned(),
            platform,
            commit: commit.map(str::to_owned),
            schema: VERSION,
            kernel_layout: LAYOUT,
            engine,
        });
    }
    let commit = commit.map_or_else(String::new, |commit| format!(", commit {commit}"));
    output::line(&format!("sameport {version} ({platform}{commit})"))?;
    output::line(&format!("JSON schema {VERSION}, kernel layout {LAYOUT}"))?;
    match engine {
        Ok(info) => output::line(&format!("{}, API {}", info.name, info.api_version)),
        Err(error) => output::line(&format!("no engine: {error}")),
    }
}

/// Prints the metadata that Docker requests from its CLI plugins.
pub fn plugin_metadata() -> Result<(), CliError> {
    output::json(&json!({
        "SchemaVersion": "0.1.0",
        "Vendor": "sameport",
        "Version": env!("CARGO_PKG_VERSION"),
        "ShortDescription": "Run N replicas of an image behind one port, with no proxy",
    }))
}
