//! `sameport ps`.

use clap::Args;
use sameport::{api::schema::Replica, spec::ServiceName};

use super::{
    context::Context,
    error::CliError,
    output::{self, table},
    project_status, status,
};

/// Arguments of `sameport ps`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sameport ps
  sameport ps --format json | jq 'select(.state != \"running\")'    one JSON object a line
  sameport ps --format 'table {{.Name}}\\t{{.State}}\\t{{.Ports}}'")]
pub struct PsArgs {
    /// Print container ids only
    #[arg(short, long)]
    quiet: bool,
    /// Only these services
    services: Vec<ServiceName>,
}

/// Runs `sameport ps`.
pub async fn run(context: &Context, args: PsArgs) -> Result<(), CliError> {
    let (mut status, file) = project_status::status(context).await?;
    select(&args.services, &mut status.replicas)?;
    if args.quiet {
        let ids = status.replicas.iter().filter_map(|replica| replica.id.as_deref());
        return ids.map(table::short).try_for_each(output::line);
    }
    if let Some(format) = context.data() {
        return format.lines(&status.replicas);
    }
    if status.replicas.is_empty() {
        output::note(&format!("project `{}` has no containers", status.project))?;
    } else {
        output::colored_line(&table::draw(&status.replicas).trim_fmt())?;
    }
    status::notes(&status, file.is_some())
}

/// Keeps the replicas of the named services.
fn select(wanted: &[ServiceName], replicas: &mut Vec<Replica>) -> Result<(), CliError> {
    if wanted.is_empty() {
        return Ok(());
    }
    replicas.retain(|replica| wanted.iter().any(|name| replica.service == name.as_str()));
    let missing = wanted.iter().find(|name| !replicas.iter().any(|replica| replica.service == name.as_str()));
    match missing {
        None => Ok(()),
        Some(service) => Err(CliError::Usage {
            message: format!("service `{service}` has no replicas"),
            help: "`sameport config --services` lists the services of the file".to_owned(),
        }),
    }
}
