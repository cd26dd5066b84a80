//! From our words to the daemon's. Pure: no call is made here.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, ContainerUpdateBody, DeviceMapping, EndpointIpamConfig, EndpointSettings,
    HealthConfig, HostConfig, HostConfigLogConfig, NetworkingConfig, PortBinding, ResourcesUlimits,
    RestartPolicy, RestartPolicyNameEnum,
};

use crate::{
    engine::{CreateContainer, IpcNamespace, Namespaces, Nonce},
    spec::{
        Container, HealthTest, Healthcheck, Ipc, Limits, LogDriver, NetworkAttachment, Pod, PodNetwork,
        PortBinding as Port, Resources,
    },
};

use super::mounts;

/// A setting of the kernel under which connections that wait on a closing listener move on to another one of its
/// group (since Linux 5.14): <https://docs.kernel.org/networking/ip-sysctl.html>.
pub(super) const MIGRATE: &str = "net.ipv4.tcp_migrate_req";

/// By this label Watchtower is told to leave a container alone, unless the file says otherwise:
/// <https://containrrr.dev/watchtower/container-selection/>.
pub(super) const WATCHTOWER: &str = "com.centurylinklabs.watchtower.enable";

/// What is asked of the daemon for a container with that nonce.
pub(super) fn container(create: &CreateContainer, nonce: &Nonce) -> ContainerCreateBody {
    let own = &create.container;
    let mut body = process(own);
    let mut host = limits(own);
    mounts::mount(own, &mut body, &mut host);
    match &create.namespaces {
        Namespaces::Own { pod, networks } => sandbox(pod, networks, &mut body, &mut host),
        Namespaces::Join { sandbox, ipc } => {
            host.network_mode = Some(format!("container:{sandbox}"));
            match ipc {
                IpcNamespace::Own { shm_size, sysctls } => {
                    // Shareable is what some daemons make of it that say nothing.
                    host.ipc_mode = Some("private".to_owned());
                    host.shm_size = signed(*shm_size);
                    host.sysctls = (!sysctls.is_empty()).then(|| sysctls.clone().into_iter().collect());
                }
                IpcNamespace::Sandbox => {
                    host.ipc_mode = Some(format!("container:{sandbox}"));
                    host.shm_size = None;
                }
                IpcNamespace::Host => {
                    host.ipc_mode = Some("host".to_owned());
                    host.shm_size = None;
                }
            }
        }
        Namespaces::Host(pod) => {
            host.network_mode = Some("host".to_owned());
            names(pod, &mut body, &mut host);
            host.shm_size = signed(pod.shm_size.or(own.resources.shm_size));
            if own.ipc == Some(Ipc::Host) {
                host.ipc_mode = Some("host".to_owned());
                host.shm_size = None;
            }
        }
    }
    let mut labels: HashMap<_, _> = own.labels.clone().into_iter().collect();
    labels.extend(create.labels.of_container(&create.hooks, nonce));
    // It would make each of ours anew once its image is another one, and we it.
    labels.entry(WATCHTOWER.to_owned()).or_insert_with(|| "false".to_owned());
    body.labels = Some(labels);
    body.host_config = Some(host);
    body
}

fn process(own: &Container) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(own.image.0.clone()),
        cmd: own.command.clone(),
        entrypoint: own.entrypoint.as_ref().map(|words| match words.is_empty() {
            // The daemon takes an empty list for "as the image says", and this for "none".
            true => vec![String::new()],
            false => words.clone(),
        }),
        env: Some(
            own.environment
                .iter()
                .map(|(name, value)| match value {
                    Some(value) => format!("{name}={value}"),
                    None => name.clone(),
                })
                .collect(),
        ),
        user: own.user.clone(),
        working_dir: own.working_dir.clone(),
        tty: Some(own.tty),
        open_stdin: Some(own.stdin_open),
        stop_signal: own.stop_signal.clone(),
        healthcheck: own.healthcheck.as_ref().map(healthcheck),
        ..ContainerCreateBody::default()
    }
}

fn healthcheck(check: &Healthcheck) -> HealthConfig {
    let nanoseconds =
        |time: Option<std::time::Duration>| time.map(|t| i64::try_from(t.as_nanos()).unwrap_or(i64::MAX));
    HealthConfig {
        test: Some(match &check.test {
            HealthTest::Inherit => Vec::new(),
            HealthTest::None => vec!["NONE".to_owned()],
            HealthTest::Cmd(words) => {
                std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect()
            }
            HealthTest::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
        }),
        interval: nanoseconds(check.interval),
        timeout: nanoseconds(check.timeout),
        retries: check.retries.and_then(|n| i64::try_from(n).ok()),
        start_period: nanoseconds(check.start_period),
        start_interval: nanoseconds(check.start_interval),
    }
}

fn limits(own: &Container) -> HostConfig {
    let Resources { memory, memory_reservation, nano_cpus, cpuset, pids, shm_size } = own.resources.clone();
    HostConfig {
        // The supervisor decides; a daemon that starts joiners before their sandbox does harm.
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        memory: signed(memory),
        memory_reservation: signed(memory_reservation),
        nano_cpus: signed(nano_cpus),
        cpuset_cpus: cpuset,
        pids_limit: pids,
        shm_size: signed(shm_size),
        init: own.init,
        readonly_rootfs: Some(own.read_only),
        privileged: Some(own.privileged),
        cap_add: listed(&own.cap_add),
        cap_drop: listed(&own.cap_drop),
        security_opt: listed(&own.security_opt),
        group_add: listed(&own.group_add),
        runtime: own.runtime.clone(),
        log_config: own.logging.as_ref().map(log_driver),
        devices: (!own.devices.is_empty()).then(|| {
            let mapping = |device: &crate::spec::Device| DeviceMapping {
                path_on_host: Some(device.host.clone()),
                path_in_container: Some(device.container.clone()),
                cgroup_permissions: Some(device.permissions.clone()),
            };
            own.devices.iter().map(mapping).collect()
        }),
        ulimits: (!own.ulimits.is_empty()).then(|| {
            let limit = |(name, limit): (&String, &crate::spec::Ulimit)| ResourcesUlimits {
                name: Some(name.clone()),
                soft: Some(limit.soft),
                hard: Some(limit.hard),
            };
            own.ulimits.iter().map(limit).collect()
        }),
        ..HostConfig::default()
    }
}

/// What is asked of the daemon to change limits.
pub(super) fn changes(changes: &Limits) -> ContainerUpdateBody {
    ContainerUpdateBody {
        memory: signed(changes.memory),
        // The daemon gives a new container as much swap again as it has memory, and refuses a limit above what is set
        // for both together, unless it is moved with it.
        memory_swap: signed(changes.memory.map(|bytes| bytes.saturating_mul(2))),
        memory_reservation: signed(changes.memory_reservation),
        nano_cpus: signed(changes.nano_cpus),
        cpuset_cpus: changes.cpuset.clone(),
        pids_limit: changes.pids,
        ..ContainerUpdateBody::default()
    }
}

fn log_driver(driver: &LogDriver) -> HostConfigLogConfig {
    HostConfigLogConfig {
        typ: driver.driver.clone(),
        config: Some(driver.options.clone().into_iter().collect()),
    }
}

/// What belongs to the namespaces rather than to a process in them; the daemon refuses it on a container that
/// joins another.
fn sandbox(
    pod: &Pod,
    networks: &[(String, NetworkAttachment)],
    body: &mut ContainerCreateBody,
    host: &mut HostConfig,
) {
    host.ipc_mode = Some("shareable".to_owned());
    host.shm_size = signed(pod.shm_size);
    names(pod, body, host);
    let mut sysctls: HashMap<_, _> = pod.sysctls.clone().into_iter().collect();
    if !matches!(pod.network, PodNetwork::Host) {
        sysctls.entry(MIGRATE.to_owned()).or_insert_with(|| "1".to_owned());
    }
    host.sysctls = Some(sysctls);
    ports(pod, body, host);
    match &pod.network {
        PodNetwork::None => host.network_mode = Some("none".to_owned()),
        PodNetwork::Host => host.network_mode = Some("host".to_owned()),
        PodNetwork::Bridge => host.network_mode = Some("bridge".to_owned()),
        PodNetwork::Networks(_) => {
            // Only the first one: daemons before API 1.44 take a single network here, the others are connected
            // before the start.
            if let Some((name, attachment)) = networks.first() {
                host.network_mode = Some(name.clone());
                let endpoints = HashMap::from([(name.clone(), endpoint(attachment))]);
                body.networking_config = Some(NetworkingConfig { endpoints_config: Some(endpoints) });
            }
        }
    }
}

fn names(pod: &Pod, body: &mut ContainerCreateBody, host: &mut HostConfig) {
    body.hostname.clone_from(&pod.hostname);
    body.domainname.clone_from(&pod.domainname);
    host.dns = listed(&pod.dns);
    host.dns_options = listed(&pod.dns_opt);
    host.dns_search = listed(&pod.dns_search);
    host.extra_hosts = listed(&pod.extra_hosts);
}

fn ports(pod: &Pod, body: &mut ContainerCreateBody, host: &mut HostConfig) {
    let mut exposed: Vec<_> =
        pod.expose.iter().map(|(port, protocol)| format!("{port}/{protocol}")).collect();
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for Port { host_ip, host_port, container_port, protocol, .. } in &pod.ports {
        let inside = format!("{container_port}/{protocol}");
        if !exposed.contains(&inside) {
            exposed.push(inside.clone());
        }
        bindings.entry(inside).or_default().get_or_insert_default().push(PortBinding {
            host_ip: host_ip.map(|ip| ip.to_string()),
            host_port: Some(host_port.map_or_else(String::new, |port| port.to_string())),
        });
    }
    body.exposed_ports = listed(&exposed);
    host.port_bindings = (!bindings.is_empty()).then_some(bindings);
}

/// A place in a network.
pub(super) fn endpoint(attachment: &NetworkAttachment) -> EndpointSettings {
    let fixed = attachment.ipv4_address.is_some() || attachment.ipv6_address.is_some();
    EndpointSettings {
        aliases: listed(&attachment.aliases),
        ipam_config: fixed.then(|| EndpointIpamConfig {
            ipv4_address: attachment.ipv4_address.clone(),
            ipv6_address: attachment.ipv6_address.clone(),
            link_local_ips: None,
        }),
        ..EndpointSettings::default()
    }
}

fn signed(number: Option<u64>) -> Option<i64> {
    number.map(|n| i64::try_from(n).unwrap_or(i64::MAX))
}

fn listed(list: &[String]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.to_vec())
}

#[cfg(test)]
#[path = "translate_tests.rs"]
mod tests;
