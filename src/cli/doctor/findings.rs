//! Derives checks from facts about a host. Pure: reads nothing from the system.

use std::path::PathBuf;

use sameport::{
    api::schema::{Check, CheckLevel},
    engine::{
        EngineError, EngineInfo,
        ownership::{Foreign, ForeignKind},
    },
    kernel::feature_probe::{Feature, FeatureProbe},
};

use crate::cli::boot;

/// Facts about a host.
#[derive(Debug)]
pub struct Facts {
    /// The address at which the engine was looked for.
    pub address: String,
    /// The engine's description, or why it does not answer.
    pub engine: Result<EngineInfo, EngineError>,
    /// Objects that carry labels of sameport but that sameport did not create.
    pub foreign: Result<Vec<Foreign>, EngineError>,
    /// How projects start at boot.
    pub boot: boot::Facts,
    /// Whether the folders for sockets, locks and state can be used.
    pub folders: Result<(), String>,
    /// The release of the kernel, such as `6.1.0`.
    pub kernel: String,
    /// Whether two sockets can listen on one port (`SO_REUSEPORT`).
    pub share_port: Result<(), String>,
    /// Whether connections that wait for `accept` can move to another listener (`tcp_migrate_req`).
    pub can_migrate: bool,
    /// Results of the feature probes, which use a temporary network namespace.
    pub feature_probes: Vec<FeatureProbe>,
    /// Where bpffs is mounted; BPF programs are pinned below it.
    pub bpffs: Option<PathBuf>,
    /// Whether the effective user is root.
    pub is_root: bool,
    /// Whether the namespaces of other users' processes can be read.
    pub can_see_processes: bool,
    /// Whether this process can set up networks and load BPF programs.
    pub can_administer_networks: bool,
    /// The largest accept queue that a listener can have (`net.core.somaxconn`); `None` if it cannot be read.
    pub backlog: Option<u64>,
    /// The soft limit of open files; `None` means unlimited.
    pub files: Option<u64>,
}

/// With a shorter accept queue, a server refuses connections under load.
const ENOUGH_BACKLOG: u64 = 1024;
/// The streams of some hundred replicas need more.
const ENOUGH_FILES: u64 = 1024;

fn ok(topic: &str, found: impl Into<String>) -> Check {
    Check {
        topic: topic.to_owned(),
        level: CheckLevel::Ok,
        found: found.into(),
        consequence: None,
        help: None,
    }
}

fn limited(topic: &str, found: impl Into<String>, consequence: &str, help: &str) -> Check {
    let (consequence, help) = (Some(consequence.to_owned()), Some(help.to_owned()));
    Check { level: CheckLevel::Limited, consequence, help, ..ok(topic, found) }
}

fn missing(topic: &str, found: impl Into<String>, consequence: &str, help: &str) -> Check {
    Check { level: CheckLevel::Missing, ..limited(topic, found, consequence, help) }
}

/// Returns one check per topic.
pub fn judge(facts: &Facts) -> Vec<Check> {
    let mut findings = vec![engine(facts)];
    if let Ok(info) = &facts.engine {
        findings.extend([reach(info, facts), restore(info), runtimes(info)]);
        findings.push(ok("cgroup", format!("version {}", info.cgroup)));
    }
    findings.extend([port(facts), migration(facts)]);
    findings.extend(facts.feature_probes.iter().map(|feature_probe| steering(facts, feature_probe)));
    findings.push(privileges(facts));
    findings.extend([folders(facts), boot(&facts.boot), backlog(facts), files(facts)]);
    findings.extend(foreign(facts));
    findings
}

fn engine(facts: &Facts) -> Check {
    match &facts.engine {
        Ok(info) => ok("engine", format!("{}, API {}, {}", info.name, info.api_version, info.platform)),
        Err(error) => missing(
            "engine",
            error.to_string(),
            "without an engine no container runs",
            match error {
                EngineError::Denied { .. } => {
                    "run as root, or `sudo usermod -aG docker $USER` and log in again"
                }
                EngineError::Unreachable { .. } => {
                    "install it: `sudo apt-get install docker.io`; start it: `sudo systemctl start docker`; \
                     or say where it is: DOCKER_HOST, `docker context use`"
                }
                _ => error.help().unwrap_or("see `docker info`"),
            },
        ),
    }
}

/// Returns one check per object.
fn foreign(facts: &Facts) -> Vec<Check> {
    let consequence = "it is left alone: sameport neither stops nor removes it, and runs nothing in it";
    match &facts.foreign {
        Ok(all) => all
            .iter()
            .map(|foreign| {
                let remove = match foreign.kind {
                    ForeignKind::Container => "docker rm -f",
                    ForeignKind::Network => "docker network rm",
                    ForeignKind::Volume => "docker volume rm",
                };
                let help = format!("if it is not needed: `{remove} {}`", foreign.name);
                let found = format!("{foreign} has labels of sameport: {}", foreign.message);
                limited("foreign", found, consequence, &help)
            })
            .collect(),
        Err(error) => {
            let consequence = "cannot check for foreign containers with labels of sameport";
            vec![limited("foreign", error.to_string(), consequence, "see `docker ps`")]
        }
    }
}

fn reach(info: &EngineInfo, facts: &Facts) -> Check {
    if info.local && facts.can_see_processes {
        return ok("reach", format!("on this host ({})", facts.address));
    }
    let follows = "a pod that lost its network is detected by start times instead of by its namespace";
    if info.local {
        return limited(
            "reach",
            "the engine is on this host, and its processes may not be looked at",
            follows,
            "run as root, or give the program CAP_SYS_PTRACE",
        );
    }
    limited(
        "reach",
        format!("the engine is on another host ({})", facts.address),
        follows,
        "run sameport on that host",
    )
}

fn restore(info: &EngineInfo) -> Check {
    if info.live_restore {
        return ok("restarts", "containers go on while the engine restarts (live-restore)");
    }
    limited(
        "restarts",
        "the engine takes all containers along when it restarts (no live-restore)",
        "an update of the engine is a gap; sameport starts everything again after it",
        "put `\"live-restore\": true` into /etc/docker/daemon.json, then `sudo systemctl reload docker`",
    )
}

fn runtimes(info: &EngineInfo) -> Check {
    let own_kernel: Vec<_> = info
        .runtimes
        .iter()
        .filter(|name| ["kata", "runsc", "gvisor"].iter().any(|word| name.contains(word)))
        .cloned()
        .collect();
    if own_kernel.is_empty() {
        return ok("runtimes", info.runtimes.join(", "));
    }
    limited(
        "runtimes",
        format!("{} bring a network stack of their own", own_kernel.join(", ")),
        "replicas that run in them cannot share a port",
        "let services that share a port run in runc",
    )
}

fn port(facts: &Facts) -> Check {
    match &facts.share_port {
        Ok(()) => ok("port", "two listeners share one (SO_REUSEPORT, tried)"),
        Err(error) => missing(
            "port",
            format!("two listeners cannot share one: {error}"),
            "replicas cannot share their port",
            "it takes Linux 3.9 or later",
        ),
    }
}

fn migration(facts: &Facts) -> Check {
    if facts.can_migrate {
        return ok("migration", "waiting connections move on when a replica ends (tcp_migrate_req)");
    }
    limited(
        "migration",
        format!("Linux {} has no net.ipv4.tcp_migrate_req", facts.kernel),
        "connections that wait on a replica that is killed are reset",
        "it takes Linux 5.14 or later",
    )
}

/// Kernel features that sameport uses where they exist.
fn steering(facts: &Facts, feature_probe: &FeatureProbe) -> Check {
    let (topic, works, follows) = match feature_probe.feature {
        Feature::Programs => (
            "BPF",
            "programs are loaded, attached and pinned",
            "images have to share their ports by themselves (`sharing: application`), and health, load, weights and \
             drains do not count",
        ),
        Feature::Sharing => (
            "sharing",
            "any image's port is shared, of IPv4 and IPv6, TCP and UDP",
            "images have to share their ports by themselves (`sharing: application`)",
        ),
        Feature::Gate => (
            "readiness",
            "only replicas that are ready get connections; others get none, by weight 0 too",
            "replicas get connections before they are ready, and while they drain",
        ),
        Feature::Counting => (
            "counting",
            "open connections are counted for each replica",
            "`balance: least-connections` does not know the load, and drains wait for their whole time",
        ),
        Feature::Addresses => (
            "addresses",
            "each replica has an address of its own",
            "`sameport curl` and probes reach any replica",
        ),
        Feature::Localhost => (
            "localhost",
            "a replica that connects to localhost reaches itself",
            "health checks by localhost, and programs of one container that talk to each other, reach any replica",
        ),
        Feature::Hold => (
            "hold",
            "connections wait while no replica is ready",
            "connections are refused while no replica is ready",
        ),
        Feature::Flows => (
            "datagrams",
            "a flow of datagrams stays with its replica",
            "a flow of datagrams may move when replicas start or stop",
        ),
        Feature::Choice => (
            "choice",
            "no program in a replica can choose who gets connections, not even a 32-bit one",
            "a 32-bit program in a replica can take connections that wait for a replica that ends",
        ),
    };
    match &feature_probe.result {
        Ok(()) => {
            let pins = match (&facts.bpffs, feature_probe.feature) {
                (Some(path), Feature::Programs) => format!(" below {}", path.display()),
                _ => String::new(),
            };
            let tried = if feature_probe.feature == Feature::Choice { "" } else { " (tried)" };
            ok(topic, format!("{works}{pins}{tried}"))
        }
        Err(error) => limited(
            topic,
            error.clone(),
            follows,
            "run as root (or with CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_SYS_PTRACE and CAP_CHOWN) on Linux 6.1 or \
             later with CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF and cgroup2 mounted",
        ),
    }
}

fn privileges(facts: &Facts) -> Check {
    if facts.is_root && facts.can_administer_networks {
        return ok("privileges", "root");
    }
    let who = if facts.is_root { "root, without all capabilities" } else { "an ordinary user" };
    match facts.engine {
        Ok(_) => ok("privileges", format!("{who} who may use the engine; no more is needed")),
        Err(_) => ok("privileges", who),
    }
}

fn folders(facts: &Facts) -> Check {
    match &facts.folders {
        Ok(()) => ok("folders", "sockets, locks and state have a place"),
        Err(error) => missing(
            "folders",
            error,
            "there is no place for a project's socket, lock and state",
            "set HOME, or XDG_RUNTIME_DIR and XDG_STATE_HOME, to folders that are yours",
        ),
    }
}

fn boot(facts: &boot::Facts) -> Check {
    let consequence = "after a reboot nothing of a project runs until `sameport up`";
    if !facts.is_there {
        return limited(
            "boot",
            "no systemd runs that could start projects at boot",
            consequence,
            "have what starts services on this host run `sameport -f FILE supervise --resume`; for a user: \
             `sudo loginctl enable-linger USER`",
        );
    }
    if let Some(name) = facts.not_enabled.first() {
        let found = format!("not started at boot: {}", facts.not_enabled.join(", "));
        return limited(
            "boot",
            found,
            consequence,
            &format!("`sameport -p {name} enable`, where its file is"),
        );
    }
    match &facts.ends_with_login {
        Some(user) => limited(
            "boot",
            format!("the systemd of {user} runs only while {user} is logged in"),
            "projects that are enabled start at a login, and lose their supervisor at logout",
            &format!("`sudo loginctl enable-linger {user}`"),
        ),
        None if facts.enabled.is_empty() => ok("boot", "systemd; `sameport enable` has it start a project"),
        None => ok("boot", format!("systemd starts {}", facts.enabled.join(", "))),
    }
}

fn backlog(facts: &Facts) -> Check {
    match facts.backlog {
        Some(most) if most < ENOUGH_BACKLOG => limited(
            "backlog",
            format!("at most {most} connections wait on a listener (net.core.somaxconn)"),
            "a burst is refused earlier than it need be",
            "`sudo sysctl -w net.core.somaxconn=4096`; for one service: `sysctls:` in the Compose file",
        ),
        Some(most) => ok("backlog", format!("{most} connections may wait on a listener")),
        None => ok("backlog", "net.core.somaxconn cannot be read"),
    }
}

fn files(facts: &Facts) -> Check {
    match facts.files {
        Some(most) if most < ENOUGH_FILES => limited(
            "files",
            format!("at most {most} open files"),
            "a supervisor of many replicas runs out of them",
            "`ulimit -n 4096`, or LimitNOFILE= in its systemd unit",
        ),
        Some(most) => ok("files", format!("{most} open files")),
        None => ok("files", "the limit of open files is high enough"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sameport::engine::ownership::ForeignReason;

    fn good() -> Facts {
        Facts {
            address: "unix:///var/run/docker.sock".to_owned(),
            engine: Ok(EngineInfo {
                name: "Docker Engine 28.0".to_owned(),
                api_version: "1.48".to_owned(),
                platform: "linux/amd64".to_owned(),
                local: true,
                live_restore: true,
                runtimes: vec!["runc".to_owned()],
                cgroup: "2 (systemd)".to_owned(),
                kernel: "6.18".to_owned(),
            }),
            folders: Ok(()),
            kernel: "6.18".to_owned(),
            share_port: Ok(()),
            can_migrate: true,
            feature_probes: vec![FeatureProbe { feature: Feature::Programs, result: Ok(()) }],
            bpffs: Some("/sys/fs/bpf".into()),
            foreign: Ok(Vec::new()),
            boot: started(&[]),
            is_root: true,
            can_see_processes: true,
            can_administer_networks: true,
            backlog: Some(4096),
            files: Some(1 << 20),
        }
    }

    /// Facts of a host with systemd where these running projects are not enabled.
    fn started(not_enabled: &[&str]) -> boot::Facts {
        boot::Facts {
            is_there: true,
            ends_with_login: None,
            enabled: vec!["blog".to_owned()],
            not_enabled: not_enabled.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn engine(change: impl FnOnce(&mut EngineInfo)) -> Facts {
        let mut facts = good();
        change(facts.engine.as_mut().unwrap());
        facts
    }

    fn foreign() -> Foreign {
        Foreign::resource(ForeignKind::Volume, "data".to_owned(), ForeignReason::CopiedLabels)
    }

    /// Facts of a good host on which one feature probe failed.
    fn tried(feature: Feature) -> Facts {
        Facts { feature_probes: vec![FeatureProbe { feature, result: Err("EPERM".to_owned()) }], ..good() }
    }

    /// The topics of all checks that are not `ok`.
    fn complaints(facts: &Facts) -> Vec<(String, CheckLevel)> {
        let all = judge(facts).into_iter();
        all.filter(|finding| finding.level != CheckLevel::Ok)
            .map(|finding| (finding.topic, finding.level))
            .collect()
    }

    #[test]
    fn a_good_host_has_no_findings() {
        assert_eq!(complaints(&good()), []);
    }

    #[test]
    fn every_limit_has_a_consequence_and_help() {
        let gone = || EngineError::Unreachable { address: "x".to_owned(), reason: "y".to_owned() };
        for (facts, wanted) in [
            (Facts { engine: Err(gone()), ..good() }, ("engine", CheckLevel::Missing)),
            (engine(|info| info.live_restore = false), ("restarts", CheckLevel::Limited)),
            (engine(|info| info.local = false), ("reach", CheckLevel::Limited)),
            (engine(|info| info.runtimes.push("kata".to_owned())), ("runtimes", CheckLevel::Limited)),
            (Facts { can_see_processes: false, ..good() }, ("reach", CheckLevel::Limited)),
            (Facts { folders: Err("no".to_owned()), ..good() }, ("folders", CheckLevel::Missing)),
            (Facts { share_port: Err("no".to_owned()), ..good() }, ("port", CheckLevel::Missing)),
            (Facts { can_migrate: false, ..good() }, ("migration", CheckLevel::Limited)),
            (Facts { foreign: Ok(vec![foreign()]), ..good() }, ("foreign", CheckLevel::Limited)),
            (Facts { foreign: Err(gone()), ..good() }, ("foreign", CheckLevel::Limited)),
            (Facts { boot: started(&["shop"]), ..good() }, ("boot", CheckLevel::Limited)),
            (
                Facts { boot: boot::Facts { is_there: false, ..started(&[]) }, ..good() },
                ("boot", CheckLevel::Limited),
            ),
            (
                Facts {
                    boot: boot::Facts { ends_with_login: Some("ann".to_owned()), ..started(&[]) },
                    ..good()
                },
                ("boot", CheckLevel::Limited),
            ),
            (Facts { backlog: Some(128), ..good() }, ("backlog", CheckLevel::Limited)),
            (Facts { files: Some(256), ..good() }, ("files", CheckLevel::Limited)),
            (tried(Feature::Programs), ("BPF", CheckLevel::Limited)),
            (tried(Feature::Hold), ("hold", CheckLevel::Limited)),
        ] {
            assert_eq!(complaints(&facts), [(wanted.0.to_owned(), wanted.1)]);
            let told = judge(&facts).into_iter().find(|finding| finding.topic == wanted.0).unwrap();
            assert!(told.consequence.is_some() && told.help.is_some(), "{told:?}");
        }
    }
}
