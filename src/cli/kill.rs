//! `sameport kill`.

use clap::Args;
use sameport::{
    api::schema::SentSignal,
    engine::{Engine, Role, docker::Docker},
};

use super::{
    context::Context,
    error::CliError,
    output,
    replicas::Finder,
    selector::{self, Written},
};

/// Arguments of `sameport kill`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sameport kill web-2              kill a replica: it is replaced
  sameport kill -s SIGHUP web      tell all replicas of `web` to reload")]
pub struct KillArgs {
    /// The signal to send
    #[arg(short, long, default_value = "SIGKILL")]
    signal: String,
    /// Services or replicas, such as web or web-2
    #[arg(required = true, value_name = "SERVICE[-N]")]
    replicas: Vec<Written>,
}

/// Runs `sameport kill`.
pub async fn run(context: &Context, args: KillArgs) -> Result<(), CliError> {
    let mut finder = Finder::new(context)?;
    let docker = context.engine().await?;
    for wanted in &selector::resolve(context, &args.replicas).await? {
        for replica in finder.running(&docker, wanted).await? {
            if context.is_dry_run() {
                output::note(&format!("would send {} to {replica}", args.signal))?;
                continue;
            }
            docker.kill(&replica.id, &args.signal).await?;
            match context.data() {
                Some(format) => format
                    .streamed(&SentSignal { replica: replica.to_string(), signal: args.signal.clone() })?,
                None => output::note(&format!("sent {} to {replica}", args.signal))?,
            }
        }
    }
    Ok(())
}

/// Kills all containers of a project except the sandboxes, so that its networks stay.
pub async fn all(docker: &Docker, finder: &mut Finder) -> Result<(), CliError> {
    for owned in finder.containers(docker).await?.ours {
        if owned.row.state == "running" && owned.labels.role != Role::Sandbox {
            docker.kill(&owned.row.id, "SIGKILL").await?;
        }
    }
    Ok(())
}
