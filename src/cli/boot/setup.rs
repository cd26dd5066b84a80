//! What `enable` writes for a project.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use sameport::{
    compose::Loaded,
    engine::docker::Surroundings,
    spec::ProjectName,
    systemd::{self, Manager, Record, Unencodable, Unit},
};

use super::{Boot, Found, remove, replace, systemctl};
use crate::cli::{context::Context, error::CliError};

/// Compose's own variables that no argument of the unit's command replaces.
const COMPOSE: [&str; 2] = ["COMPOSE_PROFILES", "COMPOSE_DISABLE_ENV_FILE"];
/// Variables that determine how to connect to an engine.
const ENGINE: [&str; 3] = ["DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"];

/// A project's unit and its variables.
pub struct Setup {
    /// The systemd instance.
    pub boot: Boot,
    pub project: ProjectName,
    /// Variables of the Compose file whose values come from the environment and from no file.
    pub variables: BTreeMap<String, String>,
    unit: Unit,
    text: String,
    variables_path: PathBuf,
}

impl Setup {
    /// The setup for this command's arguments and environment. With `watch: None`, the setting of the existing unit
    /// stays.
    ///
    /// # Errors
    /// If the file comes from standard input, if a path is not UTF-8, or if a value cannot be written into a unit.
    pub fn of(context: &Context, boot: Boot, loaded: &Loaded, watch: Option<bool>) -> Result<Self, CliError> {
        let options = context.options();
        let project = loaded.project.name.clone();
        let paths = context.paths()?;
        let variables_path = paths.variables(&project);
        let variables = variables(loaded, &options.environment);
        systemd::render(&variables).map_err(unwritable)?;
        let mut args = vec!["--project-name".to_owned(), project.to_string()];
        for file in &loaded.files {
            if file.as_os_str() == "-" {
                return Err(CliError::Usage {
                    message: "a Compose file from standard input cannot be read again at boot".to_owned(),
                    help: "write it into a file, and name that with `-f FILE`".to_owned(),
                });
            }
            args.extend(["--file".to_owned(), utf8(file)?]);
        }
        args.extend(["--project-directory".to_owned(), utf8(&loaded.directory)?]);
        // `.env` in the project's directory is found again at boot, even if it is created later.
        for file in loaded.env_files.iter().filter(|file| **file != loaded.directory.join(".env")) {
            args.extend(["--env-file".to_owned(), utf8(file)?]);
        }
        for profile in &context.global.profiles {
            args.extend(["--profile".to_owned(), profile.clone()]);
        }
        let mut environment = engine()?;
        let mut writable = Vec::new();
        for (name, usual) in [("XDG_RUNTIME_DIR", "/run/user/"), ("XDG_STATE_HOME", "")] {
            // A runtime directory below `/run/user/` belongs to a login: the user's systemd instance has the same one,
            // and for the system's it does not exist after the login.
            let folder = env::var(name).ok().filter(|folder| !folder.is_empty());
            let other = |folder: &String| usual.is_empty() || !folder.starts_with(usual);
            if let Some(folder) = folder.filter(other) {
                let folder = context.absolute(Path::new(&folder));
                environment.insert(name.to_owned(), utf8(&folder)?);
                writable.push(folder.join("sameport"));
            }
        }
        let watch = match (watch, boot.find(&project)?) {
            (Some(watch), _) => watch,
            (None, Found::Ours(text)) => systemd::record(&text).is_some_and(|record| record.watch),
            (None, _) => false,
        };
        let kept = (!variables.is_empty()).then(|| variables_path.clone());
        let record = Record { args, environment, variables: kept, watch };
        let unit =
            Unit { project: project.clone(), manager: boot.manager, program: program()?, record, writable };
        let text = unit.render().map_err(unwritable)?;
        Ok(Self { boot, project, variables, unit, text, variables_path })
    }

    /// The text of the unit.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The path of the unit.
    pub fn path(&self) -> PathBuf {
        self.boot.path(&self.project)
    }

    /// The command line, environment and options of the unit.
    pub fn record(&self) -> &Record {
        &self.unit.record
    }

    /// Returns an error if the path has a unit that sameport did not write, or if `sameport@.service` starts the
    /// project.
    pub fn check(&self) -> Result<(), CliError> {
        if let Found::Foreign = self.boot.find(&self.project)? {
            return Err(CliError::failed(
                format!("{} was not written by `sameport enable`; not changed", self.path().display()),
                Some("move it away, or start the project by it"),
            ));
        }
        if let Some(unit) = self.boot.template(&self.project) {
            return Err(CliError::failed(
                format!("{unit} starts project `{}` at boot already", self.project),
                Some(&format!(
                    "to have `enable` do it: `systemctl disable --now {unit}`, which leaves everything running"
                )),
            ));
        }
        Ok(())
    }

    /// Writes the unit and its variables and makes systemd reload. Returns whether anything changed.
    pub async fn write(&self) -> Result<bool, CliError> {
        self.check()?;
        let before = match self.boot.find(&self.project)? {
            Found::Ours(text) => Some(text),
            Found::Nothing | Found::Foreign => None,
        };
        let variables = (!self.variables.is_empty())
            .then(|| systemd::render(&self.variables))
            .transpose()
            .map_err(unwritable)?;
        let kept = fs::read_to_string(&self.variables_path).ok();
        let is_same = before.as_ref() == Some(&self.text) && kept == variables;
        if is_same {
            return Ok(false);
        }
        match &variables {
            Some(text) => replace(&self.variables_path, text, 0o600)?,
            None => remove(&self.variables_path)?,
        }
        let units = &self.boot.units;
        fs::create_dir_all(units).map_err(CliError::io(format!("cannot make {}", units.display())))?;
        replace(&self.path(), &self.text, 0o644)?;
        systemctl::run(self.boot.manager, &["daemon-reload"]).await?;
        Ok(true)
    }

    /// Removes what `write` wrote, after systemd has rejected it.
    pub async fn take_back(&self) -> Result<(), CliError> {
        remove(&self.path())?;
        remove(&self.variables_path)?;
        systemctl::run(self.boot.manager, &["daemon-reload"]).await
    }
}

/// The variables that the file uses and this process sets, without those that env files set to the same value.
fn variables(loaded: &Loaded, process: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let names = loaded.variables.given.iter().map(String::as_str).chain(COMPOSE);
    names
        .filter_map(|name| {
            let value = process.get(name)?;
            (loaded.env_file_values.get(name) != Some(value)).then(|| (name.to_owned(), value.clone()))
        })
        .collect()
}

/// Variables that lead to the same engine at boot, where HOME may differ or be unset, and whatever `docker context use`
/// has selected by then.
fn engine() -> Result<BTreeMap<String, String>, CliError> {
    let surroundings = Surroundings::from_env();
    let mut found = BTreeMap::new();
    match &surroundings.host {
        Some(host) => {
            found.insert("DOCKER_HOST".to_owned(), host.clone());
            let given = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
            for (name, value) in ENGINE.iter().filter_map(|name| Some((*name, given(name)?))) {
                found.insert(name.to_owned(), value);
            }
        }
        None => {
            let context = surroundings.context_in_use()?.unwrap_or_else(|| "default".to_owned());
            found.insert("DOCKER_CONTEXT".to_owned(), context);
        }
    }
    // The configuration directory also holds the credentials for registries.
    if let Some(config) = surroundings.config.filter(|config| config.is_dir()) {
        let config =
            config.canonicalize().map_err(CliError::io(format!("cannot use {}", config.display())))?;
        found.insert("DOCKER_CONFIG".to_owned(), utf8(&config)?);
    }
    Ok(found)
}

/// The absolute path by which this program was called. A symbolic link is kept, so that an upgrade takes effect.
fn program() -> Result<PathBuf, CliError> {
    let real = env::current_exe().map_err(CliError::io("cannot find the path of the sameport program"))?;
    let is_it = |path: &PathBuf| path.canonicalize().is_ok_and(|path| path == real);
    let called = env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let folders: Vec<_> = match called.components().count() {
        1 => env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default(),
        _ => Vec::new(),
    };
    let found = folders.into_iter().map(|folder| folder.join(&called));
    let found = found.chain(std::iter::once(called.clone()));
    let found = found.filter(|path| path.is_absolute()).find(is_it).unwrap_or(real);
    if found.is_file() {
        return Ok(found);
    }
    Err(CliError::failed(
        format!("{} is not there any more, so nothing could start it at boot", found.display()),
        Some("run `enable` with the program that is to be started"),
    ))
}

fn utf8(path: &Path) -> Result<String, CliError> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        CliError::failed(format!("the path {} is not UTF-8, which a unit has to be", path.display()), None)
    })
}

fn unwritable(error: Unencodable) -> CliError {
    CliError::failed(
        format!("the unit cannot be written: {error}"),
        Some("a variable can be set in `.env` of the project's folder instead; a path has to be another one"),
    )
}

impl Boot {
    /// The `systemctl` command of this instance, for messages.
    pub(super) fn systemctl(&self) -> &'static str {
        match self.manager {
            Manager::System => "systemctl",
            Manager::User => "systemctl --user",
        }
    }
}
