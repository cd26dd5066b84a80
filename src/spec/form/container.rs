//! The form of a [`Container`] and of what it is made of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{DurationForm, policy::IpcForm};
use crate::spec::{
    Container, Device, HealthTest, Healthcheck, Image, Ipc, LogDriver, Mount, MountSource, Resources, Ulimit,
};

/// The form of a [`Container`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerForm {
    image: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image_id: Option<String>,
    command: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    environment: BTreeMap<String, Option<String>>,
    labels: BTreeMap<String, String>,
    mounts: Vec<MountForm>,
    user: Option<String>,
    working_dir: Option<String>,
    healthcheck: Option<HealthcheckForm>,
    init: Option<bool>,
    read_only: bool,
    privileged: bool,
    cap_add: Vec<String>,
    cap_drop: Vec<String>,
    security_opt: Vec<String>,
    devices: Vec<DeviceForm>,
    resources: ResourcesForm,
    ulimits: BTreeMap<String, UlimitForm>,
    group_add: Vec<String>,
    stop_signal: Option<String>,
    tty: bool,
    stdin_open: bool,
    logging: Option<LogDriverForm>,
    platform: Option<String>,
    runtime: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ipc: Option<IpcForm>,
}

impl ContainerForm {
    /// The form of what another container is needed for. Limits that the engine changes in place are left out: their
    /// keys are there, and always `null`.
    pub(super) fn of_version(container: &Container) -> Self {
        Self { resources: ResourcesForm::from(&container.resources.fixed()), ..Self::from(container) }
    }
}

impl From<&Container> for ContainerForm {
    fn from(container: &Container) -> Self {
        let Container {
            image: Image(image),
            image_id,
            command,
            entrypoint,
            environment,
            labels,
            mounts,
            user,
            working_dir,
            healthcheck,
            init,
            read_only,
            privileged,
            cap_add,
            cap_drop,
            security_opt,
            devices,
            resources,
            ulimits,
            group_add,
            stop_signal,
            tty,
            stdin_open,
            logging,
            platform,
            runtime,
            ipc,
        } = container.clone();
        Self {
            image,
            image_id,
            command,
            entrypoint,
            environment,
            labels,
            mounts: mounts.into_iter().map(MountForm::from).collect(),
            user,
            working_dir,
            healthcheck: healthcheck.map(HealthcheckForm::from),
            init,
            read_only,
            privileged,
            cap_add,
            cap_drop,
            security_opt,
            devices: devices.into_iter().map(DeviceForm::from).collect(),
            resources: ResourcesForm::from(&resources),
            ulimits: ulimits.into_iter().map(|(name, limit)| (name, UlimitForm::from(limit))).collect(),
            group_add,
            stop_signal,
            tty,
            stdin_open,
            logging: logging.map(LogDriverForm::from),
            platform,
            runtime,
            ipc: ipc.map(IpcForm::from),
        }
    }
}

impl From<ContainerForm> for Container {
    fn from(form: ContainerForm) -> Self {
        let ContainerForm {
            image,
            image_id,
            command,
            entrypoint,
            environment,
            labels,
            mounts,
            user,
            working_dir,
            healthcheck,
            init,
            read_only,
            privileged,
            cap_add,
            cap_drop,
            security_opt,
            devices,
            resources,
            ulimits,
            group_add,
            stop_signal,
            tty,
            stdin_open,
            logging,
            platform,
            runtime,
            ipc,
        } = form;
        Self {
            image: Image(image),
            image_id,
            command,
            entrypoint,
            environment,
            labels,
            mounts: mounts.into_iter().map(Mount::from).collect(),
            user,
            working_dir,
            healthcheck: healthcheck.map(Healthcheck::from),
            init,
            read_only,
            privileged,
            cap_add,
            cap_drop,
            security_opt,
            devices: devices.into_iter().map(Device::from).collect(),
            resources: resources.into(),
            ulimits: ulimits.into_iter().map(|(name, limit)| (name, limit.into())).collect(),
            group_add,
            stop_signal,
            tty,
            stdin_open,
            logging: logging.map(LogDriver::from),
            platform,
            runtime,
            ipc: ipc.map(Ipc::from),
        }
    }
}

/// The form of a [`Mount`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct MountForm {
    target: String,
    source: MountSourceForm,
    read_only: bool,
}

impl From<Mount> for MountForm {
    fn from(Mount { target, source, read_only }: Mount) -> Self {
        Self { target, source: source.into(), read_only }
    }
}

impl From<MountForm> for Mount {
    fn from(MountForm { target, source, read_only }: MountForm) -> Self {
        Self { target, source: source.into(), read_only }
    }
}

/// The form of a [`MountSource`]: `"anonymous"`, or an object with the kind as its only key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum MountSourceForm {
    #[serde(rename = "bind")]
    Bind { path: String, create: bool, propagation: Option<String>, selinux: Option<String> },
    #[serde(rename = "volume")]
    Volume { name: String, no_copy: bool, subpath: Option<String> },
    #[serde(rename = "anonymous")]
    Anonymous,
    #[serde(rename = "tmpfs")]
    Tmpfs { size: Option<u64>, mode: Option<u32>, options: Vec<String> },
}

impl From<MountSource> for MountSourceForm {
    fn from(source: MountSource) -> Self {
        match source {
            MountSource::Bind { path, create, propagation, selinux } => {
                Self::Bind { path, create, propagation, selinux }
            }
            MountSource::Volume { name, no_copy, subpath } => Self::Volume { name, no_copy, subpath },
            MountSource::Anonymous => Self::Anonymous,
            MountSource::Tmpfs { size, mode, options } => Self::Tmpfs { size, mode, options },
        }
    }
}

impl From<MountSourceForm> for MountSource {
    fn from(form: MountSourceForm) -> Self {
        match form {
            MountSourceForm::Bind { path, create, propagation, selinux } => {
                Self::Bind { path, create, propagation, selinux }
            }
            MountSourceForm::Volume { name, no_copy, subpath } => Self::Volume { name, no_copy, subpath },
            MountSourceForm::Anonymous => Self::Anonymous,
            MountSourceForm::Tmpfs { size, mode, options } => Self::Tmpfs { size, mode, options },
        }
    }
}

/// The form of a [`Device`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct DeviceForm {
    host: String,
    container: String,
    permissions: String,
}

impl From<Device> for DeviceForm {
    fn from(Device { host, container, permissions }: Device) -> Self {
        Self { host, container, permissions }
    }
}

impl From<DeviceForm> for Device {
    fn from(DeviceForm { host, container, permissions }: DeviceForm) -> Self {
        Self { host, container, permissions }
    }
}

/// The form of a [`Ulimit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct UlimitForm {
    soft: i64,
    hard: i64,
}

impl From<Ulimit> for UlimitForm {
    fn from(Ulimit { soft, hard }: Ulimit) -> Self {
        Self { soft, hard }
    }
}

impl From<UlimitForm> for Ulimit {
    fn from(UlimitForm { soft, hard }: UlimitForm) -> Self {
        Self { soft, hard }
    }
}

/// The form of [`Resources`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ResourcesForm {
    memory: Option<u64>,
    memory_reservation: Option<u64>,
    nano_cpus: Option<u64>,
    cpuset: Option<String>,
    pids: Option<i64>,
    shm_size: Option<u64>,
}

impl From<&Resources> for ResourcesForm {
    fn from(resources: &Resources) -> Self {
        let Resources { memory, memory_reservation, nano_cpus, cpuset, pids, shm_size } = resources.clone();
        Self { memory, memory_reservation, nano_cpus, cpuset, pids, shm_size }
    }
}

impl From<ResourcesForm> for Resources {
    fn from(form: ResourcesForm) -> Self {
        let ResourcesForm { memory, memory_reservation, nano_cpus, cpuset, pids, shm_size } = form;
        Self { memory, memory_reservation, nano_cpus, cpuset, pids, shm_size }
    }
}

/// The form of a [`Healthcheck`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct HealthcheckForm {
    test: HealthTestForm,
    interval: Option<DurationForm>,
    timeout: Option<DurationForm>,
    retries: Option<u64>,
    start_period: Option<DurationForm>,
    start_interval: Option<DurationForm>,
}

impl From<Healthcheck> for HealthcheckForm {
    fn from(check: Healthcheck) -> Self {
        let Healthcheck { test, interval, timeout, retries, start_period, start_interval } = check;
        Self {
            test: test.into(),
            interval: interval.map(DurationForm::from),
            timeout: timeout.map(DurationForm::from),
            retries,
            start_period: start_period.map(DurationForm::from),
            start_interval: start_interval.map(DurationForm::from),
        }
    }
}

impl From<HealthcheckForm> for Healthcheck {
    fn from(form: HealthcheckForm) -> Self {
        let HealthcheckForm { test, interval, timeout, retries, start_period, start_interval } = form;
        Self {
            test: test.into(),
            interval: interval.map(Into::into),
            timeout: timeout.map(Into::into),
            retries,
            start_period: start_period.map(Into::into),
            start_interval: start_interval.map(Into::into),
        }
    }
}

/// The form of a [`HealthTest`]: `"inherit"`, `"none"`, `{"cmd":[…]}` or `{"shell":"…"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum HealthTestForm {
    #[serde(rename = "inherit")]
    Inherit,
    #[serde(rename = "none")]
    None,
    #[serde(rename = "cmd")]
    Cmd(Vec<String>),
    #[serde(rename = "shell")]
    Shell(String),
}

impl From<HealthTest> for HealthTestForm {
    fn from(test: HealthTest) -> Self {
        match test {
            HealthTest::Inherit => Self::Inherit,
            HealthTest::None => Self::None,
            HealthTest::Cmd(command) => Self::Cmd(command),
            HealthTest::Shell(line) => Self::Shell(line),
        }
    }
}

impl From<HealthTestForm> for HealthTest {
    fn from(form: HealthTestForm) -> Self {
        match form {
            HealthTestForm::Inherit => Self::Inherit,
            HealthTestForm::None => Self::None,
            HealthTestForm::Cmd(command) => Self::Cmd(command),
            HealthTestForm::Shell(line) => Self::Shell(line),
        }
    }
}

/// The form of a [`LogDriver`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LogDriverForm {
    driver: Option<String>,
    options: BTreeMap<String, String>,
}

impl From<LogDriver> for LogDriverForm {
    fn from(LogDriver { driver, options }: LogDriver) -> Self {
        Self { driver, options }
    }
}

impl From<LogDriverForm> for LogDriver {
    fn from(LogDriverForm { driver, options }: LogDriverForm) -> Self {
        Self { driver, options }
    }
}
