//! The container engine: what a supervisor and the commands ask of it.
//!
//! Two implementations: [`docker::Docker`] speaks to a real one, [`memory::Memory`] simulates one in virtual
//! time. Everything that can go wrong in an engine is classified here, once, as an [`EngineError`].

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    time::Duration,
};

use futures_util::stream::BoxStream;
use jiff::Timestamp;

use crate::spec::{Image, Limits, Network, NetworkAttachment, ProjectName, Volume};

mod container;
mod credentials;
pub mod docker;
mod error;
mod exec;
mod health_check;
mod identity;
pub mod images;
pub mod kept_images;
mod labels;
mod log_lines;
pub mod memory;
mod nonce;
pub mod ownership;
mod program;
pub mod sandbox;

pub use container::{
    Connections, ContainerId, ContainerState, CreateContainer, Endpoint, Exit, Health, HostSettings,
    Inspection, IpcNamespace, Namespaces, Process, Summary,
};
pub use error::{EngineError, tells_of_host_fault};
pub use exec::{ExecOptions, LAST_LINES, Ran, Tail};
pub use health_check::{HealthCheck, cannot_run};
pub use identity::EngineIdentity;
pub use labels::{Labels, Role};
pub use log_lines::LogLines;
pub use nonce::Nonce;

/// What an engine tells about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    /// Such as `Docker Engine 28.2.2`.
    pub name: String,
    /// The API version that is spoken with it.
    pub api_version: String,
    /// `linux/amd64`.
    pub platform: String,
    /// Whether it runs on this host, so that process ids and namespaces are ours to look at.
    pub local: bool,
    /// Whether containers go on while the daemon is down.
    pub live_restore: bool,
    /// OCI runtimes it knows.
    pub runtimes: Vec<String>,
    /// Which cgroup version and driver it uses, such as `2 (systemd)`.
    pub cgroup: String,
    /// Version of the kernel it runs on.
    pub kernel: String,
}

/// Something happened on the engine. A hint to look, never the truth: events can be late, lost or doubled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineEvent {
    /// A container of the project changed.
    Container(ContainerId),
    /// A container, of the project or not, was connected to a network or taken off one.
    Connection(ContainerId),
    /// Somebody has sent a container a signal, or asked for its stop, and it may end of that. Whether its stop was asked for
    /// is told within that time after its end.
    Ending {
        /// Which one.
        id: ContainerId,
        /// That time.
        patience: Duration,
    },
    /// A container was stopped because somebody asked the engine for that; not because the engine itself goes down.
    Stopped {
        /// Which one.
        id: ContainerId,
        /// When, by the engine's clock.
        at: Timestamp,
        /// Whether that was before anybody listened. An engine that was killed stops what still runs when it starts again, and
        /// remembers that as well.
        is_past: bool,
    },
    /// A network, a volume or an image changed.
    Resource,
}

/// One line of a container's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When the engine read it.
    pub time: Option<Timestamp>,
    /// Whether it came from standard error.
    pub stderr: bool,
    /// Its bytes as text, without the end of line; what is not UTF-8 is replaced.
    pub text: String,
    /// The bytes without the line feed, where they are others than those of the text.
    pub bytes: Option<Vec<u8>>,
}

impl LogLine {
    /// Just what the container has written, without the line feed.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or(self.text.as_bytes())
    }
}

/// Which lines of a log are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on with new lines until the container ends.
    pub follow: bool,
    /// Only the last so many; `None` is all.
    pub tail: Option<u64>,
    /// Only those from then on.
    pub since: Option<Timestamp>,
    /// Only those until then.
    pub until: Option<Timestamp>,
}

/// How far a pull is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullProgress {
    /// The layer, or nothing where the line is about the image.
    pub layer: Option<String>,
    /// What happens to it, in the engine's words.
    pub status: String,
    /// Bytes done and in all, where the engine knows.
    pub bytes: Option<(u64, u64)>,
}

/// What an image says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageInfo {
    /// The content's id, `sha256:…`.
    pub id: String,
    /// `os/arch[/variant]`.
    pub platform: String,
    /// Ports that it declares, such as `8080/tcp`.
    pub exposed: Vec<String>,
    /// The user it runs as; empty is root.
    pub user: String,
    /// Whether it has a health check.
    pub healthcheck: bool,
    /// Where its containers get anonymous volumes (`VOLUME`).
    pub volumes: BTreeSet<String>,
    /// Its labels, which every container of it has, too.
    pub labels: BTreeMap<String, String>,
}

/// A network or volume that carries a project's label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its name.
    pub name: String,
    /// Its labels, all of them.
    pub labels: BTreeMap<String, String>,
}

/// A container engine.
///
/// Every method fails with an [`EngineError`] that says whether waiting, looking again or giving up is right.
/// Methods that bring something about succeed when it already is so: removing what is gone, stopping what has
/// stopped, starting what runs.
pub trait Engine: Send + Sync + 'static {
    /// Who it is.
    fn info(&self) -> impl Future<Output = Result<EngineInfo, EngineError>> + Send;

    /// Every container that carries the project's label, whatever its state. Not all of them need be ours:
    /// [`ownership`] tells.
    fn list(&self, project: &ProjectName) -> impl Future<Output = Result<Vec<Summary>, EngineError>> + Send;

    /// Every container that carries the label of any project, whatever its state.
    fn list_all(&self) -> impl Future<Output = Result<Vec<Summary>, EngineError>> + Send;

    /// All about one container.
    fn inspect(&self, id: &ContainerId) -> impl Future<Output = Result<Inspection, EngineError>> + Send;

    /// Makes a container; it does not run yet. It carries all labels of ours, and a nonce of its own.
    fn create(
        &self,
        container: &CreateContainer,
    ) -> impl Future<Output = Result<ContainerId, EngineError>> + Send;

    /// Starts it.
    fn start(&self, id: &ContainerId) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Sends its stop signal, waits for `grace`, kills it; returns once it has ended.
    fn stop(&self, id: &ContainerId, grace: Duration)
    -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Sends a signal such as `SIGKILL` to its first process.
    fn kill(&self, id: &ContainerId, signal: &str) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Changes limits of it, whether it runs or not; a limit that is not there stays as it is.
    fn update(
        &self,
        id: &ContainerId,
        changes: &Limits,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Runs a command in it to its end, without a terminal or an input.
    fn run(
        &self,
        id: &ContainerId,
        command: &ExecOptions,
    ) -> impl Future<Output = Result<Ran, EngineError>> + Send;
    /// Gives it another name.
    fn rename(&self, id: &ContainerId, name: &str) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Removes it, also while it runs, with its anonymous volumes if asked to.
    fn remove(
        &self,
        id: &ContainerId,
        volumes: RemoveVolumes,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// What happens to the project's containers, networks and volumes from now on. The stream ends when the
    /// engine goes away.
    fn events(
        &self,
        project: &ProjectName,
    ) -> impl Future<Output = Result<BoxStream<'static, EngineEvent>, EngineError>> + Send;

    /// Lines of its output.
    fn logs(
        &self,
        id: &ContainerId,
        options: &LogOptions,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<LogLine, EngineError>>, EngineError>> + Send;

    /// What it knows of an image; `None` when it does not have it.
    fn image(&self, image: &Image) -> impl Future<Output = Result<Option<ImageInfo>, EngineError>> + Send;

    /// Fetches an image from its registry; done when the stream ends without an error.
    fn pull(
        &self,
        image: &Image,
        platform: Option<&str>,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<PullProgress, EngineError>>, EngineError>> + Send;

    /// Takes in an archive as `docker save` writes it.
    fn load_image(&self, archive: Vec<u8>) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// The names of ours that images of a project's versions have, see [`kept_images`].
    fn kept_images(
        &self,
        project: &ProjectName,
    ) -> impl Future<Output = Result<BTreeSet<Image>, EngineError>> + Send;

    /// Gives the image with that id a name.
    fn keep_image(&self, id: &str, name: &Image) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Takes a name of ours away from its image.
    fn release_image(&self, name: &Image) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// All networks that carry the project's label, ours or not.
    fn networks(
        &self,
        project: &ProjectName,
    ) -> impl Future<Output = Result<Vec<Resource>, EngineError>> + Send;

    /// Whether a network of that name exists, ours or not.
    fn has_network(&self, name: &str) -> impl Future<Output = Result<bool, EngineError>> + Send;

    /// Makes a network that carries the labels of ours.
    fn create_network(
        &self,
        project: &ProjectName,
        network: &Network,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Connects a container to a network, and gives it its names and its address there.
    fn connect(
        &self,
        id: &ContainerId,
        network: &str,
        attachment: &NetworkAttachment,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Takes a container off a network.
    fn disconnect(
        &self,
        id: &ContainerId,
        network: &str,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Removes a network.
    fn remove_network(&self, name: &str) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// All volumes that carry the project's label, ours or not.
    fn volumes(
        &self,
        project: &ProjectName,
    ) -> impl Future<Output = Result<Vec<Resource>, EngineError>> + Send;

    /// Whether a volume of that name exists, ours or not.
    fn has_volume(&self, name: &str) -> impl Future<Output = Result<bool, EngineError>> + Send;

    /// Makes a volume that carries the labels of ours.
    fn create_volume(
        &self,
        project: &ProjectName,
        volume: &Volume,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Removes a volume.
    fn remove_volume(&self, name: &str) -> impl Future<Output = Result<(), EngineError>> + Send;
}

/// What becomes of a removed container's anonymous volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoveVolumes {
    /// They stay.
    Keep,
    /// They go with it.
    Remove,
}
