//! Whether and how systemd starts a project's supervisor at boot.

mod disable;
mod enable;
mod setup;
mod systemctl;

pub use disable::{DisableArgs, after_down, run as disable};
pub use enable::{EnableArgs, hand_over, run as enable};
pub use setup::Setup;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use sameport::{
    spec::ProjectName,
    systemd::{self, Manager},
};

use super::{context::Context, error::CliError, output};

/// This directory exists if systemd is the init system: sd_booted(3).
const BOOTED: &str = "/run/systemd/system";

/// The systemd instance that starts the projects of this user.
#[derive(Clone, Debug)]
pub struct Boot {
    manager: Manager,
    /// The directory of its units.
    units: PathBuf,
}

/// What the path of a project's unit contains.
enum Found {
    Nothing,
    /// The text of a unit that sameport wrote.
    Ours(String),
    /// A file that sameport did not write, or a masked unit.
    Foreign,
}

impl Boot {
    /// The instance of this user, whether it runs or not. For root it is the system's.
    pub fn of_this_user() -> Result<Self, CliError> {
        if nix::unistd::geteuid().is_root() {
            return Ok(Self { manager: Manager::System, units: PathBuf::from(systemd::UNITS) });
        }
        let var = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let config = var("XDG_CONFIG_HOME").or_else(|| var("HOME").map(|home| home.join(".config")));
        let config = config.ok_or_else(|| {
            CliError::failed(
                "there is no folder for units of this user",
                Some("set HOME to a folder that is yours"),
            )
        })?;
        Ok(Self { manager: Manager::User, units: config.join("systemd/user") })
    }

    /// Whether the instance runs.
    pub fn is_there(&self) -> bool {
        is_systemd() && (self.manager == Manager::System || user_manager().is_some())
    }

    /// Returns an error if the instance does not run. `instead` is the command to run at boot without it.
    fn require(&self, instead: &str) -> Result<(), CliError> {
        if !is_systemd() {
            return Err(CliError::failed(
                "this host does not run systemd, which `enable` needs",
                Some(&format!("have what starts this host's services run {instead} at boot")),
            ));
        }
        if !self.is_there() {
            let user = user();
            return Err(CliError::failed(
                format!("no systemd runs for the user {user}"),
                Some(&format!(
                    "`sudo loginctl enable-linger {user}` starts one, now and at boot; or run `enable` as root"
                )),
            ));
        }
        Ok(())
    }

    fn path(&self, project: &ProjectName) -> PathBuf {
        self.units.join(systemd::unit_name(project))
    }

    fn link(&self, unit: &str) -> PathBuf {
        self.units.join(format!("{}.wants", self.manager.target())).join(unit)
    }

    fn find(&self, project: &ProjectName) -> Result<Found, CliError> {
        let path = self.path(project);
        // A masked unit is a link to /dev/null.
        if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
            return Ok(Found::Foreign);
        }
        match fs::read(&path) {
            Ok(bytes) => Ok(match String::from_utf8(bytes) {
                Ok(text) if systemd::is_ours(&text) => Found::Ours(text),
                _ => Found::Foreign,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
            Err(error) => Err(CliError::io(format!("cannot read {}", path.display()))(error)),
        }
    }

    /// Whether a unit that sameport wrote starts the project at boot.
    pub fn is_ours(&self, project: &ProjectName) -> bool {
        matches!(self.find(project), Ok(Found::Ours(_))) && is_link(&self.link(&systemd::unit_name(project)))
    }

    /// Whether the project starts at boot, by a unit that sameport wrote or by an instance of `sameport@.service`.
    pub fn is_enabled(&self, project: &ProjectName) -> bool {
        self.is_ours(project) || self.template(project).is_some()
    }

    /// The enabled instance of `sameport@.service` for the project, if any.
    fn template(&self, project: &ProjectName) -> Option<String> {
        let unit = format!("sameport@{project}.service");
        is_link(&self.link(&unit)).then_some(unit)
    }

    /// A note for users whose systemd instance runs only while they are logged in.
    fn linger_note(&self) -> Option<String> {
        (self.manager == Manager::User && !lingers()).then(|| {
            format!(
                "it starts when {0} logs in; for a start at boot, and no end at logout: `sudo loginctl enable-linger {0}`",
                user()
            )
        })
    }
}

/// Prints one line if the project does not start at boot, although systemd could start it.
pub fn hint(context: &Context, project: &ProjectName) -> Result<(), CliError> {
    let Ok(boot) = Boot::of_this_user() else { return Ok(()) };
    if context.data().is_some() || !boot.is_there() || boot.is_enabled(project) {
        return Ok(());
    }
    output::note(&format!(
        "project `{project}` does not start at boot; `sameport enable` has systemd start it"
    ))
}

/// Facts about boot, for `doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whether a systemd instance runs that starts what this user enables.
    pub is_there: bool,
    /// The user's name, if the systemd instance ends with the last login.
    pub ends_with_login: Option<String>,
    /// Running projects that start at boot.
    pub enabled: Vec<String>,
    /// Running projects that do not start at boot.
    pub not_enabled: Vec<String>,
}

/// Collects the facts for the running projects.
pub fn facts(running: &[ProjectName]) -> Facts {
    let boot = Boot::of_this_user().ok();
    let is_enabled = |name: &ProjectName| boot.as_ref().is_some_and(|boot| boot.is_enabled(name));
    let (enabled, not_enabled): (Vec<_>, Vec<_>) = running.iter().partition(|name| is_enabled(name));
    let names = |names: Vec<&ProjectName>| names.into_iter().map(ToString::to_string).collect();
    let ends = boot.as_ref().is_some_and(|boot| boot.manager == Manager::User && !lingers());
    Facts {
        is_there: boot.is_some_and(|boot| boot.is_there()),
        ends_with_login: ends.then(user),
        enabled: names(enabled),
        not_enabled: names(not_enabled),
    }
}

/// Whether systemd is the init system of this host: sd_booted(3).
fn is_systemd() -> bool {
    Path::new(BOOTED).is_dir()
}

/// The runtime directory of the user's systemd instance, if it runs.
fn user_manager() -> Option<PathBuf> {
    let runtime = env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()).map(PathBuf::from);
    let runtime = runtime.unwrap_or_else(|| PathBuf::from(format!("/run/user/{}", nix::unistd::geteuid())));
    Some(runtime.join("systemd")).filter(|folder| folder.is_dir())
}

/// Whether the user's systemd instance runs without a login.
fn lingers() -> bool {
    Path::new("/var/lib/systemd/linger").join(user()).exists()
}

fn user() -> String {
    let uid = nix::unistd::geteuid();
    nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

fn is_link(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Replaces a file atomically: writes `PATH.new` and renames it.
fn replace(path: &Path, text: &str, mode: u32) -> Result<(), CliError> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let fail = |error| CliError::io(format!("cannot write {}", path.display()))(error);
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    // A leftover could have another mode, or be a symbolic link.
    remove(Path::new(&beside))?;
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside).map_err(fail)?;
    file.write_all(text.as_bytes()).map_err(fail)?;
    file.sync_all().map_err(fail)?;
    fs::rename(&beside, path).map_err(fail)
}

fn remove(path: &Path) -> Result<(), CliError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CliError::io(format!("cannot remove {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}
