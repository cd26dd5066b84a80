//! `sameport status`: the whole project.

use std::collections::BTreeSet;

use clap::Args;
use sameport::api::{
    convert,
    schema::{Counters, Pod, Replica, Status, WaitingConnections},
};

use super::{
    context::Context,
    error::CliError,
    output::{self, table},
    project_status,
};

/// Arguments of `sameport status`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sameport status
  sameport status --format json | jq '.converged, .errors'")]
pub struct StatusArgs {}

/// Runs `sameport status`.
pub async fn run(context: &Context, _: StatusArgs) -> Result<(), CliError> {
    let (status, file) = project_status::status(context).await?;
    if let Some(format) = context.data() {
        return format.item(&status);
    }
    output::line(&summary(&status))?;
    if !status.replicas.is_empty() {
        output::colored_line(&table::draw(&status.replicas).trim_fmt())?;
    }
    status.pods.iter().filter_map(exclusive_ports).try_for_each(|note| output::note(&note))?;
    notes(&status, file.is_some())
}

/// The exclusive ports of a pod, as a sentence.
fn exclusive_ports(pod: &Pod) -> Option<String> {
    let ports = pod.exclusive_ports.join(", ");
    (!ports.is_empty()).then(|| format!("{}: only one replica at a time can hold {ports}", pod.name))
}

fn summary(status: &Status) -> String {
    let up = status.replicas.iter().filter(|replica| replica.state.is_up() && replica.up_to_date).count();
    let state = match (status.converged, status.errors.is_empty()) {
        _ if !status.supervised => "no supervisor",
        (true, _) => "converged",
        (false, true) => "in progress",
        (false, false) => "errors",
    };
    format!("project {}: {state}, {up} of {} replicas up", status.project, status.replicas.len())
}

/// Prints what does not fit into a row of the table.
///
/// # Errors
/// If the reader has closed the pipe.
pub fn notes(status: &Status, has_file: bool) -> Result<(), CliError> {
    if has_file && !status.orphans.is_empty() {
        output::note(&format!("not in the file: {}", status.orphans.join(", ")))?;
    }
    for error in &status.errors {
        let help = error.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        output::note(&format!("{}: {}{help}", error.target, error.error))?;
    }
    status.foreign_resources.iter().try_for_each(|c| output::note(&convert::foreign_resource(c)))?;
    status.shared_files.iter().try_for_each(|file| output::note(&convert::shared_file(file)))?;
    status.pods.iter().try_for_each(pod_notes)?;
    health_check_errors(status).iter().try_for_each(|note| output::note(note))?;
    status.replicas.iter().filter_map(unsteered).try_for_each(|note| output::note(&note))?;
    if status.supervised || status.replicas.is_empty() {
        return Ok(());
    }
    output::note(
        "no supervisor is running for this project: replicas that end are not replaced; `sameport up -d` starts one",
    )
}

/// Health checks that cannot be run, once per service.
fn health_check_errors(status: &Status) -> BTreeSet<String> {
    let errors = status.replicas.iter().filter_map(|replica| {
        let error = replica.health_check_error.as_ref()?;
        Some(convert::health_check_error(&replica.service, error))
    });
    errors.collect()
}

/// The listeners of a replica that sameport does not steer, as a sentence.
fn unsteered(replica: &Replica) -> Option<String> {
    let count = replica.traffic.as_ref()?.unsteered_listeners;
    (count > 0).then(|| convert::unsteered_listeners(&replica.replica, count))
}

fn pod_notes(pod: &Pod) -> Result<(), CliError> {
    if let Some(reason) = &pod.sharing_error {
        output::note(&convert::shared_by_application(reason))?;
    }
    for waiting in pod.waiting.iter().filter(|waiting| waiting.connections > 0) {
        let WaitingConnections { port, connections, capacity } = waiting;
        output::note(&format!(
            "{}: {connections} connections to port {port} wait until a replica is ready (capacity {capacity})",
            pod.name
        ))?;
    }
    for listener in &pod.foreign_listeners {
        output::note(&convert::foreign_listener(&pod.name, listener))?;
    }
    convert::unserved_ports(&pod.unserved_ports).iter().try_for_each(|note| output::note(note))?;
    pod.counters
        .iter()
        .flat_map(|counters| moved(&pod.name, counters))
        .try_for_each(|note| output::note(&note))?;
    match &pod.error {
        Some(error) => output::note(&format!("{}: {error}", pod.name)),
        None => Ok(()),
    }
}

/// What happened to connections whose listener closed before it accepted them.
fn moved(pod: &str, counters: &Counters) -> Vec<String> {
    let Counters { migrated, migration_failures: lost, .. } = *counters;
    let moved = format!("{pod}: {migrated} connections moved to another replica when their listener closed");
    let reset = format!(
        "{pod}: {lost} connections were reset when their listener closed: no other replica could accept them"
    );
    [(migrated, moved), (lost, reset)]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(_, note)| note)
        .collect()
}
