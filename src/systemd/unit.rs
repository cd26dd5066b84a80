//! The systemd unit of a project.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::quote::{self, Unencodable};
use crate::spec::ProjectName;

/// The first line, which identifies units of sameport.
const MARKER: &str =
    "# Written by `sameport enable`, and removed by `sameport disable`. Changes belong into a drop-in.";
/// The start of the line that contains the [`Record`].
const RECORD: &str = "# sameport: ";

/// The systemd instance that starts a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// The system's instance, which runs as root.
    System,
    /// The instance of a user.
    User,
}

/// What sameport reads back from a unit that it wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Arguments that select the project; paths are absolute.
    pub args: Vec<String>,
    /// Variables that locate the engine and sameport's folders. They contain no secrets.
    pub environment: BTreeMap<String, String>,
    /// The path of the file with the variables of the Compose file, if it needs any.
    pub variables: Option<PathBuf>,
    /// Whether the supervisor applies the file whenever it changes.
    pub watch: bool,
}

/// The unit that starts a project's supervisor at boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The project that it starts.
    pub project: ProjectName,
    /// The systemd instance that starts it.
    pub manager: Manager,
    /// The absolute path of sameport.
    pub program: PathBuf,
    /// The command line, environment and options.
    pub record: Record,
    /// Directories that it writes to, besides those that systemd creates.
    pub writable: Vec<PathBuf>,
}

/// The name of a project's unit: `sameport-PROJECT.service`.
#[must_use]
pub fn unit_name(project: &ProjectName) -> String {
    format!("sameport-{project}.service")
}

/// Whether [`Unit::render`] wrote this unit.
#[must_use]
pub fn is_ours(text: &str) -> bool {
    text.lines().next() == Some(MARKER)
}

/// The record in a unit; `None` if sameport did not write it.
#[must_use]
pub fn record(text: &str) -> Option<Record> {
    if !is_ours(text) {
        return None;
    }
    serde_json::from_str(text.lines().nth(1)?.strip_prefix(RECORD)?).ok()
}

impl Unit {
    /// The text of the unit.
    ///
    /// # Errors
    /// If systemd would not read a path or a value back unchanged.
    pub fn render(&self) -> Result<String, Unencodable> {
        let Self { project, manager, record, .. } = self;
        let mut lines = vec![
            MARKER.to_owned(),
            // JSON escapes line breaks, so that no value adds a line to the unit.
            format!(
                "{RECORD}{}",
                serde_json::to_string(record)
                    .map_err(|error| Unencodable::new("the unit", error.to_string()))?
            ),
            String::new(),
            "[Unit]".to_owned(),
            format!("Description=sameport, project {project}"),
        ];
        lines.extend(
            match manager {
                Manager::System => &[
                    "Wants=docker.service network-online.target",
                    "After=docker.service network-online.target",
                ][..],
                // A user who runs the engine in rootless mode has this unit.
                Manager::User => &["Wants=docker.service", "After=docker.service"],
            }
            .iter()
            .map(|line| (*line).to_owned()),
        );
        lines.extend([
            "# However often it fails, it is tried again.".to_owned(),
            "StartLimitIntervalSec=0".to_owned(),
            String::new(),
            "[Service]".to_owned(),
            "Type=notify".to_owned(),
        ]);
        for (name, value) in &record.environment {
            let assignment = quote::word(&format!("{name}={value}"), &format!("variable `{name}`"))?;
            lines.push(format!("Environment={assignment}"));
        }
        if let Some(path) = &record.variables {
            // Without the file, the unit must not start: the Compose file would have another meaning.
            lines.push(format!("EnvironmentFile={}", quote::pattern(path)?));
        }
        lines.extend([
            format!("ExecStart={}", self.command()?),
            "ExecReload=/bin/kill -HUP $MAINPID".to_owned(),
            "# After `sameport down` there is nothing to supervise.".to_owned(),
            "Restart=on-failure".to_owned(),
            "RestartSec=1".to_owned(),
            "# The engine may take its time.".to_owned(),
            "TimeoutStartSec=infinity".to_owned(),
            "# Only the supervisor is in this unit's control group; the replicas are in Docker's.".to_owned(),
            "KillMode=process".to_owned(),
        ]);
        if *manager == Manager::System {
            lines.extend(self.hardening()?);
        }
        lines.extend([
            String::new(),
            "[Install]".to_owned(),
            format!("WantedBy={}", manager.target()),
            String::new(),
        ]);
        Ok(lines.join("\n"))
    }

    fn command(&self) -> Result<String, Unencodable> {
        let mut words = vec![quote::program(&self.program)?];
        for argument in &self.record.args {
            words.push(quote::argument(argument, &format!("`{}`", argument.escape_debug()))?);
        }
        words.push("supervise --resume".to_owned());
        if self.record.watch {
            words.push("--watch".to_owned());
        }
        Ok(words.join(" "))
    }

    /// The same as in `config/sameport@.service`. In a user's instance, these settings would remove the file
    /// capabilities of the program.
    fn hardening(&self) -> Result<Vec<String>, Unencodable> {
        let mut lines: Vec<String> = [
            "RuntimeDirectory=sameport",
            "RuntimeDirectoryMode=0700",
            "RuntimeDirectoryPreserve=yes",
            "StateDirectory=sameport",
            "StateDirectoryMode=0700",
            "",
            "NoNewPrivileges=yes",
            "# What sharing ports in the kernel takes, and nothing else.",
            "CapabilityBoundingSet=CAP_BPF CAP_NET_ADMIN CAP_SYS_ADMIN CAP_PERFMON CAP_SYS_PTRACE CAP_CHOWN CAP_NET_BIND_SERVICE CAP_DAC_READ_SEARCH",
            "# Programs and maps are pinned in bpffs, and outlive this unit. ProtectKernelTunables= would make it read-only, also",
            "# where ReadWritePaths= names it.",
            "ReadOnlyPaths=/sys /proc/sys -/proc/sysrq-trigger -/proc/irq -/proc/fs",
            "# So are the settings of networks, of which each pod has its own: its source ports are among them.",
            "ReadWritePaths=/sys/fs/bpf /proc/sys/net",
        ]
        .map(str::to_owned)
        .into();
        for path in &self.writable {
            let text = quote::utf8(path, &format!("the path {}", path.display()))?;
            lines.push(format!(
                "ReadWritePaths={}",
                quote::word(text, &format!("the path {}", path.display()))?
            ));
        }
        // It would hide the host's `/tmp`.
        if !self.uses_tmp() {
            lines.push("PrivateTmp=yes".to_owned());
        }
        lines.extend(
            [
                "# Left off: ProtectKernelTunables= for the reason above; ProcSubset=pid, since settings and sockets are read in /proc;",
                "# ProtectHome=yes, since Compose files are there; PrivateNetwork= and IPAddressDeny=, since replicas are probed and the engine",
                "# may be on another host; PrivateUsers= and User=, since BPF takes capabilities of the host.",
                "PrivateDevices=yes",
                "PrivateMounts=yes",
                "ProtectSystem=strict",
                "ProtectHome=read-only",
                "# Of other processes it sees those that CAP_SYS_PTRACE lets it look into.",
                "ProtectProc=ptraceable",
                "ProtectHostname=yes",
                "ProtectClock=yes",
                "ProtectKernelLogs=yes",
                "ProtectKernelModules=yes",
                "ProtectControlGroups=yes",
                "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
                "# It enters the networks of pods.",
                "RestrictNamespaces=net",
                "RestrictRealtime=yes",
                "RestrictSUIDSGID=yes",
                "LockPersonality=yes",
                "MemoryDenyWriteExecute=yes",
                "SystemCallArchitectures=native",
                "# What servers do, BPF programs and their links, and to look at the sockets of replicas.",
                "SystemCallFilter=@system-service bpf perf_event_open pidfd_getfd setns",
                "SystemCallFilter=~@resources",
                "SystemCallErrorNumber=EPERM",
                "UMask=0077",
            ]
            .map(str::to_owned),
        );
        Ok(lines)
    }

    fn uses_tmp(&self) -> bool {
        let is_tmp = |text: &str| ["/tmp/", "/var/tmp/"].iter().any(|folder| text.contains(folder));
        let record = &self.record;
        let texts = record.args.iter().chain(record.environment.values()).map(String::as_str);
        let paths = self.writable.iter().chain(std::iter::once(&self.program));
        texts.chain(paths.filter_map(|path| path.to_str())).any(is_tmp)
    }
}

impl Manager {
    /// The target that starts the unit.
    #[must_use]
    pub fn target(self) -> &'static str {
        match self {
            Self::System => "multi-user.target",
            Self::User => "default.target",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit() -> Unit {
        let args = [
            "--project-name",
            "shop",
            "--file",
            "/srv/shop/compose.yaml",
            "--project-directory",
            "/srv/shop",
        ];
        Unit {
            project: "shop".parse().unwrap(),
            manager: Manager::System,
            program: "/usr/local/bin/sameport".into(),
            record: Record {
                args: args.map(str::to_owned).into(),
                environment: BTreeMap::from([("DOCKER_CONTEXT".to_owned(), "default".to_owned())]),
                variables: Some("/var/lib/sameport/shop.env".into()),
                watch: false,
            },
            writable: Vec::new(),
        }
    }

    #[test]
    fn a_unit_of_the_host() {
        insta::assert_snapshot!(unit().render().unwrap());
    }

    #[test]
    fn a_unit_of_a_user_has_no_sandbox() {
        let unit = Unit {
            manager: Manager::User,
            record: Record { variables: None, watch: true, ..unit().record },
            ..unit()
        };
        insta::assert_snapshot!(unit.render().unwrap());
    }

    #[test]
    fn a_written_record_is_read_back() {
        let text = unit().render().unwrap();
        assert_eq!(record(&text), Some(unit().record));
        assert!(is_ours(&text) && !is_ours("[Unit]\n") && !is_ours(""));
        assert_eq!(record(&format!("[Unit]\n{text}")), None);
    }

    #[test]
    fn no_path_becomes_a_line_of_the_unit() {
        let path = "/srv/a\nExecStartPre=/bin/evil\n%h \"$USER\"/compose.yaml";
        let mut hostile = unit();
        hostile.record.args = vec!["--file".to_owned(), path.to_owned()];
        hostile.record.environment.insert("DOCKER_CONFIG".to_owned(), path.to_owned());
        let text = hostile.render().unwrap();
        assert_eq!(text.lines().count(), unit().render().unwrap().lines().count() + 1);
        assert!(!text.lines().any(|line| line.starts_with("ExecStartPre")), "{text}");
        assert!(
            text.contains(
                r#""--file" "/srv/a\nExecStartPre=/bin/evil\n%%h \"$$USER\"/compose.yaml" supervise"#
            ),
            "{text}"
        );
        assert_eq!(record(&text), Some(hostile.record));
        let mut escape = unit();
        escape.record.args.push("\u{1b}[2J".to_owned());
        assert!(escape.render().is_err());
    }

    #[test]
    fn a_project_below_tmp_is_seen() {
        let mut here = unit();
        assert!(here.render().unwrap().contains("PrivateTmp=yes"));
        here.record.args.push("/tmp/shop/compose.yaml".to_owned());
        assert!(!here.render().unwrap().contains("PrivateTmp"));
    }

    #[test]
    fn systemd_reads_it_where_it_is_installed() {
        let folder = tempfile::tempdir().unwrap();
        let mut unit = unit();
        unit.program = "/bin/true".into();
        unit.record.args.push("/srv/100% \"my\" $shop\n;".to_owned());
        let path = folder.path().join(unit_name(&unit.project));
        std::fs::write(&path, unit.render().unwrap()).unwrap();
        let verify =
            std::process::Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output();
        // On hosts without it, `tests/vm/reboot` covers this with a running systemd.
        let Ok(output) = verify else { return };
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!told.contains("shop.service:"), "{told}");
    }
}
