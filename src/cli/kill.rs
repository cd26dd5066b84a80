//! `sameport kill`.

use clap::Args;
use sameport::{
    engine::{Engine, Labels, Role, Summary, docker::Docker},
    spec::{ProjectName, Slot},
    supervisor::Selector,
};

use super::{args::selector, context::Context, error::CliError, output};

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

/// A replica's container.
pub struct Found {
    /// Which slot it is in.
    pub slot: Slot,
    /// What the engine lists.
    pub row: Summary,
}

/// Runs `sameport kill`.
pub async fn run(context: &Context, args: KillArgs) -> Result<(), CliError> {
    let name = context.project()?;
    let docker = context.engine().await?;
    for wanted in &args.replicas {
        let found = replicas(&docker, &name, wanted).await?;
        let running: Vec<_> = found.into_iter().filter(|found| found.row.state == "running").collect();
        if running.is_empty() {
            return Err(not_there(wanted, "runs"));
        }
        for replica in running {
            docker.kill(&replica.row.id, &args.signal).await?;
            output::note(&format!("{}.{} got {}", wanted.service, replica.slot, args.signal))?;
        }
    }
    Ok(())
}

/// The containers of a service, or of one of its slots, in order of slots.
pub async fn replicas(
    docker: &Docker,
    name: &ProjectName,
    wanted: &Selector,
) -> Result<Vec<Found>, CliError> {
    let mut found: Vec<_> = docker
        .list(name)
        .await?
        .into_iter()
        .filter_map(|row| match Labels::from_map(&row.labels)?.role {
            Role::Replica { service, slot }
                if service == wanted.service && wanted.slot.is_none_or(|n| n == slot) =>
            {
                Some(Found { slot, row })
            }
            _ => None,
        })
        .collect();
    found.sort_by_key(|found| found.slot);
    Ok(found)
}

/// No such replica.
pub fn not_there(wanted: &Selector, what: &str) -> CliError {
    let name = match wanted.slot {
        Some(slot) => format!("{}.{slot}", wanted.service),
        None => wanted.service.to_string(),
    };
    CliError::failed(format!("no replica {name} {what}"), Some("`sameport ps` shows what there is"))
}

/// Kills every container of a project at once.
pub async fn all(docker: &Docker, name: &ProjectName) -> Result<(), CliError> {
    for row in docker.list(name).await? {
        if row.state == "running" && Labels::from_map(&row.labels).is_some() {
            docker.kill(&row.id, "SIGKILL").await?;
        }
    }
    Ok(())
}
