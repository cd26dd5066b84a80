//! From facts about a host to what follows from them. Pure.

use std::path::PathBuf;

use sameport::{
    engine::{
        EngineError, EngineInfo,
        ownership::{Foreign, ForeignKind},
    },
    kernel::trial::{Feature, Trial},
};
use serde::Serialize;

/// What was found out about a host.
#[derive(Debug)]
pub struct Facts {
    /// Where the engine was looked for.
    pub address: String,
    /// The engine, or why it does not answer.
    pub engine: Result<EngineInfo, EngineError>,
    /// What carries our labels and is not ours.
    pub foreign: Result<Vec<Foreign>, EngineError>,
    /// Whether we have folders for our own things.
    pub folders: Result<(), String>,
    /// The kernel's release.
    pub kernel: String,
    /// Whether two sockets can listen on one port.
    pub share_port: Result<(), String>,
    /// Whether waiting connections can move on to another listener.
    pub can_migrate: bool,
    /// What the kernel did for a pod that was made to try it.
    pub trials: Vec<Trial>,
    /// Where pins are kept.
    pub bpffs: Option<PathBuf>,
    /// Whether we are root.
    pub is_root: bool,
    /// Whether we may see the namespaces of others' processes.
    pub can_see_processes: bool,
    /// Whether we may set up networks and load programs into the kernel.
    pub can_administer_networks: bool,
    /// Most connections that may wait on a listener.
    pub backlog: Option<u64>,
    /// Most files that this process may have open; none is unlimited.
    pub files: Option<u64>,
}

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// The main job works, and something does not.
    Limited,
    /// The main job does not work.
    Missing,
}

/// What follows from a fact.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub topic: &'static str,
    /// How good it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What follows from it.
    pub follows: Option<String>,
    /// How to get it.
    pub remedy: Option<String>,
}

/// Fewer make a server refuse connections under load.
const ENOUGH_BACKLOG: u64 = 1024;
/// Fewer are used up by the streams of some hundred replicas.
const ENOUGH_FILES: u64 = 1024;

impl Finding {
    fn ok(topic: &'static str, found: impl Into<String>) -> Self {
        Self { topic, level: Level::Ok, found: found.into(), follows: None, remedy: None }
    }

    fn limited(topic: &'static str, found: impl Into<String>, follows: &str, remedy: &str) -> Self {
        let (follows, remedy) = (Some(follows.to_owned()), Some(remedy.to_owned()));
        Self { topic, level: Level::Limited, found: found.into(), follows, remedy }
    }

    fn missing(topic: &'static str, found: impl Into<String>, follows: &str, remedy: &str) -> Self {
        Self { level: Level::Missing, ..Self::limited(topic, found, follows, remedy) }
    }
}

/// What follows from facts.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![engine(facts)];
    if let Ok(info) = &facts.engine {
        findings.extend([reach(info, facts), restore(info), runtimes(info)]);
        findings.push(Finding::ok("cgroup", format!("version {}", info.cgroup)));
    }
    findings.extend([port(facts), migration(facts)]);
    findings.extend(facts.trials.iter().map(|trial| steering(facts, trial)));
    findings.push(privileges(facts));
    findings.extend([folders(facts), backlog(facts), files(facts)]);
    findings.extend(foreign(facts));
    findings
}

fn engine(facts: &Facts) -> Finding {
    match &facts.engine {
        Ok(info) => {
            Finding::ok("engine", format!("{}, API {}, {}", info.name, info.api_version, info.platform))
        }
        Err(error) => Finding::missing(
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

/// A finding for each.
fn foreign(facts: &Facts) -> Vec<Finding> {
    let follows = "it is left alone: sameport neither stops nor removes it, and runs nothing in it";
    match &facts.foreign {
        Ok(all) => all
            .iter()
            .map(|foreign| {
                let remove = match foreign.kind {
                    ForeignKind::Container => "docker rm -f",
                    ForeignKind::Network => "docker network rm",
                    ForeignKind::Volume => "docker volume rm",
                };
                let remedy = format!("if it is not needed: `{remove} {}`", foreign.name);
                let found = format!("{foreign} has labels of sameport: {}", foreign.message);
                Finding::limited("foreign", found, follows, &remedy)
            })
            .collect(),
        Err(error) => {
            let follows = "whether there are containers of others with labels of sameport is not known";
            vec![Finding::limited("foreign", error.to_string(), follows, "see `docker ps`")]
        }
    }
}

fn reach(info: &EngineInfo, facts: &Facts) -> Finding {
    if info.local && facts.can_see_processes {
        return Finding::ok("reach", format!("on this host ({})", facts.address));
    }
    let follows = "a pod that lost its network is told by times instead of by its namespace";
    if info.local {
        return Finding::limited(
            "reach",
            "the engine is on this host, and its processes may not be looked at",
            follows,
            "run as root, or give the program CAP_SYS_PTRACE",
        );
    }
    Finding::limited(
        "reach",
        format!("the engine is on another host ({})", facts.address),
        follows,
        "run sameport on that host",
    )
}

fn restore(info: &EngineInfo) -> Finding {
    if info.live_restore {
        return Finding::ok("restarts", "containers go on while the engine restarts (live-restore)");
    }
    Finding::limited(
        "restarts",
        "the engine takes all containers along when it restarts (no live-restore)",
        "an update of the engine is a gap; sameport starts everything again after it",
        "put `\"live-restore\": true` into /etc/docker/daemon.json, then `sudo systemctl reload docker`",
    )
}

fn runtimes(info: &EngineInfo) -> Finding {
    let own_kernel: Vec<_> = info
        .runtimes
        .iter()
        .filter(|name| ["kata", "runsc", "gvisor"].iter().any(|word| name.contains(word)))
        .cloned()
        .collect();
    if own_kernel.is_empty() {
        return Finding::ok("runtimes", info.runtimes.join(", "));
    }
    Finding::limited(
        "runtimes",
        format!("{} bring a network stack of their own", own_kernel.join(", ")),
        "replicas that run in them cannot share a port",
        "let services that share a port run in runc",
    )
}

fn port(facts: &Facts) -> Finding {
    match &facts.share_port {
        Ok(()) => Finding::ok("port", "two listeners share one (SO_REUSEPORT, tried)"),
        Err(error) => Finding::missing(
            "port",
            format!("two listeners cannot share one: {error}"),
            "replicas cannot share their port",
            "it takes Linux 3.9 or later",
        ),
    }
}

fn migration(facts: &Facts) -> Finding {
    if facts.can_migrate {
        return Finding::ok("migration", "waiting connections move on when a replica ends (tcp_migrate_req)");
    }
    Finding::limited(
        "migration",
        format!("Linux {} has no net.ipv4.tcp_migrate_req", facts.kernel),
        "connections that wait on a replica that is killed are reset",
        "it takes Linux 5.14 or later",
    )
}

/// What the kernel does beyond what images do themselves.
fn steering(facts: &Facts, trial: &Trial) -> Finding {
    let (topic, works, follows) = match trial.feature {
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
            "each replica has an address of its own, and its localhost is itself",
            "`sameport curl` and health checks reach any replica",
        ),
        Feature::Hold => (
            "hold",
            "connections wait while no replica is ready",
            "connections are refused while no replica is ready",
        ),
        Feature::Flows => (
            "datagrams",
            "a flow of datagrams stays with its replica",
            "a flow of datagrams moves when replicas come and go",
        ),
    };
    match &trial.result {
        Ok(()) => {
            let pins = match (&facts.bpffs, trial.feature) {
                (Some(path), Feature::Programs) => format!(" below {}", path.display()),
                _ => String::new(),
            };
            Finding::ok(topic, format!("{works}{pins} (tried)"))
        }
        Err(error) => Finding::limited(
            topic,
            error.clone(),
            follows,
            "run as root (or with CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_SYS_PTRACE and CAP_CHOWN) on Linux 6.1 or \
             later with CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF and cgroup2 mounted",
        ),
    }
}

fn privileges(facts: &Facts) -> Finding {
    if facts.is_root && facts.can_administer_networks {
        return Finding::ok("privileges", "root");
    }
    let who = if facts.is_root { "root, without all capabilities" } else { "an ordinary user" };
    match facts.engine {
        Ok(_) => Finding::ok("privileges", format!("{who} who may use the engine; no more is needed")),
        Err(_) => Finding::ok("privileges", who),
    }
}

fn folders(facts: &Facts) -> Finding {
    match &facts.folders {
        Ok(()) => Finding::ok("folders", "sockets, locks and state have a place"),
        Err(error) => Finding::missing(
            "folders",
            error,
            "there is no place for a project's socket, lock and state",
            "set HOME, or XDG_RUNTIME_DIR and XDG_STATE_HOME, to folders that are yours",
        ),
    }
}

fn backlog(facts: &Facts) -> Finding {
    match facts.backlog {
        Some(most) if most < ENOUGH_BACKLOG => Finding::limited(
            "backlog",
            format!("at most {most} connections wait on a listener (net.core.somaxconn)"),
            "a burst is refused earlier than it need be",
            "`sudo sysctl -w net.core.somaxconn=4096`; for one service: `sysctls:` in the Compose file",
        ),
        Some(most) => Finding::ok("backlog", format!("{most} connections may wait on a listener")),
        None => Finding::ok("backlog", "net.core.somaxconn cannot be read"),
    }
}

fn files(facts: &Facts) -> Finding {
    match facts.files {
        Some(most) if most < ENOUGH_FILES => Finding::limited(
            "files",
            format!("at most {most} open files"),
            "a supervisor of many replicas runs out of them",
            "`ulimit -n 4096`, or LimitNOFILE= in its systemd unit",
        ),
        Some(most) => Finding::ok("files", format!("{most} open files")),
        None => Finding::ok("files", "as many open files as wanted"),
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
            trials: vec![Trial { feature: Feature::Programs, result: Ok(()) }],
            bpffs: Some("/sys/fs/bpf".into()),
            foreign: Ok(Vec::new()),
            is_root: true,
            can_see_processes: true,
            can_administer_networks: true,
            backlog: Some(4096),
            files: Some(1 << 20),
        }
    }

    fn engine(change: impl FnOnce(&mut EngineInfo)) -> Facts {
        let mut facts = good();
        change(facts.engine.as_mut().unwrap());
        facts
    }

    fn stranger() -> Foreign {
        Foreign::resource(ForeignKind::Volume, "data".to_owned(), ForeignReason::CopiedLabels)
    }

    /// A trial failed.
    fn tried(feature: Feature) -> Facts {
        Facts { trials: vec![Trial { feature, result: Err("EPERM".to_owned()) }], ..good() }
    }

    /// Everything that is not as it should be.
    fn complaints(facts: &Facts) -> Vec<(&'static str, Level)> {
        let all = judge(facts).into_iter();
        all.filter(|finding| finding.level != Level::Ok)
            .map(|finding| (finding.topic, finding.level))
            .collect()
    }

    #[test]
    fn a_good_host_has_nothing_to_complain_of() {
        assert_eq!(complaints(&good()), []);
    }

    #[test]
    fn each_lack_is_told_with_what_follows_and_how_to_get_it() {
        let gone = || EngineError::Unreachable { address: "x".to_owned(), reason: "y".to_owned() };
        for (facts, wanted) in [
            (Facts { engine: Err(gone()), ..good() }, ("engine", Level::Missing)),
            (engine(|info| info.live_restore = false), ("restarts", Level::Limited)),
            (engine(|info| info.local = false), ("reach", Level::Limited)),
            (engine(|info| info.runtimes.push("kata".to_owned())), ("runtimes", Level::Limited)),
            (Facts { can_see_processes: false, ..good() }, ("reach", Level::Limited)),
            (Facts { folders: Err("no".to_owned()), ..good() }, ("folders", Level::Missing)),
            (Facts { share_port: Err("no".to_owned()), ..good() }, ("port", Level::Missing)),
            (Facts { can_migrate: false, ..good() }, ("migration", Level::Limited)),
            (Facts { foreign: Ok(vec![stranger()]), ..good() }, ("foreign", Level::Limited)),
            (Facts { foreign: Err(gone()), ..good() }, ("foreign", Level::Limited)),
            (Facts { backlog: Some(128), ..good() }, ("backlog", Level::Limited)),
            (Facts { files: Some(256), ..good() }, ("files", Level::Limited)),
            (tried(Feature::Programs), ("BPF", Level::Limited)),
            (tried(Feature::Hold), ("hold", Level::Limited)),
        ] {
            assert_eq!(complaints(&facts), [wanted]);
            let told = judge(&facts).into_iter().find(|finding| finding.topic == wanted.0).unwrap();
            assert!(told.follows.is_some() && told.remedy.is_some(), "{told:?}");
        }
    }
}
