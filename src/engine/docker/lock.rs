//! Lock containers: an engine has only one container of a name, whoever asks, and from whichever host.
//!
//! A lock is worth nothing if it outlives its owner. Mostly the engine runs on the owner's host. There the lock is a
//! container that is never started, and that binds the `/proc` folder of a thread of its owner: Docker refuses to create a
//! container where what it binds does not exist, so an attempt to create it once more shows whether the owner lives. An
//! owner on another host starts its lock instead, and holds its standard input open: the container ends with the
//! connection, and the engine removes it.

use std::{collections::HashMap, pin::Pin};

use bollard::{
    models::{
        ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum, HostConfig, Mount, MountType,
    },
    query_parameters::{
        AttachContainerOptions, CreateContainerOptions, EventsOptions, ListContainersOptions,
    },
};
use futures_util::{StreamExt, stream::BoxStream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWrite;

use crate::engine::{ContainerId, Engine, EngineError, RemoveVolumes, program::Program};

use super::Docker;

/// The label that holds what the owner of a lock says of itself.
pub const LABEL: &str = "dev.sameport.lock";

/// Such containers have one process at most.
const PROCESSES: i64 = 4;

/// How an engine knows that the owner of a lock lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Liveness {
    /// Its host has this thread.
    Thread {
        /// The process.
        pid: u32,
        /// The thread. Not the first one of its process, which is there as long as nobody has waited for it.
        tid: u32,
    },
    /// The lock container runs.
    Connection,
}

/// What became of an attempt to create a lock container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It is created.
    Created(ContainerId),
    /// There is a container of that name.
    NameTaken,
    /// The engine's host does not have that thread.
    NoSuchThread,
}

/// A container that has the name of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockContainer {
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// Whether it runs.
    pub running: bool,
    /// Whether it was never started.
    pub is_new: bool,
    /// What its owner says of itself; none where it is not a lock of ours.
    pub label: Option<String>,
}

/// The standard input of a lock container, which ends when this is dropped.
pub struct Connection {
    _input: Pin<Box<dyn AsyncWrite + Send>>,
    output: BoxStream<'static, ()>,
}

impl Connection {
    /// Waits until the engine closes it, as when it ends.
    pub async fn closed(&mut self) {
        while self.output.next().await.is_some() {}
    }
}

impl Docker {
    /// Tries to create a lock container, and starts nothing.
    ///
    /// # Errors
    /// When the engine cannot tell what became of it.
    pub async fn create_lock(
        &self,
        name: &str,
        label: &str,
        liveness: Liveness,
    ) -> Result<Attempt, EngineError> {
        let program = match liveness {
            Liveness::Thread { .. } => Program::PAUSE,
            Liveness::Connection => Program::UNTIL_EOF,
        };
        let image = program.ensure_image(self).await?;
        let options = CreateContainerOptions { name: Some(name.to_owned()), ..Default::default() };
        let body = body(image.0, label, liveness);
        let created = self.call("the lock", self.client.create_container(Some(options), body)).await;
        match created {
            Ok(created) => Ok(Attempt::Created(ContainerId(created.id))),
            // The engine looks at mounts before it looks at names.
            Err(EngineError::Refused { message }) if names_missing_source(&message, liveness) => {
                Ok(Attempt::NoSuchThread)
            }
            Err(EngineError::Conflict { .. }) => Ok(Attempt::NameTaken),
            Err(error) => Err(error),
        }
    }

    /// The container that has the name of a lock, if there is one.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn lock(&self, name: &str) -> Result<Option<LockContainer>, EngineError> {
        match self.call("the lock", self.client.inspect_container(name, None)).await {
            Ok(told) => Ok(Some(lock_container(told))),
            Err(EngineError::Gone { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names of all lock containers.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn locks(&self) -> Result<Vec<String>, EngineError> {
        let filters = HashMap::from([("label".to_owned(), vec![LABEL.to_owned()])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
        let rows = self.call("the engine", self.client.list_containers(Some(options))).await?;
        let names = rows.into_iter().filter_map(|row| row.names?.into_iter().next());
        Ok(names.map(|name| name.trim_start_matches('/').to_owned()).collect())
    }

    /// Starts a lock container with its standard input open.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn hold_lock(&self, id: &ContainerId) -> Result<Connection, EngineError> {
        let options =
            AttachContainerOptions { stdin: true, stdout: true, stream: true, ..Default::default() };
        let attached = self.call("the lock", self.client.attach_container(&id.0, Some(options))).await?;
        self.start(id).await?;
        let output =
            attached.output.take_while(|piece| std::future::ready(piece.is_ok())).map(|_| ()).boxed();
        Ok(Connection { _input: attached.input, output })
    }

    /// Removes a lock container.
    ///
    /// # Errors
    /// When the engine does not do it.
    pub async fn remove_lock(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.remove(id, RemoveVolumes::Keep).await
    }

    /// Waits until something happens to a lock container, or the engine tells no more of it. What has happened `since` a
    /// time of the engine counts, too.
    pub async fn lock_changed(&self, id: &ContainerId, since: Option<&str>) {
        let filters = HashMap::from([
            ("container".to_owned(), vec![id.0.clone()]),
            ("event".to_owned(), ["destroy", "rename", "die"].map(str::to_owned).to_vec()),
        ]);
        let options =
            EventsOptions { since: since.and_then(super::stream::from), until: None, filters: Some(filters) };
        std::pin::pin!(self.client.events(Some(options))).next().await;
    }
}

fn source(liveness: Liveness) -> Option<String> {
    match liveness {
        Liveness::Thread { pid, tid } => Some(format!("/proc/{pid}/task/{tid}")),
        Liveness::Connection => None,
    }
}

/// Whether an engine says that what a lock binds is not there.
fn names_missing_source(message: &str, liveness: Liveness) -> bool {
    let Some(source) = source(liveness) else { return false };
    let words = ["does not exist", "no such file or directory"];
    message.contains(&source) && words.iter().any(|words| message.contains(words))
}

fn body(image: String, label: &str, liveness: Liveness) -> ContainerCreateBody {
    let mount = |source| Mount {
        target: Some("/owner".to_owned()),
        source: Some(source),
        typ: Some(MountType::BIND),
        read_only: Some(true),
        ..Mount::default()
    };
    let is_run = liveness == Liveness::Connection;
    ContainerCreateBody {
        image: Some(image),
        labels: Some(HashMap::from([
            (LABEL.to_owned(), label.to_owned()),
            (super::translate::WATCHTOWER.to_owned(), "false".to_owned()),
        ])),
        network_disabled: Some(true),
        open_stdin: Some(is_run),
        stdin_once: Some(is_run),
        attach_stdin: Some(is_run),
        attach_stdout: Some(is_run),
        // Process 1 is ended by no other one that it does not ask for.
        stop_signal: Some("SIGKILL".to_owned()),
        host_config: Some(HostConfig {
            network_mode: Some("none".to_owned()),
            auto_remove: Some(is_run),
            readonly_rootfs: Some(true),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
            pids_limit: Some(PROCESSES),
            mounts: source(liveness).map(|source| vec![mount(source)]),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

fn lock_container(told: ContainerInspectResponse) -> LockContainer {
    let config = told.config.unwrap_or_default();
    let image = config.image.unwrap_or_default();
    // Whoever commits a container to an image passes its labels on.
    let is_ours = [Program::PAUSE, Program::UNTIL_EOF].iter().any(|p| image.starts_with(p.image_prefix));
    let status = told.state.and_then(|state| state.status);
    LockContainer {
        id: ContainerId(told.id.unwrap_or_default()),
        name: told.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        created: told.created.and_then(|time| time.parse().ok()).unwrap_or_default(),
        is_new: status == Some(ContainerStateStatusEnum::CREATED),
        running: status == Some(ContainerStateStatusEnum::RUNNING),
        label: config.labels.unwrap_or_default().remove(LABEL).filter(|_| is_ours),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_thread_of_the_owner_shows_that_it_is_gone() {
        let thread = Liveness::Thread { pid: 12, tid: 34 };
        let docker =
            r#"invalid mount config for type "bind": bind source path does not exist: /proc/12/task/34"#;
        assert!(names_missing_source(docker, thread));
        assert!(names_missing_source("statfs /proc/12/task/34: no such file or directory", thread));
        for other in [
            "No such image: localhost/sameport-sandbox:1 does not exist",
            "bind source path does not exist: /srv/data",
            "/proc/12/task/34: permission denied",
        ] {
            assert!(!names_missing_source(other, thread), "{other}");
        }
        assert!(!names_missing_source(docker, Liveness::Connection));
    }
}
