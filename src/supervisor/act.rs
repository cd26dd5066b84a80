//! Carries out a single action. It makes no decisions: those are made by the plan.

use crate::{
    engine::{
        ContainerId, CreateContainer, Engine, EngineError, IpcNamespace, Labels, Namespaces, Role, sandbox,
    },
    kernel::capability,
    plan::{Action, attachments},
    spec::{Container, Hook, Hooks, Ipc, Pod, PodName, Project, Service, ServiceName, Slot},
};

use super::{EventKind, graceful_close::GracefulClose, hooks, image, slot_volumes};

/// Carries out an action of a plan for `project`; `hooks` are the commands that belong to it. Returns an event to
/// report in addition to the result, such as failed `pre_stop` commands.
///
/// # Errors
/// If the engine fails.
pub async fn act<E: Engine>(
    engine: &E,
    project: &Project,
    action: &Action,
    hooks: &[Hook],
    graceful_close: Option<GracefulClose>,
) -> Result<Option<EventKind>, EngineError> {
    if let Action::Stop { target, id, grace } = action {
        let failure = hooks::stop(engine, id, *grace, hooks, graceful_close).await?;
        return Ok(failure
            .map(|error| EventKind::PreStopFailed { target: target.clone(), error: error.to_string() }));
    }
    match action {
        Action::EnsureNetwork { key, name } => ensure_network(engine, project, key, name).await,
        Action::EnsureVolume { name, slot } => ensure_volume(engine, project, name, *slot).await,
        Action::LaunchSandbox(pod) => launch_sandbox(engine, project, pod).await,
        Action::LaunchReplica { service, slot, slot_members, sandbox } => {
            let name = slot_members.container_name(project, service, *slot);
            launch_replica(engine, project, service, *slot, name, sandbox.as_ref()).await
        }
        Action::Rename { id, name, .. }
        | Action::SetAside { id, name, .. }
        | Action::RestoreName { id, name, .. } => engine.rename(id, name).await,
        Action::Connect { id, network, attachment, reconnects, .. } => {
            if *reconnects {
                engine.disconnect(id, network).await?;
            }
            engine.connect(id, network, attachment).await
        }
        Action::Start { id, .. } => engine.start(id).await,
        Action::LaunchPreDeploy { service, sandbox } => {
            launch_job(engine, project, service, sandbox.as_ref()).await
        }
        Action::Prepare { id, .. } => hooks::run(engine, id, "post_start", hooks).await,
        Action::Update { id, changes, .. } => engine.update(id, changes).await,
        // Handled above.
        Action::Stop { .. } => Ok(()),
        Action::Remove { id, volumes, .. } => engine.remove(id, *volumes).await,
        Action::RemoveNetwork(name) => engine.remove_network(name).await,
        Action::RemoveVolume(name) => engine.remove_volume(name).await,
    }
    .map(|()| None)
}

async fn ensure_network<E: Engine>(
    engine: &E,
    project: &Project,
    key: &str,
    name: &str,
) -> Result<(), EngineError> {
    match project.networks.get(key) {
        Some(network) if !network.external => match engine.create_network(&project.name, network).await {
            Err(EngineError::Conflict { .. }) if engine.has_network(name).await? => Ok(()),
            result => result,
        },
        _ if engine.has_network(name).await? => Ok(()),
        _ => Err(EngineError::Gone { what: format!("external network {name}") }),
    }
}

async fn ensure_volume<E: Engine>(
    engine: &E,
    project: &Project,
    name: &str,
    slot: Slot,
) -> Result<(), EngineError> {
    let declared = project.volumes.values().find(|v| crate::spec::expand(&v.name, slot) == name);
    match declared {
        Some(volume) if !volume.external => {
            let volume = crate::spec::Volume { name: name.to_owned(), ..volume.clone() };
            engine.create_volume(&project.name, &volume).await
        }
        _ if engine.has_volume(name).await? => Ok(()),
        _ => Err(EngineError::Gone { what: format!("external volume {name}") }),
    }
}

async fn launch_sandbox<E: Engine>(engine: &E, project: &Project, name: &PodName) -> Result<(), EngineError> {
    let Some(pod) = project.pods.get(name) else {
        return Err(EngineError::Gone { what: format!("pod {name}") });
    };
    let image = sandbox::ensure_image(engine).await?;
    let container = CreateContainer {
        name: project.sandbox_name(name),
        labels: Labels {
            project: project.name.clone(),
            pod: name.clone(),
            generation: pod.generation(),
            role: Role::Sandbox,
        },
        hooks: Hooks::default(),
        container: Container { image, ..sandbox::container() },
        namespaces: Namespaces::Own {
            pod: Box::new(prepared(engine, project, name, pod).await?),
            networks: attachments(project, name, pod),
        },
    };
    let id = engine.create(&container).await?;
    engine.start(&id).await
}

/// Whether a network namespace allows Multipath TCP. The kernel does not let a program choose among listeners of MPTCP,
/// which Go has used by default since 1.24. With the setting off, programs get plain TCP sockets:
/// <https://docs.kernel.org/networking/mptcp-sysctl.html>.
const MPTCP: &str = "net.mptcp.enabled";

/// Adds the settings that the kernel needs to choose among listeners. They do not change the version of the pod.
async fn prepared<E: Engine>(
    engine: &E,
    project: &Project,
    name: &PodName,
    pod: &Pod,
) -> Result<Pod, EngineError> {
    let mut pod = pod.clone();
    if project.wants_kernel(name) && capability::has_mptcp() && engine.info().await?.local {
        pod.sysctls.entry(MPTCP.to_owned()).or_insert_with(|| "0".to_owned());
    }
    Ok(pod)
}

async fn launch_replica<E: Engine>(
    engine: &E,
    project: &Project,
    service: &Service,
    slot: Slot,
    name: String,
    sandbox: Option<&ContainerId>,
) -> Result<(), EngineError> {
    let Some(pod) = project.pods.get(&service.pod) else {
        return Err(EngineError::Gone { what: format!("pod {}", service.pod) });
    };
    let mut own = service.container.for_slot(slot);
    own.image = image::to_use(engine, &own).await?;
    if image::is_missing(engine, &own.image).await? {
        image::fetch(engine, service, &own.image).await?;
    }
    let own = slot_volumes::named(engine, project, (service, slot), own).await?;
    let container = CreateContainer {
        name,
        labels: Labels {
            project: project.name.clone(),
            pod: service.pod.clone(),
            generation: service.generation(),
            role: Role::Replica { service: service.name.clone(), slot },
        },
        hooks: service.hooks.for_slot(slot),
        container: own,
        namespaces: inside(project, service, pod, sandbox),
    };
    launch(engine, service, &container).await
}

/// Creates and starts the pre-deploy job of a new version.
async fn launch_job<E: Engine>(
    engine: &E,
    project: &Project,
    name: &ServiceName,
    sandbox: Option<&ContainerId>,
) -> Result<(), EngineError> {
    let service = project.services.get(name);
    let (Some(service), Some(before), Some(pod)) = (
        service,
        service.and_then(|service| service.pre_deploy.as_ref()),
        service.and_then(|service| project.pods.get(&service.pod)),
    ) else {
        return Err(EngineError::Gone { what: format!("service {name}") });
    };
    let container = CreateContainer {
        name: project.pre_deploy_name(name),
        labels: Labels {
            project: project.name.clone(),
            pod: service.pod.clone(),
            generation: service.generation(),
            role: Role::PreDeploy { service: name.clone() },
        },
        hooks: Hooks::default(),
        container: before.container(&service.container),
        namespaces: inside(project, service, pod, sandbox),
    };
    launch(engine, service, &container).await
}

fn inside(project: &Project, service: &Service, pod: &Pod, sandbox: Option<&ContainerId>) -> Namespaces {
    let Some(sandbox) = sandbox else { return Namespaces::Host(Box::new(pod.clone())) };
    let ipc = match project.ipc(service) {
        Ipc::Own => IpcNamespace::Own {
            shm_size: pod.shm_size,
            sysctls: pod.ipc_sysctls().map(|(name, value)| (name.clone(), value.clone())).collect(),
        },
        Ipc::Pod => IpcNamespace::Sandbox,
        Ipc::Host => IpcNamespace::Host,
    };
    Namespaces::Join { sandbox: sandbox.clone(), ipc }
}

async fn launch<E: Engine>(
    engine: &E,
    service: &Service,
    container: &CreateContainer,
) -> Result<(), EngineError> {
    let image = &container.container.image;
    let id = match engine.create(container).await {
        Err(EngineError::Gone { .. }) if image::is_missing(engine, image).await? => {
            image::fetch(engine, service, image).await?;
            engine.create(container).await?
        }
        created => created?,
    };
    engine.start(&id).await
}
