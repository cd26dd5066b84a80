//! The status of a project, with or without a supervisor: for `ps`, `status` and commands that look up a replica.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use sameport::{
    api::{
        convert::{self, ProjectContext},
        schema::{Replica, ReplicaState, Sharing, Status, Time, replica_name},
    },
    engine::{ContainerId, Engine, EngineError, docker::Docker},
    spec::{Project, ProjectName},
    supervisor::{self, StateError, StateFile, engine_lock},
};

use super::{
    context::Context,
    error::CliError,
    output,
    replicas::{self, Finder},
    session::{Readable, Session},
    state,
};

/// Limit for the engine's answer, if a supervisor has answered and the engine only adds details.
const AT_ONCE: Duration = Duration::from_millis(800);
/// The same, if the supervisor reports that the engine does not answer.
const RECONNECT_TIMEOUT: Duration = Duration::from_millis(200);

/// The status of the selected project, including orphans and published ports, and its file if there is one.
///
/// # Errors
/// If neither the supervisor nor the engine answers.
pub async fn status(context: &Context) -> Result<(Status, Option<Project>), CliError> {
    let (name, loaded) = context.load_if_possible()?;
    let file = loaded.map(|loaded| loaded.project);
    let by_file = || file.clone().unwrap_or_else(|| Project::empty(name.clone()));
    let mut status = match Session::answering(context, &name).await? {
        Readable::Running(session) => {
            let mut status = session.status().await?;
            let finder = Finder::of(context, &name, file.as_ref());
            // The supervisor's status is shown whether or not the engine answers.
            let patience = status.engine_unreachable_since.map_or(AT_ONCE, |_| RECONNECT_TIMEOUT);
            match tokio::time::timeout(patience, of_engine(context, finder, &mut status)).await {
                Ok(Ok(())) => {}
                Ok(Err(CliError::Engine(error))) => note_silence(&session, &mut status, &error).await?,
                Ok(Err(error)) => return Err(error),
                Err(_late) => {
                    note_silence(&session, &mut status, &"the engine does not answer").await?;
                }
            }
            return Ok((status, file));
        }
        Readable::OtherRelease => {
            let docker = context.engine().await?;
            Status { supervised: true, ..look(context, &docker, by_file()).await? }
        }
        Readable::Nobody => {
            let docker = context.engine().await?;
            let owner = engine_lock::owner(&docker, &name).await?;
            match &owner {
                Some(owner) => output::note(&format!(
                    "project `{name}` is supervised by {owner}; what only that process knows is not shown"
                ))?,
                None => state::warn_of_damage(context, &name).map(drop)?,
            }
            Status { supervised: owner.is_some(), ..look(context, &docker, by_file()).await? }
        }
    };
    let finder = Finder::of(context, &name, file.as_ref());
    of_engine(context, finder, &mut status).await?;
    Ok((status, file))
}

/// Adds what only the engine knows: orphans and published ports.
async fn of_engine(context: &Context, finder: Finder, status: &mut Status) -> Result<(), CliError> {
    let docker = context.engine().await?;
    add_orphans(&docker, finder, status).await?;
    add_ports(&docker, status).await
}

/// Warns that the engine's part is missing, and since when the supervisor has had no answer.
async fn note_silence(
    session: &Session,
    status: &mut Status,
    why: &impl std::fmt::Display,
) -> Result<(), CliError> {
    // The supervisor may have noticed by now.
    status.engine_unreachable_since = session.status().await?.engine_unreachable_since;
    output::note(&format!(
        "warning: {why}{}; ports and containers that are not in the file are not shown",
        last_answer(status.engine_unreachable_since)
    ))
}

/// The time of the engine's last answer to the supervisor, as the end of a sentence. Empty if the engine answers.
#[must_use]
pub fn last_answer(since: Option<Time>) -> String {
    since.map_or_else(String::new, |since| {
        format!("; it answered the supervisor last at {}", since.0.strftime("%Y-%m-%dT%H:%M:%SZ"))
    })
}

/// The status of a project without a supervisor.
///
/// # Errors
/// If the engine does not answer, or the stored state of the project cannot be read.
pub async fn look(context: &Context, docker: &Docker, file: Project) -> Result<Status, CliError> {
    let mut settings = context.settings(&file.name, docker).await?;
    if matches!(settings.state.load(), Err(StateError::OtherEngine { .. })) {
        // The stored state belongs to another engine, and is ignored.
        settings.state = StateFile::default();
    }
    let name = file.name.clone();
    let mut status = supervisor::look(Arc::new(docker.clone()), file, &settings).await?;
    // Without a supervisor, missing replicas are not going to start.
    status.replicas.retain(|replica| replica.container.is_some());
    let context = ProjectContext { name: &name, supervised: false, now: Timestamp::now() };
    Ok(convert::status(&context, &status))
}

/// Adds replicas of services that are not in the file, or of all services if there is no file.
async fn add_orphans(docker: &Docker, mut finder: Finder, status: &mut Status) -> Result<(), CliError> {
    let known: Vec<_> = status.replicas.iter().map(|replica| replica.service.clone()).collect();
    let mut others = finder.list(docker, &[]).await?;
    others.retain(|other| !known.iter().any(|service| service == other.service.as_str()));
    status.replicas.extend(others.into_iter().map(|other| orphan(finder.project(), other)));
    Ok(())
}

fn orphan(project: &ProjectName, other: replicas::Replica) -> Replica {
    Replica {
        project: project.to_string(),
        replica: replica_name(&other.service, other.slot),
        service: other.service.to_string(),
        slot: other.slot.number(),
        replacement: false,
        set_aside: false,
        orphan: true,
        name: other.name,
        id: Some(other.id.0),
        image: None,
        pod: other.service.to_string(),
        generation: None,
        up_to_date: false,
        state: if other.running { ReplicaState::Running } else { ReplicaState::Stopped },
        status: other.status,
        started_at: None,
        exits: 0,
        last_termination: None,
        replaced: None,
        out_of_rotation_since: None,
        stopped_externally_at: None,
        unhealthy_reason: None,
        health_check_error: None,
        sharing: Sharing::Application,
        ports: Vec::new(),
        exclusive_ports: Vec::new(),
        traffic: None,
    }
}

async fn add_ports(docker: &Docker, status: &mut Status) -> Result<(), CliError> {
    for pod in &mut status.pods {
        let Some(id) = &pod.sandbox_id else { continue };
        let published = match docker.inspect(&ContainerId(id.clone())).await {
            Ok(inspection) => inspection.published,
            Err(EngineError::Gone { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        pod.ports = published
            .into_iter()
            .map(|(ip, port, inside)| match ip.contains(':') {
                true => format!("[{ip}]:{port}->{inside}"),
                false => format!("{ip}:{port}->{inside}"),
            })
            .collect();
        let replicas = status.replicas.iter_mut().filter(|replica| replica.pod == pod.name);
        replicas.for_each(|replica| replica.ports.clone_from(&pod.ports));
    }
    Ok(())
}
