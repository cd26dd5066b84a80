//! `sameport kill`.

use clap::Args;
use sameport::{
    engine::{Engine, docker::Docker},
    supervisor::Selector,
};

use super::{args::selector, context::Context, error::CliError, output, replicas::Finder};

/// Arguments of `sameport kill`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sameport kill web.2              kill a replica: it is replaced
  sameport kill -s SIGHUP web      tell all replicas of `web` to reload")]
pub struct KillArgs {
    /// The signal
    #[arg(short, long, default_value = "SIGKILL")]
    signal: String,
    /// Which ones
    #[arg(required = true, value_name = "SERVICE[.N]", value_parser = selector)]
    replicas: Vec<Selector>,
}

/// Runs `sameport kill`.
pub async fn run(context: &Context, args: KillArgs) -> Result<(), CliError> {
    let mut finder = Finder::new(context)?;
    let docker = context.engine().await?;
    for wanted in &args.replicas {
        for replica in finder.running(&docker, wanted).await? {
            if context.is_dry_run() {
                output::note(&format!("{replica} would get {}", args.signal))?;
                continue;
            }
            docker.kill(&replica.id, &args.signal).await?;
            output::note(&format!("{replica} got {}", args.signal))?;
        }
    }
    Ok(())
}

/// Kills every container of a project at once.
pub async fn all(docker: &Docker, finder: &mut Finder) -> Result<(), CliError> {
    for owned in finder.containers(docker).await?.ours {
        if owned.row.state == "running" {
            docker.kill(&owned.row.id, "SIGKILL").await?;
        }
    }
    Ok(())
}
