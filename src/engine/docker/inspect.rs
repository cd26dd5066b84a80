//! From the daemon's words to ours.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bollard::models::{
    ContainerInspectResponse, ContainerState as BollardState, ContainerStateStatusEnum, ContainerSummary,
    HealthConfig, HealthStatusEnum, HostConfig, ImageInspect, MountPoint, NetworkSettings,
};
use jiff::Timestamp;

use super::error::tells_of_remains;
use crate::engine::{
    ContainerId, ContainerState, Endpoint, Exit, Health, HealthCheck, HostSettings, ImageInfo, Inspection,
    Process, Summary, cannot_run,
};
use crate::spec::{Limits, Resources};

/// One row of the list.
pub(super) fn summary(row: ContainerSummary) -> Option<Summary> {
    Some(Summary {
        id: ContainerId(row.id?),
        name: bare(row.names.unwrap_or_default().first().map_or("", String::as_str)),
        labels: row.labels.unwrap_or_default().into_iter().collect(),
        image: row.image.unwrap_or_default(),
        image_id: row.image_id.unwrap_or_default(),
        created: row.created.and_then(|at| Timestamp::from_second(at).ok()).unwrap_or_default(),
        state: row.state.map(|state| state.to_string()).unwrap_or_default(),
        status: row.status.unwrap_or_default(),
        connected: (
            row.network_settings.and_then(|settings| settings.networks).map(names).unwrap_or_default(),
            row.ports.unwrap_or_default().iter().filter(|port| port.public_port.is_some()).count(),
        ),
    })
}

fn names<T>(networks: HashMap<String, T>) -> Vec<String> {
    let mut names: Vec<_> = networks.into_keys().collect();
    names.sort();
    names
}

/// All about one container.
pub(super) fn inspection(id: &ContainerId, told: ContainerInspectResponse) -> Inspection {
    let host = told.host_config.unwrap_or_default();
    let limits = limits(&host);
    let config = told.config.unwrap_or_default();
    let check = check(config.healthcheck.unwrap_or_default(), &config.shell.unwrap_or_default());
    let host = HostSettings {
        image: config.image.unwrap_or_default(),
        network_mode: host.network_mode.unwrap_or_default(),
        ipc_mode: host.ipc_mode.unwrap_or_default(),
        read_only: host.readonly_rootfs.unwrap_or_default(),
        cap_drop: host.cap_drop.unwrap_or_default(),
    };
    let endpoints = told.network_settings.as_ref().and_then(endpoints);
    let (addresses, published) = told.network_settings.map(network).unwrap_or_default();
    Inspection {
        id: told.id.map_or_else(|| id.clone(), ContainerId),
        name: bare(told.name.as_deref().unwrap_or_default()),
        host,
        limits,
        volumes: told.mounts.into_iter().flatten().filter_map(volume).collect(),
        check,
        image_id: told.image.unwrap_or_default(),
        state: told.state.map_or(ContainerState::Created, state),
        addresses,
        endpoints,
        published,
    }
}

fn check(told: HealthConfig, shell: &[String]) -> Option<HealthCheck> {
    let time =
        |told: Option<i64>| Duration::from_nanos(told.and_then(|ns| u64::try_from(ns).ok()).unwrap_or(0));
    HealthCheck::of(&told.test?, shell, time(told.interval), time(told.timeout))
}

/// Where a volume is mounted that can be written to.
fn volume(mount: MountPoint) -> Option<String> {
    let is_volume = mount.typ.as_deref() == Some("volume");
    mount.destination.filter(|_| is_volume && mount.rw == Some(true))
}

/// Its place in each network. Of one that it is to join at its start the engine keeps an entry without an endpoint.
fn endpoints(told: &NetworkSettings) -> Option<BTreeMap<String, Endpoint>> {
    let address = |told: &Option<String>| told.clone().filter(|address| !address.is_empty());
    let networks = told.networks.as_ref()?.iter();
    let connected = networks.filter(|(_, told)| told.endpoint_id.as_ref().is_some_and(|id| !id.is_empty()));
    Some(
        connected
            .map(|(name, told)| {
                let aliases = told.aliases.iter().flatten().cloned().collect();
                let (ipv4, ipv6) = (address(&told.ip_address), address(&told.global_ipv6_address));
                (name.clone(), Endpoint { aliases, ipv4, ipv6 })
            })
            .collect(),
    )
}

fn limits(host: &HostConfig) -> Limits {
    let number = |told: Option<i64>| told.and_then(|number| u64::try_from(number).ok());
    let resources = Resources {
        memory: number(host.memory),
        memory_reservation: number(host.memory_reservation),
        nano_cpus: number(host.nano_cpus),
        cpuset: host.cpuset_cpus.clone(),
        pids: host.pids_limit,
        shm_size: None,
    };
    resources.limits()
}

fn bare(name: &str) -> String {
    name.trim_start_matches('/').to_owned()
}

fn state(told: BollardState) -> ContainerState {
    use ContainerStateStatusEnum as Status;
    let started_at = time(told.started_at.as_deref());
    let process = |told: &BollardState| {
        let check_error = check_error(told);
        Process {
            pid: told.pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default(),
            started_at,
            health: if check_error.is_some() { Health::None } else { health(told) },
            complaint: complaint(told),
            check_error,
        }
    };
    match told.status {
        Some(Status::RUNNING | Status::RESTARTING | Status::STOPPING) => {
            ContainerState::Running(process(&told))
        }
        Some(Status::PAUSED) => ContainerState::Paused(process(&told)),
        Some(Status::EXITED | Status::CREATED)
            if told.error.as_deref().is_some_and(|error| tells_of_remains(&error.to_lowercase())) =>
        {
            ContainerState::Dead
        }
        Some(Status::EXITED) => ContainerState::Exited(exit(told, started_at)),
        Some(Status::REMOVING) => ContainerState::Removing,
        Some(Status::DEAD) => ContainerState::Dead,
        // A container whose start failed is shown as created, with the failure: it was tried, and it ended.
        Some(Status::CREATED | Status::EMPTY) | None if has_failed(&told) => {
            ContainerState::Exited(exit(told, started_at))
        }
        Some(Status::CREATED | Status::EMPTY) | None => ContainerState::Created,
    }
}

fn has_failed(told: &BollardState) -> bool {
    told.error.as_deref().is_some_and(|error| !error.is_empty())
        && told.exit_code.is_some_and(|code| code != 0)
}

fn exit(told: BollardState, started_at: Timestamp) -> Exit {
    Exit {
        code: told.exit_code.unwrap_or_default(),
        out_of_memory: told.oom_killed.unwrap_or_default(),
        error: told.error.filter(|error| !error.is_empty()),
        started_at,
        finished_at: time(told.finished_at.as_deref()).max(started_at),
    }
}

fn health(told: &BollardState) -> Health {
    match told.health.as_ref().and_then(|health| health.status) {
        Some(HealthStatusEnum::STARTING) => Health::Starting,
        Some(HealthStatusEnum::HEALTHY) => Health::Healthy,
        Some(HealthStatusEnum::UNHEALTHY) => Health::Unhealthy,
        Some(HealthStatusEnum::NONE | HealthStatusEnum::EMPTY) | None => Health::None,
    }
}

/// Why the health check cannot be run, if that is so time and again: its program may be made by the container's own.
fn check_error(told: &BollardState) -> Option<String> {
    let last = told.health.as_ref()?.log.as_ref()?.last()?;
    let unhealthy = health(told) == Health::Unhealthy;
    unhealthy.then(|| cannot_run(last.exit_code?, last.output.as_deref().unwrap_or_default())).flatten()
}

/// What a health check that fails wrote last.
fn complaint(told: &BollardState) -> Option<String> {
    let last = told.health.as_ref()?.log.as_ref()?.last()?;
    let output = last.output.as_ref().filter(|_| last.exit_code != Some(0))?;
    Some(output.trim().to_owned()).filter(|output| !output.is_empty())
}

/// A time as the daemon writes it; the year 1 stands for never.
fn time(text: Option<&str>) -> Timestamp {
    text.and_then(|text| text.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}

type Network = (BTreeMap<String, String>, Vec<(String, u16, String)>);

fn network(told: NetworkSettings) -> Network {
    let addresses = told
        .networks
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(name, endpoint)| {
            Some((name, endpoint.ip_address.filter(|address| !address.is_empty())?))
        })
        .collect();
    let mut published: Vec<_> = told
        .ports
        .unwrap_or_default()
        .into_iter()
        .flat_map(|(inside, bindings)| {
            bindings.unwrap_or_default().into_iter().filter_map(move |binding| {
                let port = binding.host_port?.parse().ok()?;
                Some((binding.host_ip.unwrap_or_default(), port, inside.clone()))
            })
        })
        .collect();
    published.sort();
    (addresses, published)
}

/// What an image says about itself.
pub(super) fn image(told: ImageInspect) -> ImageInfo {
    let variant = told.variant.filter(|variant| !variant.is_empty());
    let parts = [told.os, told.architecture, variant];
    let config = told.config.unwrap_or_default();
    let mut exposed = config.exposed_ports.unwrap_or_default();
    exposed.sort();
    ImageInfo {
        id: told.id.unwrap_or_default(),
        platform: parts.into_iter().flatten().collect::<Vec<_>>().join("/"),
        exposed,
        user: config.user.unwrap_or_default(),
        volumes: config.volumes.into_iter().flatten().collect(),
        healthcheck: config
            .healthcheck
            .and_then(|check| check.test)
            .is_some_and(|test| test.first().is_some_and(|word| word != "NONE")),
        labels: config.labels.unwrap_or_default().into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: ContainerStateStatusEnum) -> BollardState {
        BollardState {
            status: Some(status),
            pid: Some(42),
            started_at: Some("2024-05-06T07:08:09.123456789Z".to_owned()),
            finished_at: Some("0001-01-01T00:00:00Z".to_owned()),
            ..BollardState::default()
        }
    }

    #[test]
    fn a_running_process_is_told_by_its_id_and_its_start() {
        let ContainerState::Running(process) = state(told(ContainerStateStatusEnum::RUNNING)) else {
            panic!("it runs");
        };
        assert_eq!(process.pid, 42);
        assert_eq!(process.started_at.to_string(), "2024-05-06T07:08:09.123456789Z");
        assert_eq!(process.health, Health::None);
    }

    #[test]
    fn a_container_that_could_not_start_has_ended() {
        let failed = BollardState {
            error: Some("exec: \"nope\": not found".to_owned()),
            exit_code: Some(127),
            started_at: Some("0001-01-01T00:00:00Z".to_owned()),
            ..told(ContainerStateStatusEnum::CREATED)
        };
        let ContainerState::Exited(exit) = state(failed) else { panic!("it has ended") };
        assert_eq!((exit.code, exit.error.as_deref()), (127, Some("exec: \"nope\": not found")));
        assert_eq!(state(told(ContainerStateStatusEnum::CREATED)), ContainerState::Created);
    }

    #[test]
    fn a_container_whose_start_was_broken_off_can_only_be_removed() {
        for error in [
            "id already in use",
            "task d69423c0b4b1: already exists",
            "failed to start shim: mkdir /run/containerd/io.containerd.runtime.v2.task/moby/4d7d: file exists: unknown",
        ] {
            for status in [ContainerStateStatusEnum::CREATED, ContainerStateStatusEnum::EXITED] {
                let left =
                    BollardState { error: Some(error.to_owned()), exit_code: Some(128), ..told(status) };
                assert_eq!(state(left), ContainerState::Dead, "{error}");
            }
        }
    }
}
