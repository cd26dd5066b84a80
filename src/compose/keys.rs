//! All keys of the Compose Specification, and how sameport handles them.

use super::{
    fields::nearest,
    node::Node,
    report::{Problem, Report},
};

/// How a key is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// As the Compose Specification says.
    Honoured,
    /// It has no effect and causes a warning. The text gives the reason, or an alternative.
    Ignored(&'static str),
    /// It is an error, since ignoring it would change what runs. The text gives an alternative.
    Refused(&'static str),
}

use Use::{Honoured, Ignored, Refused};

/// The keys of one kind of mapping, in alphabetical order.
pub(super) type Table = &'static [(&'static str, Use)];

const DAEMON: &str = "sameport does not pass it to the engine";
const POD: &str = "the replicas of a service share the namespaces of their sandbox";
const BUILD: &str = "build the image before, with `docker build`, and name it with `image`";
const SECRET: &str = "mount the file with `volumes`, such as `./token:/run/secrets/token:ro`";

/// Top-level keys.
pub(super) const TOP: Table = &[
    ("configs", Ignored("a service that uses one is refused; mount files with `volumes`")),
    ("include", Refused("name the files with `-f`, one after the other")),
    ("models", Ignored("sameport runs containers only")),
    ("name", Honoured),
    ("networks", Honoured),
    ("secrets", Ignored("a service that uses one is refused; mount files with `volumes`")),
    ("services", Honoured),
    ("version", Ignored("Compose no longer uses it; remove the line")),
    ("volumes", Honoured),
];

/// Keys of a service.
pub(super) const SERVICE: Table = &[
    ("annotations", Ignored(DAEMON)),
    ("attach", Ignored("`sameport logs SERVICE` shows the output of chosen services")),
    ("blkio_config", Ignored(DAEMON)),
    ("build", Ignored(BUILD)),
    ("cap_add", Honoured),
    ("cap_drop", Honoured),
    ("cgroup", Ignored(DAEMON)),
    ("cgroup_parent", Ignored(DAEMON)),
    ("command", Honoured),
    ("configs", Refused(SECRET)),
    ("container_name", Honoured),
    ("cpu_count", Ignored("it is for Windows; `cpus` limits on Linux")),
    ("cpu_percent", Ignored("it is for Windows; `cpus` limits on Linux")),
    ("cpu_period", Ignored("write `cpus` instead")),
    ("cpu_quota", Ignored("write `cpus` instead")),
    ("cpu_rt_period", Ignored(DAEMON)),
    ("cpu_rt_runtime", Ignored(DAEMON)),
    ("cpu_shares", Ignored("write `cpus` for a limit instead")),
    ("cpus", Honoured),
    ("cpuset", Honoured),
    ("credential_spec", Ignored("it is for Windows")),
    ("depends_on", Honoured),
    ("deploy", Honoured),
    ("develop", Ignored("sameport does not watch source files")),
    ("device_cgroup_rules", Ignored(DAEMON)),
    ("devices", Honoured),
    ("dns", Honoured),
    ("dns_opt", Honoured),
    ("dns_search", Honoured),
    ("domainname", Honoured),
    ("entrypoint", Honoured),
    ("env_file", Honoured),
    ("environment", Honoured),
    ("expose", Honoured),
    ("extends", Refused("write the keys here, or share them with an anchor and `<<: *name`")),
    ("external_links", Ignored("put both into one external network instead")),
    ("extra_hosts", Honoured),
    ("gpus", Ignored(DAEMON)),
    ("group_add", Honoured),
    ("healthcheck", Honoured),
    ("hostname", Honoured),
    ("image", Honoured),
    ("init", Honoured),
    ("ipc", Honoured),
    ("isolation", Ignored("it is for Windows")),
    ("label_file", Ignored("write the labels under `labels`")),
    ("labels", Honoured),
    (
        "links",
        Ignored("services of one network find each other by name; write other names as network `aliases`"),
    ),
    ("logging", Honoured),
    ("mac_address", Ignored(POD)),
    ("mem_limit", Honoured),
    ("mem_reservation", Honoured),
    ("mem_swappiness", Ignored(DAEMON)),
    ("memswap_limit", Ignored(DAEMON)),
    ("models", Refused("sameport runs containers only; run the model as a service")),
    ("network_mode", Honoured),
    ("networks", Honoured),
    ("oom_kill_disable", Ignored(DAEMON)),
    ("oom_score_adj", Ignored(DAEMON)),
    ("pid", Ignored("each replica has a process namespace of its own")),
    ("pids_limit", Honoured),
    ("platform", Honoured),
    ("ports", Honoured),
    ("post_start", Honoured),
    (
        "pre_start",
        Refused(
            "run it in the image's entrypoint, or once before each new version with `x-sameport.pre_deploy`",
        ),
    ),
    ("pre_stop", Honoured),
    ("privileged", Honoured),
    ("profiles", Honoured),
    ("provider", Refused("sameport runs containers only; start it by its own tool")),
    ("pull_policy", Honoured),
    (
        "pull_refresh_after",
        Ignored("an image is pulled when it is missing, or always with `pull_policy: always`"),
    ),
    ("read_only", Honoured),
    ("restart", Honoured),
    ("runtime", Honoured),
    ("scale", Honoured),
    ("secrets", Refused(SECRET)),
    ("security_opt", Honoured),
    ("shm_size", Honoured),
    ("stdin_open", Honoured),
    ("stop_grace_period", Honoured),
    ("stop_signal", Honoured),
    ("storage_opt", Ignored(DAEMON)),
    ("sysctls", Honoured),
    ("tmpfs", Honoured),
    ("tty", Honoured),
    ("ulimits", Honoured),
    ("use_api_socket", Ignored("mount the engine's socket with `volumes` where you want that")),
    ("user", Honoured),
    ("userns_mode", Ignored(DAEMON)),
    ("uts", Ignored(POD)),
    ("volumes", Honoured),
    ("volumes_from", Refused("name the volumes in both services")),
    ("working_dir", Honoured),
];

/// Keys of `deploy`.
pub(super) const DEPLOY: Table = &[
    ("endpoint_mode", Ignored("it is for Swarm")),
    ("labels", Ignored("it is for Swarm; containers get `labels` of the service")),
    ("mode", Honoured),
    ("placement", Ignored("sameport runs on one host")),
    ("replicas", Honoured),
    ("resources", Honoured),
    ("restart_policy", Honoured),
    ("rollback_config", Honoured),
    ("update_config", Honoured),
];

/// Keys of `deploy.update_config` and `deploy.rollback_config`.
pub(super) const UPDATE: Table = &[
    ("delay", Honoured),
    ("failure_action", Honoured),
    ("max_failure_ratio", Honoured),
    ("monitor", Honoured),
    ("order", Honoured),
    ("parallelism", Honoured),
];

/// Keys of `deploy.resources.limits`.
pub(super) const LIMITS: Table = &[("cpus", Honoured), ("memory", Honoured), ("pids", Honoured)];

/// Keys of `deploy.resources.reservations`.
pub(super) const RESERVATIONS: Table = &[
    ("cpus", Ignored("the engine can reserve memory only")),
    ("devices", Ignored(DAEMON)),
    ("generic_resources", Ignored("it is for Swarm")),
    ("memory", Honoured),
];

/// Keys of `deploy.restart_policy`.
pub(super) const RESTART_POLICY: Table =
    &[("condition", Honoured), ("delay", Honoured), ("max_attempts", Honoured), ("window", Honoured)];

/// Keys of `deploy.resources`.
pub(super) const RESOURCES: Table = &[("limits", Honoured), ("reservations", Honoured)];

/// Keys of `healthcheck`.
pub(super) const HEALTHCHECK: Table = &[
    ("disable", Honoured),
    ("interval", Honoured),
    ("retries", Honoured),
    ("start_interval", Honoured),
    ("start_period", Honoured),
    ("test", Honoured),
    ("timeout", Honoured),
];

/// Keys of `logging`.
pub(super) const LOGGING: Table = &[("driver", Honoured), ("options", Honoured)];

/// Keys of an entry of `depends_on`.
pub(super) const DEPENDENCY: Table =
    &[("condition", Honoured), ("required", Honoured), ("restart", Honoured)];

/// Keys of a long entry of `ports`.
pub(super) const PORT: Table = &[
    ("app_protocol", Ignored("it is a hint for tools")),
    ("host_ip", Honoured),
    ("mode", Ignored("it is for Swarm")),
    ("name", Ignored("it is a hint for tools")),
    ("protocol", Honoured),
    ("published", Honoured),
    ("target", Honoured),
];

/// Keys of a long entry of `volumes`.
pub(super) const MOUNT: Table = &[
    ("bind", Honoured),
    ("consistency", Ignored("Linux has one consistency")),
    ("image", Refused("copy what is needed into the image of the service")),
    ("read_only", Honoured),
    ("source", Honoured),
    ("target", Honoured),
    ("tmpfs", Honoured),
    ("type", Honoured),
    ("volume", Honoured),
];

/// Keys of `bind` in a long entry of `volumes`.
pub(super) const MOUNT_BIND: Table = &[
    ("create_host_path", Honoured),
    ("propagation", Honoured),
    ("recursive", Ignored(DAEMON)),
    ("selinux", Honoured),
];

/// Keys of `volume` in a long entry of `volumes`.
pub(super) const MOUNT_VOLUME: Table = &[
    ("labels", Ignored("write them under the top-level `volumes`")),
    ("nocopy", Honoured),
    ("subpath", Honoured),
];

/// Keys of `tmpfs` in a long entry of `volumes`.
pub(super) const MOUNT_TMPFS: Table = &[("mode", Honoured), ("size", Honoured)];

/// Keys of an entry of a service's `networks`.
pub(super) const ATTACHMENT: Table = &[
    ("aliases", Honoured),
    ("driver_opts", Ignored(DAEMON)),
    ("gw_priority", Ignored("write `priority` instead")),
    ("interface_name", Ignored(DAEMON)),
    ("ipv4_address", Honoured),
    ("ipv6_address", Honoured),
    ("link_local_ips", Ignored(DAEMON)),
    ("mac_address", Ignored(DAEMON)),
    ("priority", Honoured),
];

/// Keys of an entry of the top-level `networks`.
pub(super) const NETWORK: Table = &[
    ("attachable", Honoured),
    ("driver", Honoured),
    ("driver_opts", Honoured),
    ("enable_ipv4", Ignored("IPv4 is always on")),
    ("enable_ipv6", Honoured),
    ("external", Honoured),
    ("internal", Honoured),
    ("ipam", Honoured),
    ("labels", Honoured),
    ("name", Honoured),
];

/// Keys of `ipam`.
pub(super) const IPAM: Table =
    &[("config", Honoured), ("driver", Ignored(DAEMON)), ("options", Ignored(DAEMON))];

/// Keys of an entry of `ipam.config`.
pub(super) const IPAM_POOL: Table = &[
    ("aux_addresses", Ignored(DAEMON)),
    ("gateway", Honoured),
    ("ip_range", Honoured),
    ("subnet", Honoured),
];

/// Keys of an entry of the top-level `volumes`.
pub(super) const VOLUME: Table = &[
    ("driver", Honoured),
    ("driver_opts", Honoured),
    ("external", Honoured),
    ("labels", Honoured),
    ("name", Honoured),
];

/// Keys of a long entry of `env_file`.
pub(super) const ENV_FILE: Table = &[("format", Honoured), ("path", Honoured), ("required", Honoured)];

/// Keys of a long entry of `devices`.
pub(super) const DEVICE: Table = &[("permissions", Honoured), ("source", Honoured), ("target", Honoured)];

/// Keys of a ulimit with two limits.
pub(super) const ULIMIT: Table = &[("hard", Honoured), ("soft", Honoured)];

/// Keys of `x-sameport`.
pub(super) const SAMEPORT: Table = &[
    ("balance", Honoured),
    ("canary", Honoured),
    ("drain", Honoured),
    ("error_budget", Honoured),
    ("hold", Honoured),
    ("pod", Honoured),
    ("ports", Honoured),
    ("pre_deploy", Honoured),
    ("probe", Honoured),
    ("progress_deadline", Honoured),
    ("replace_unhealthy", Honoured),
    ("sharing", Honoured),
];

/// Keys of `x-sameport.canary`.
pub(super) const CANARY: Table = &[("image", Honoured), ("weight", Honoured)];

/// Keys of an entry of `post_start` or `pre_stop`.
pub(super) const HOOK: Table = &[
    ("command", Honoured),
    ("environment", Honoured),
    ("privileged", Honoured),
    ("user", Honoured),
    ("working_dir", Honoured),
];

/// Keys of `x-sameport.pre_deploy`.
pub(super) const PRE_DEPLOY: Table =
    &[("command", Honoured), ("environment", Honoured), ("image", Honoured), ("timeout", Honoured)];

/// Keys of `x-sameport.probe`.
pub(super) const PROBE: Table = &[
    ("exec", Honoured),
    ("failures", Honoured),
    ("http", Honoured),
    ("interval", Honoured),
    ("liveness", Honoured),
    ("port", Honoured),
    ("readiness", Honoured),
    ("start_period", Honoured),
    ("startup", Honoured),
    ("successes", Honoured),
    ("tcp", Honoured),
    ("timeout", Honoured),
];

/// Keys of each of `startup`, `readiness` and `liveness` below it.
pub(super) const PROBE_OF: Table = &[
    ("exec", Honoured),
    ("failures", Honoured),
    ("http", Honoured),
    ("interval", Honoured),
    ("port", Honoured),
    ("start_period", Honoured),
    ("successes", Honoured),
    ("tcp", Honoured),
    ("timeout", Honoured),
];

/// Reports each key of a mapping that is unknown, ignored or refused. `what` names the mapping in messages.
pub(super) fn check(node: &Node, what: &str, table: Table, report: &Report) {
    for (name, entry) in node.as_map().into_iter().flatten() {
        if name.starts_with("x-") {
            continue;
        }
        match table.iter().find(|(known, _)| known == name) {
            Some((_, Honoured)) => {}
            Some((_, Ignored(_) | Refused(_))) if entry.node.is_null() => {}
            Some((_, Ignored(why))) => {
                report.push(Problem::warning(entry.key, format!("`{name}` has no effect")).help(*why));
            }
            Some((_, Refused(instead))) => {
                let message = format!("`{name}` is not supported, and leaving it out would change what runs");
                report.push(Problem::error(entry.key, message).help(*instead));
            }
            None => {
                let help = match nearest(name, table.iter().map(|(known, _)| *known)) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => "keys of your own start with `x-`".to_owned(),
                };
                let message = format!("{what} has no key `{name}`: it has no effect");
                report.push(Problem::warning(entry.key, message).help(help));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_and_have_no_duplicates() {
        for table in [
            TOP,
            SERVICE,
            DEPLOY,
            LIMITS,
            RESERVATIONS,
            RESTART_POLICY,
            RESOURCES,
            HEALTHCHECK,
            LOGGING,
            DEPENDENCY,
            PORT,
            MOUNT,
            MOUNT_BIND,
            MOUNT_VOLUME,
            MOUNT_TMPFS,
            ATTACHMENT,
            NETWORK,
            IPAM,
            IPAM_POOL,
            VOLUME,
            ENV_FILE,
            DEVICE,
            ULIMIT,
            SAMEPORT,
            CANARY,
            UPDATE,
            PROBE,
            PROBE_OF,
            HOOK,
            PRE_DEPLOY,
        ] {
            assert!(table.is_sorted_by(|a, b| a.0 < b.0), "{table:?}");
        }
    }

    #[test]
    fn all_keys_of_a_service_are_known() {
        assert_eq!(SERVICE.len(), 93);
    }
}
