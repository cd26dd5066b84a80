//! A place for containers that are made by hand, one call at a time.

use std::sync::atomic::{AtomicU32, Ordering};

use sameport::{
    engine::{
        ContainerId, ContainerState, CreateContainer, Engine, Labels, Namespaces, Process, RemoveVolumes,
        Role,
        docker::Docker,
        ownership::{self, CheckedResources, Expected, Owned, OwnershipChecker},
        sandbox,
    },
    spec::{Container, Generation, Hooks, Image, NetworkAttachment, Pod, ProjectName, Slot},
};

use super::support::{docker::Docker as Command, images};

static PROJECTS: AtomicU32 = AtomicU32::new(0);

/// A project's name that nothing else has; its containers, networks and volumes go when it is dropped.
pub struct Workbench {
    pub docker: Docker,
    pub project: ProjectName,
    /// The `docker` command, to look behind sameport's back.
    pub command: Command,
}

impl Workbench {
    /// On the engine that this process's surroundings name.
    pub async fn new() -> Self {
        let number = PROJECTS.fetch_add(1, Ordering::Relaxed);
        Self {
            docker: Docker::connect().await.unwrap(),
            project: format!("spd{}-{number}", std::process::id()).parse().unwrap(),
            command: Command::default(),
        }
    }

    /// A name for a container, network or volume.
    pub fn name(&self, what: &str) -> String {
        format!("{}-{what}", self.project)
    }

    pub fn labels(&self, role: Role) -> Labels {
        Labels {
            project: self.project.clone(),
            pod: "web".parse().unwrap(),
            generation: Generation::from_label("0123456789ab"),
            role,
        }
    }

    /// A replica that is to be made.
    pub fn replica(&self, number: u32, container: Container, namespaces: Namespaces) -> CreateContainer {
        let slot = Slot::new(number).unwrap();
        CreateContainer {
            name: self.name(&format!("web-{number}")),
            labels: self.labels(Role::Replica { service: "web".parse().unwrap(), slot }),
            hooks: Hooks::default(),
            container,
            namespaces,
        }
    }

    /// Makes and starts a sandbox.
    pub async fn sandbox(&self, pod: Pod, networks: Vec<(String, NetworkAttachment)>) -> ContainerId {
        let image = sandbox::ensure_image(&self.docker).await.unwrap();
        let create = CreateContainer {
            name: self.name("sandbox"),
            labels: self.labels(Role::Sandbox),
            hooks: Hooks::default(),
            container: Container { image, ..sandbox::container() },
            namespaces: Namespaces::Own { pod: Box::new(pod), networks },
        };
        self.start(&create).await
    }

    /// Makes and starts a container that runs a line of a shell, beside nothing.
    pub async fn shell(&self, line: &str) -> ContainerId {
        self.start(&self.replica(1, shell(line), nowhere())).await
    }

    pub async fn start(&self, create: &CreateContainer) -> ContainerId {
        let id = self.docker.create(create).await.unwrap();
        self.docker.start(&id).await.unwrap();
        id
    }

    pub async fn state(&self, id: &ContainerId) -> ContainerState {
        self.docker.inspect(id).await.unwrap().state
    }

    pub async fn process(&self, id: &ContainerId) -> Process {
        match self.state(id).await {
            ContainerState::Running(process) => process,
            other => panic!("{id} does not run: {other:?}"),
        }
    }

    /// Waits until a container has ended, and tells with which exit code.
    pub async fn ended(&self, id: &ContainerId) -> i64 {
        for _ in 0..600 {
            if let ContainerState::Exited(exit) = self.state(id).await {
                return exit.code;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("{id} does not end: {:?}", self.state(id).await);
    }

    /// Networks and volumes that are ours.
    pub async fn resources(&self) -> CheckedResources {
        ownership::resources(&self.docker, &self.project, &Expected::default()).await.unwrap()
    }

    /// Containers that are ours.
    pub async fn containers(&self) -> Vec<Owned> {
        let mut ownership = OwnershipChecker::default();
        ownership.list(&self.docker, &self.project, &Expected::default()).await.unwrap().ours
    }

    /// Runs a line of a shell in a container, and returns what it printed.
    pub fn sh(&self, id: &ContainerId, line: &str) -> String {
        self.command.run(&["exec", &id.0, "sh", "-c", line])
    }

    pub async fn remove(&self, id: &ContainerId) {
        self.docker.remove(id, RemoveVolumes::Remove).await.unwrap();
    }
}

/// A container that runs a line of a shell.
pub fn shell(line: &str) -> Container {
    Container {
        entrypoint: Some(["sh", "-c", line].map(str::to_owned).to_vec()),
        ..Container::new(Image(images::build("nginx")))
    }
}

/// Namespaces of its own, with nothing in them.
pub fn nowhere() -> Namespaces {
    let pod = Pod { network: sameport::spec::PodNetwork::None, ..Pod::default() };
    Namespaces::Own { pod: Box::new(pod), networks: Vec::new() }
}

impl Drop for Workbench {
    fn drop(&mut self) {
        if let Err(error) = self.command.remove_project(self.project.as_str()) {
            eprintln!("not everything of {} is removed: {error}", self.project);
        }
    }
}
