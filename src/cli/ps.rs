//! `sameport ps`.

use std::sync::Arc;

use clap::Args;
use sameport::{
    engine::{Engine, EngineError, docker::Docker},
    kernel::Counters,
    plan::{
        PodSharing, WaitingAt,
        status::{PodStatus, ProjectStatus, ReplicaStatus},
    },
    spec::{PodName, Project, ServiceName},
    supervisor,
};
use serde::Serialize;

use super::{
    context::Context,
    error::CliError,
    output::{self, event, table::Ports},
    replicas::{self, Replica},
    session::Session,
    state,
};

/// Arguments of `sameport ps`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sameport ps
  sameport ps --format json | jq '.replicas[] | select(.state != \"running\")'")]
pub struct PsArgs {
    /// Print the containers' ids only
    #[arg(short, long)]
    quiet: bool,
    /// Only these services
    services: Vec<ServiceName>,
}

/// What `ps` shows to programs.
#[derive(Serialize)]
struct Shown<'a> {
    project: String,
    /// Whether somebody supervises it.
    supervised: bool,
    #[serde(flatten)]
    status: &'a ProjectStatus,
    /// Replicas that the file does not have, or that there is no file for.
    others: &'a [Replica],
    /// Ports of the host that lead into each pod: `127.0.0.1:8080->80/tcp`.
    ports: &'a Ports,
}

/// Runs `sameport ps`.
pub async fn run(context: &Context, args: PsArgs) -> Result<(), CliError> {
    let (name, loaded) = context.load_if_possible()?;
    let docker = context.engine().await?;
    let session = Session::running(context, &name).await?;
    let has_file = loaded.is_some();
    let mut status = match &session {
        Some(session) => session.status().await?,
        None => {
            state::warn_of_damage(context, &name)?;
            let file = loaded.map_or_else(|| Project::empty(name.clone()), |loaded| loaded.project);
            look(context, &docker, file).await?
        }
    };
    // Those of services that the file does not have, or that there is no file for.
    let mut others = replicas::list(&docker, &name, &[]).await?;
    others.retain(|other| !status.replicas.iter().any(|known| known.service == other.service));
    select(&args.services, &mut status.replicas, &mut others)?;
    if args.quiet {
        let known = status.replicas.iter().filter_map(|replica| replica.container.as_ref());
        let ids = known.chain(others.iter().map(|other| &other.id));
        return ids.map(|id| id.short()).try_for_each(output::line);
    }
    let ports = ports(&docker, &status).await?;
    if context.is_json() {
        let supervised = session.is_some();
        let project = name.to_string();
        return output::json(&Shown { project, supervised, status: &status, others: &others, ports: &ports });
    }
    if status.replicas.is_empty() && others.is_empty() && status.orphans.is_empty() {
        output::note(&format!("nothing of the project {name} is there"))?;
        return status.pods.iter().try_for_each(pod_notes);
    }
    output::line(&output::table::draw(&status, &others, &ports).trim_fmt())?;
    if has_file && !status.orphans.is_empty() {
        output::note(&format!("not in the file: {}", status.orphans.join(", ")))?;
    }
    for trouble in &status.troubles {
        let help = trouble.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        output::note(&format!("{}: {}{help}", trouble.target, trouble.error))?;
    }
    for pod in &status.pods {
        pod_notes(pod)?;
    }
    if session.is_none() {
        output::note(
            "nobody supervises this project: what ends stays down; `sameport up -d` begins a supervisor",
        )?;
    }
    Ok(())
}

/// What goes on at a pod's ports that no row tells.
fn pod_notes(pod: &PodStatus) -> Result<(), CliError> {
    if let PodSharing::Application { reason: Some(reason) } = &pod.sharing {
        output::note(&event::shared_by_images(reason))?;
    }
    for waiting in pod.traffic.waiting.iter().filter(|waiting| waiting.connections > 0) {
        let WaitingAt { port, connections, most } = waiting;
        output::note(&format!(
            "{}: {connections} connections to port {port} wait until a replica is ready (at most {most} can)",
            pod.pod
        ))?;
    }
    for stranger in &pod.traffic.strangers {
        output::note(&event::strange(&pod.pod, stranger))?;
    }
    if let Some(counters) = &pod.traffic.counters {
        for note in moved(&pod.pod, counters) {
            output::note(&note)?;
        }
    }
    match &pod.traffic.error {
        Some(error) => output::note(&format!("{}: {error}", pod.pod)),
        None => Ok(()),
    }
}

/// What became of connections whose listener closed before they were accepted.
fn moved(pod: &PodName, counters: &Counters) -> Vec<String> {
    let Counters { migrated, lost_in_migration: lost, .. } = *counters;
    let moved = format!("{pod}: {migrated} connections moved on to a replica from a listener that closed");
    let reset =
        format!("{pod}: {lost} connections were reset when their listener closed: nobody could take them");
    [(migrated, moved), (lost, reset)]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(_, note)| note)
        .collect()
}

/// Where a project stands that nobody supervises.
pub async fn look(context: &Context, docker: &Docker, file: Project) -> Result<ProjectStatus, CliError> {
    let settings = context.settings(&file.name, docker)?;
    let mut status = supervisor::look(Arc::new(docker.clone()), file, &settings).await?;
    // Nobody is going to start what is not there.
    status.replicas.retain(|replica| replica.container.is_some());
    Ok(status)
}

/// Keeps what the user asked for.
fn select(
    wanted: &[ServiceName],
    known: &mut Vec<ReplicaStatus>,
    others: &mut Vec<Replica>,
) -> Result<(), CliError> {
    if wanted.is_empty() {
        return Ok(());
    }
    known.retain(|replica| wanted.contains(&replica.service));
    others.retain(|other| wanted.contains(&other.service));
    let missing = wanted.iter().find(|name| {
        !known.iter().any(|replica| &replica.service == *name) && !others.iter().any(|o| &o.service == *name)
    });
    match missing {
        None => Ok(()),
        Some(service) => Err(CliError::Usage {
            message: format!("there is no replica of a service `{service}`"),
            help: "`sameport config --services` names those of the file".to_owned(),
        }),
    }
}

async fn ports(docker: &Docker, status: &ProjectStatus) -> Result<Ports, CliError> {
    let mut ports = Ports::new();
    for pod in &status.pods {
        let Some(id) = &pod.container else { continue };
        let published = match docker.inspect(id).await {
            Ok(inspection) => inspection.published,
            Err(EngineError::Gone { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let shown = published.into_iter().map(|(ip, port, inside)| match ip.contains(':') {
            true => format!("[{ip}]:{port}->{inside}"),
            false => format!("{ip}:{port}->{inside}"),
        });
        ports.insert(pod.pod.clone(), shown.collect());
    }
    Ok(ports)
}
