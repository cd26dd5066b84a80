//! The part of a service that becomes a container, the same for each of its replicas up to its slot.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// A reference to an image, as written: `nginx`, `registry.example/acme/web:1.4`, `app@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Image(pub String);

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// When an image is pulled (Compose's `pull_policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullPolicy {
    /// At every `up`.
    Always,
    /// Never: a missing image is an error.
    Never,
    /// When the engine does not have it.
    #[default]
    Missing,
}

/// Everything about a container that does not depend on its pod.
///
/// Strings of `environment`, `labels` and volume names may hold `{{.Slot}}` and `{{.Replica}}`; see
/// [`Container::for_slot`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The image it is made of.
    pub image: Image,
    /// What that image meant when it was first used: its content's id, `sha256:…`. A tag that means something else
    /// later is no other version by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// Replaces the image's `CMD`.
    pub command: Option<Vec<String>>,
    /// Replaces the image's `ENTRYPOINT`; an empty list clears it.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME` to value; `None` removes a variable that the image sets.
    pub environment: BTreeMap<String, Option<String>>,
    /// The user's labels; ours are added by the supervisor.
    pub labels: BTreeMap<String, String>,
    /// File systems mounted into it.
    pub mounts: Vec<Mount>,
    /// `UID[:GID]` or a name in the image.
    pub user: Option<String>,
    /// Where the process starts.
    pub working_dir: Option<String>,
    /// Replaces, or with [`HealthTest::None`] turns off, the image's `HEALTHCHECK`.
    pub healthcheck: Option<Healthcheck>,
    /// Whether Docker's init process is PID 1; `None` leaves it to the daemon.
    pub init: Option<bool>,
    /// Whether the root file system is read-only.
    pub read_only: bool,
    /// Whether it gets all capabilities and devices.
    pub privileged: bool,
    /// Capabilities added.
    pub cap_add: Vec<String>,
    /// Capabilities taken away.
    pub cap_drop: Vec<String>,
    /// Engine options such as `no-new-privileges:true`.
    pub security_opt: Vec<String>,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Limits and reservations.
    pub resources: Resources,
    /// Limits per process, by name.
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Extra groups of the process.
    pub group_add: Vec<String>,
    /// Sent to stop it, such as `SIGQUIT`; `None` leaves it to the image.
    pub stop_signal: Option<String>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Whether its standard input stays open.
    pub stdin_open: bool,
    /// Where its output goes; `None` leaves it to the daemon.
    pub logging: Option<LogDriver>,
    /// `os/arch[/variant]`; `None` is the engine's own.
    pub platform: Option<String>,
    /// The OCI runtime, such as `runc`; `None` is the engine's own.
    pub runtime: Option<String>,
    /// Its IPC namespace; `None`: its own, but in a pod with a name of its own that of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipc: Option<Ipc>,
}

/// An IPC namespace: shared memory (`/dev/shm`), semaphores and message queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ipc {
    /// Each replica has its own, which ends with it.
    Own,
    /// That of the pod, which all of its replicas share.
    Pod,
    /// That of the host.
    Host,
}

/// A file system mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the container.
    pub target: String,
    /// What is mounted there.
    pub source: MountSource,
    /// Whether the container may only read it.
    pub read_only: bool,
}

/// What a [`Mount`] mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A path of the host, absolute.
    Bind {
        /// The path.
        path: String,
        /// Whether the engine makes a missing folder there.
        create: bool,
        /// Propagation such as `rslave`.
        propagation: Option<String>,
        /// SELinux relabelling: `z` or `Z`.
        selinux: Option<String>,
    },
    /// A named volume, by its name on the engine. May hold a slot template.
    Volume {
        /// The engine's name of it.
        name: String,
        /// Whether a new volume stays empty instead of getting the image's files.
        no_copy: bool,
        /// A folder within the volume.
        subpath: Option<String>,
    },
    /// A volume that lives as long as the container.
    Anonymous,
    /// Memory.
    Tmpfs {
        /// Bytes; `None` is unlimited.
        size: Option<u64>,
        /// Permission bits.
        mode: Option<u32>,
        /// Other mount options as `tmpfs:` writes them, such as `noexec`.
        options: Vec<String>,
    },
}

/// A device of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Path on the host.
    pub host: String,
    /// Path in the container.
    pub container: String,
    /// Some of `rwm`.
    pub permissions: String,
}

/// Limits of one process, as `setrlimit(2)` has them; -1 is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// The soft limit.
    pub soft: i64,
    /// The hard limit.
    pub hard: i64,
}

/// Limits and reservations of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Most memory, in bytes.
    pub memory: Option<u64>,
    /// Memory that is kept for it under pressure, in bytes.
    pub memory_reservation: Option<u64>,
    /// Billionths of a CPU.
    pub nano_cpus: Option<u64>,
    /// CPUs it may run on, such as `0-1`.
    pub cpuset: Option<String>,
    /// Most processes; -1 is unlimited.
    pub pids: Option<i64>,
    /// Size of `/dev/shm` in bytes. The pod's sandbox owns it, see [`super::Pod`].
    pub shm_size: Option<u64>,
}

/// How the engine finds out whether a container works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healthcheck {
    /// What is run.
    pub test: HealthTest,
    /// Between two checks.
    pub interval: Option<Duration>,
    /// How long one check may take.
    pub timeout: Option<Duration>,
    /// Failures in a row until it is unhealthy.
    pub retries: Option<u64>,
    /// Failures before this age do not count.
    pub start_period: Option<Duration>,
    /// Between two checks during the start period (API 1.44).
    pub start_interval: Option<Duration>,
}

/// The command of a [`Healthcheck`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthTest {
    /// The image's own, with other times.
    Inherit,
    /// Turned off.
    None,
    /// A program and its arguments.
    Cmd(Vec<String>),
    /// A line for the image's shell.
    Shell(String),
}

/// Where a container's output goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogDriver {
    /// Such as `json-file`; `None` is the daemon's own.
    pub driver: Option<String>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
}

impl Container {
    /// A container that runs what its image says, with the engine's defaults for everything.
    #[must_use]
    pub fn new(image: Image) -> Self {
        Self {
            image,
            image_id: None,
            command: None,
            entrypoint: None,
            environment: BTreeMap::new(),
            labels: BTreeMap::new(),
            mounts: Vec::new(),
            user: None,
            working_dir: None,
            healthcheck: None,
            init: None,
            read_only: false,
            privileged: false,
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            security_opt: Vec::new(),
            devices: Vec::new(),
            resources: Resources::default(),
            ulimits: BTreeMap::new(),
            group_add: Vec::new(),
            stop_signal: None,
            tty: false,
            stdin_open: false,
            logging: None,
            platform: None,
            runtime: None,
            ipc: None,
        }
    }

    /// This container as the replica in `slot` gets it: templates of environment, labels and volume names
    /// are filled in.
    #[must_use]
    pub fn for_slot(&self, slot: super::Slot) -> Self {
        let fill = |text: &String| super::expand(text, slot);
        let mut own = self.clone();
        own.environment.values_mut().flatten().for_each(|v| *v = fill(v));
        own.labels.values_mut().for_each(|v| *v = fill(v));
        for mount in &mut own.mounts {
            match &mut mount.source {
                MountSource::Volume { name, .. } => *name = fill(name),
                MountSource::Bind { path, .. } => *path = fill(path),
                MountSource::Anonymous | MountSource::Tmpfs { .. } => {}
            }
        }
        own
    }
}
