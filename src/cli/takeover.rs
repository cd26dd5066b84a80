//! A supervisor of another release: whether it is to be replaced, and how, without a touch to what runs.

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

/// How long a supervisor that was asked to leave may take.
pub const LEAVING: Duration = Duration::from_secs(15);

/// Which supervisors a command replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Those that do not understand it.
    Incompatible,
    /// All of older releases.
    Older,
}

/// A supervisor of another release runs, and this command does not replace it.
#[derive(Debug, thiserror::Error)]
pub enum OtherRelease {
    /// It is older.
    #[error(
        "project `{project}` has a supervisor of an older release ({version}); this command does not understand it"
    )]
    Older {
        /// Of which project.
        project: ProjectName,
        /// What it is.
        version: Version,
    },
    /// It is newer.
    #[error("project `{project}` has a supervisor of a newer release ({version}); this one speaks protocol {}", Version::own().protocol)]
    Newer {
        /// Of which project.
        project: ProjectName,
        /// What it is.
        version: Version,
    },
    /// It is older, and systemd would start it again.
    #[error("project `{project}` has a supervisor of an older release ({version}), which systemd runs as {}", unit.name)]
    Service {
        /// Of which project.
        project: ProjectName,
        /// What it is.
        version: Version,
        /// Its unit.
        unit: Unit,
    },
}

impl OtherRelease {
    /// What to type.
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

/// A unit of systemd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    name: String,
    owner: Owner,
}

/// Which systemd runs a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// The host's.
    System,
    /// A user's.
    User,
}

impl Unit {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The command that restarts it.
    fn restart(&self) -> String {
        match self.owner {
            Owner::System => format!("systemctl restart {}", self.name),
            Owner::User => format!("systemctl --user restart {}", self.name),
        }
    }

    /// The unit whose main process a supervisor is, by its control groups as `/proc/PID/cgroup` has them. One that
    /// `up -d` began from within a unit is none of its main processes: systemd does not start it again.
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
        // A process that is gone is in no unit.
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", holder.pid?)).ok()?;
        Self::of(&groups, &holder.command)
    }
}

/// Whether a supervisor of this release can begin, as far as what others have left decides that; nothing is changed.
pub async fn check(context: &Context, docker: &Docker, project: &ProjectName) -> Result<(), CliError> {
    if docker.is_local() {
        Pins::check(project)?;
    }
    context.settings(project, docker).await?.state.load()?;
    Ok(())
}

/// Refuses a supervisor that does not understand this command.
pub fn understands(version: &Version, project: &ProjectName) -> Result<(), OtherRelease> {
    let (project, version) = (project.clone(), version.clone());
    match version.standing() {
        Standing::Same | Standing::OlderRelease => Ok(()),
        Standing::OlderProtocol => Err(OtherRelease::Older { project, version }),
        Standing::NewerProtocol => Err(OtherRelease::Newer { project, version }),
    }
}

/// Has a supervisor of an older release end, if there is one, and leave everything running: the caller begins another
/// one. One that systemd runs is left alone.
pub async fn replace(context: &Context, project: &ProjectName, which: Replace) -> Result<(), CliError> {
    let Some(client) = Client::connect(&context.paths()?.socket(project)).await? else { return Ok(()) };
    let version = match client.version().await {
        Ok(version) => version,
        // It ends by itself.
        Err(ClientError::BrokenOff(_) | ClientError::Ended | ClientError::NotRunning { .. }) => return Ok(()),
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

/// Who holds a lock; none when it is free.
pub fn holder(lock: &Path) -> Option<Holder> {
    match Lock::acquire(lock) {
        Err(LockError::Held { holder }) => Some(holder),
        // Whoever needs the lock finds out by itself what is wrong with it.
        Ok(_) | Err(LockError::Io { .. }) => None,
    }
}

/// Waits until a lock is free.
pub async fn wait_for(lock: &Path) -> Result<(), CliError> {
    let deadline = Instant::now() + LEAVING;
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
    fn a_supervisor_is_of_the_unit_whose_main_process_it_is() {
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
