//! Detects supervisors of other releases, and replaces them without changing a container.

use std::{fs, path::Path, time::Duration};

use sameport::{
    api::{Client, ClientError, Standing, Version},
    engine::docker::Docker,
    kernel::Pins,
    spec::ProjectName,
    supervisor::lock::{Holder, Lock, LockError},
};
use tokio::time::Instant;

use super::{context::Context, error::CliError, other_engine, output};

/// Limit for a supervisor to end after it was asked to.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// Which supervisors a command replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Those whose protocol this command does not speak.
    Incompatible,
    /// Those of all older releases.
    Older,
}

/// The running supervisor is of another release, and this command does not replace it.
#[derive(Debug, thiserror::Error)]
pub enum OtherRelease {
    /// Its protocol is older.
    #[error(
        "project `{project}` has a supervisor of an older release ({version}); this command does not understand it"
    )]
    Older {
        /// The project that it supervises.
        project: ProjectName,
        /// The release and protocol of the supervisor.
        version: Version,
    },
    /// Its protocol is newer.
    #[error("project `{project}` has a supervisor of a newer release ({version}); this one speaks protocol {}", Version::own().protocol)]
    Newer {
        /// The project that it supervises.
        project: ProjectName,
        /// The release and protocol of the supervisor.
        version: Version,
    },
    /// Its protocol is older, and systemd would start it again.
    #[error("project `{project}` has a supervisor of an older release ({version}), which systemd runs as {}", unit.name)]
    Service {
        /// The project that it supervises.
        project: ProjectName,
        /// The release and protocol of the supervisor.
        version: Version,
        /// The systemd unit that runs it.
        unit: Unit,
    },
}

impl OtherRelease {
    /// How to resolve it.
    pub fn help(&self) -> String {
        match self {
            Self::Older { .. } => {
                "`sameport up -d` replaces that supervisor; no container is restarted".to_owned()
            }
            Self::Newer { .. } => "use the newer release of sameport".to_owned(),
            Self::Service { unit, .. } => {
                format!("`{}` starts one of this release; no container is restarted", unit.restart())
            }
        }
    }
}

/// A systemd unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    name: String,
    owner: Owner,
}

/// The systemd instance that runs a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// The system's instance.
    System,
    /// A user's instance.
    User,
}

impl Unit {
    /// The name of the unit.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The command that restarts the unit.
    fn restart(&self) -> String {
        match self.owner {
            Owner::System => format!("systemctl restart {}", self.name),
            Owner::User => format!("systemctl --user restart {}", self.name),
        }
    }

    /// The unit that runs a supervisor, by its control groups in the format of `/proc/PID/cgroup`. `None` for a
    /// supervisor that `up -d` started from within a unit: systemd does not restart it.
    fn of(groups: &str, command: &str) -> Option<Self> {
        if command.split(' ').any(|word| word == "--background") {
            return None;
        }
        let paths = groups.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            (controllers.is_empty() || controllers == "name=systemd").then_some(path)
        });
        let unit = |path: &str| {
            let name = path.rsplit('/').next().filter(|name| name.ends_with(".service"))?;
            let owner = if path.contains("/user@") && !name.starts_with("user@") {
                Owner::User
            } else {
                Owner::System
            };
            Some(Self { name: name.to_owned(), owner })
        };
        paths.filter_map(unit).next()
    }

    /// The unit whose main process holds a lock.
    pub fn of_holder(holder: &Holder) -> Option<Self> {
        // A process that has ended belongs to no unit.
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", holder.pid?)).ok()?;
        Self::of(&groups, &holder.command)
    }
}

/// Checks that a supervisor of this release can start with the kernel state and the stored state that exist. Changes
/// nothing.
pub async fn check(context: &Context, docker: &Docker, project: &ProjectName) -> Result<(), CliError> {
    if docker.is_local() {
        Pins::check(project)?;
    }
    context.settings(project, docker).await?.state.load()?;
    Ok(())
}

/// Returns an error if the supervisor's protocol is not that of this command.
pub fn understands(version: &Version, project: &ProjectName) -> Result<(), OtherRelease> {
    let (project, version) = (project.clone(), version.clone());
    match version.standing() {
        Standing::Same | Standing::OlderRelease => Ok(()),
        Standing::OlderProtocol => Err(OtherRelease::Older { project, version }),
        Standing::NewerProtocol => Err(OtherRelease::Newer { project, version }),
    }
}

/// Ends a supervisor of an older release, if there is one, and leaves everything running. The caller starts another
/// one. A supervisor that systemd runs is not ended.
pub async fn replace(context: &Context, project: &ProjectName, which: Replace) -> Result<(), CliError> {
    let Some(client) = Client::connect(&context.paths()?.socket(project)).await? else { return Ok(()) };
    let version = match client.version().await {
        Ok(version) => version,
        // It is ending by itself.
        Err(ClientError::ConnectionFailed(_) | ClientError::Ended | ClientError::NotRunning { .. }) => {
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    other_engine::check(context, project, &version).await?;
    let is_replaced = match version.standing() {
        Standing::OlderProtocol => true,
        Standing::OlderRelease => which == Replace::Older,
        Standing::Same | Standing::NewerProtocol => false,
    };
    let lock = context.paths()?.lock(project);
    let Some(holder) = is_replaced.then(|| holder(&lock)).flatten() else { return Ok(()) };
    if let Some(unit) = Unit::of_holder(&holder) {
        return match version.standing() {
            Standing::OlderRelease => Ok(()),
            _ => Err(OtherRelease::Service { project: project.clone(), version, unit }.into()),
        };
    }
    check(context, &context.engine().await?, project).await?;
    client.detach(&version).await?;
    wait_for(&lock).await?;
    output::note(&format!(
        "replaced the supervisor of an older release ({version}); its containers were left running"
    ))
}

/// The process that holds a lock; `None` if the lock is free.
pub fn holder(lock: &Path) -> Option<Holder> {
    match Lock::acquire(lock) {
        Err(LockError::Held { holder }) => Some(holder),
        // Code that acquires the lock reports the error.
        Ok(_) | Err(LockError::Io { .. }) => None,
    }
}

/// Waits until a lock is free.
pub async fn wait_for(lock: &Path) -> Result<(), CliError> {
    let deadline = Instant::now() + STOP_TIMEOUT;
    loop {
        match Lock::acquire(lock) {
            Ok(_) => return Ok(()),
            Err(LockError::Held { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_of_a_supervisor_is_that_of_its_main_process() {
        let supervise = "/usr/bin/sameport -f /srv/shop/compose.yaml supervise";
        for (groups, command, wanted) in [
            ("0::/system.slice/shop.service\n", supervise, Some("systemctl restart shop.service")),
            (
                "4:memory:/\n1:name=systemd:/system.slice/shop.service\n0::/\n",
                supervise,
                Some("systemctl restart shop.service"),
            ),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/shop.service\n",
                supervise,
                Some("systemctl --user restart shop.service"),
            ),
            ("0::/user.slice/user-1000.slice/session-2.scope\n", supervise, None),
            ("0::/system.slice/ci-runner.service\n", "sameport supervise --background", None),
            ("0::/\n", supervise, None),
            ("", "", None),
        ] {
            let unit = Unit::of(groups, command);
            assert_eq!(unit.map(|unit| unit.restart()).as_deref(), wanted, "{groups} {command}");
        }
    }
}
