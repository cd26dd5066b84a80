//! What every command needs: the global options, the Compose file, the engine.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::{Args, ValueEnum};
use sameport::{
    clock::Clock,
    compose::{self, Loaded},
    engine::{
        docker::{Docker, Endpoint, Surroundings},
        ownership::Expected,
    },
    files::Files,
    kernel::netns,
    spec::{Project, ProjectName},
    supervisor::{
        HiddenProcesses, HostProcesses, Kernel, NoKernel, ProcessView, Settings, StateFile, ThisKernel,
        paths::Paths,
    },
    tick::Ticker,
};

use super::{
    error::CliError,
    other_engine,
    output::{self, format::Format},
    project_status,
    session::Session,
};

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// A Compose file; several are merged. Must stand before the command
    #[arg(short, long = "file", value_name = "FILE", help_heading = "Project")]
    pub files: Vec<PathBuf>,
    /// Name of the project
    #[arg(short, long, value_name = "NAME", global = true, help_heading = "Project")]
    pub project_name: Option<String>,
    /// Directory that relative paths in the file start from
    #[arg(long, value_name = "FOLDER", global = true, help_heading = "Project")]
    pub project_directory: Option<PathBuf>,
    /// File of variables, instead of `.env`
    #[arg(long = "env-file", value_name = "FILE", global = true, help_heading = "Project")]
    pub env_files: Vec<PathBuf>,
    /// Also enable services with this profile
    #[arg(long = "profile", value_name = "NAME", global = true, help_heading = "Project")]
    pub profiles: Vec<String>,
    /// Show what would be done, step by step, without doing it
    #[arg(long, global = true, help_heading = "Output")]
    pub dry_run: bool,
    /// Output format: `table`, `json`, or a Go template such as '{{.Name}}' or 'table {{.Name}}'
    #[arg(long, value_name = "FORMAT", default_value = "table", global = true, help_heading = "Output")]
    pub format: Format,
    /// When to use colors
    #[arg(long, value_enum, default_value_t = Color::Auto, global = true, help_heading = "Output")]
    pub color: Color,
    /// Print more details; twice: everything
    #[arg(long, action = clap::ArgAction::Count, global = true, help_heading = "Output")]
    pub verbose: u8,
}

/// When to use colors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// If the output is a terminal and NO_COLOR is not set
    Auto,
    /// Even if the output is not a terminal
    Always,
    /// Never
    Never,
}

impl Global {
    /// Applies the choice to all output of this process.
    pub fn choose_colors(&self) {
        match self.color {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

/// The user who runs this command, as `NAME`, or as `NAME as root` with the name before `sudo`.
pub fn who() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::current()).ok().flatten();
    let name = user.map_or_else(|| nix::unistd::Uid::current().to_string(), |user| user.name);
    match env::var("SUDO_USER") {
        Ok(before) if before != name => format!("{before} as {name}"),
        _ => name,
    }
}

/// What every command needs.
pub struct Context {
    /// The global options.
    pub global: Global,
    current_dir: PathBuf,
    kept: Kept,
}

/// Where a supervisor in this process keeps its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    InFile,
    InMemory,
}

impl Context {
    /// A context for the current directory and the environment of this process.
    ///
    /// # Errors
    /// If the current directory is gone, or cannot be read.
    pub fn new(global: Global) -> Result<Self, CliError> {
        let current_dir = env::current_dir().map_err(CliError::io("cannot get the current directory"))?;
        Ok(Self { global, current_dir, kept: Kept::InFile })
    }

    /// A copy for a supervisor that keeps its state in memory and uses no state file.
    pub fn without_state(&self) -> Self {
        Self { global: self.global.clone(), current_dir: self.current_dir.clone(), kept: Kept::InMemory }
    }

    /// The state file of a project.
    pub fn state(&self, project: &ProjectName) -> Result<StateFile, CliError> {
        Ok(match self.kept {
            Kept::InFile => StateFile::at(self.paths()?.state(project)),
            Kept::InMemory => StateFile::default(),
        })
    }

    /// The folders for sockets, locks, state and logs; created where they are missing.
    pub fn paths(&self) -> Result<Paths, CliError> {
        Ok(Paths::from_env()?)
    }

    /// An absolute path; a relative one starts in the current directory.
    pub fn absolute(&self, path: &Path) -> PathBuf {
        self.current_dir.join(path)
    }

    /// Whether `--dry-run` is set.
    pub fn is_dry_run(&self) -> bool {
        self.global.dry_run
    }

    /// The output format for programs; `None` for the one for people.
    pub fn data(&self) -> Option<&Format> {
        Some(&self.global.format).filter(|format| !format.is_text())
    }

    /// The options and the environment that determine the project and its file.
    pub fn options(&self) -> compose::Options {
        let global = &self.global;
        let environment: BTreeMap<_, _> = env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        compose::Options {
            files: global.files.clone(),
            project_name: global.project_name.clone(),
            project_directory: global.project_directory.clone(),
            env_files: global.env_files.clone(),
            profiles: global.profiles.clone(),
            current_dir: self.current_dir.clone(),
            environment,
            // Without the addresses, only a warning is missing.
            host_addresses: netns::addresses().unwrap_or_default(),
        }
    }

    /// Loads the Compose file and prints its warnings.
    pub fn load(&self) -> Result<Loaded, CliError> {
        self.read().0
    }

    /// Loads the Compose file and prints its warnings. The files that were read are returned even if one is invalid.
    pub fn read(&self) -> (Result<Loaded, CliError>, Files) {
        let compose::Read { result, files } = compose::read(&self.options());
        let told = result.map_err(CliError::from).and_then(|loaded| {
            loaded.warnings.iter().try_for_each(|warning| output::colored_note(&warning.render(true)))?;
            Ok(loaded)
        });
        (told, files)
    }

    /// Loads the Compose file without printing warnings, which `up` has printed. Returns no file if it cannot be loaded
    /// but the project's name is known, so that the project can still be inspected and removed.
    pub fn load_if_possible(&self) -> Result<(ProjectName, Option<Loaded>), CliError> {
        match compose::load(&self.options()) {
            Ok(loaded) => Ok((loaded.project.name.clone(), Some(loaded))),
            Err(error) => match compose::project_name(&self.options()) {
                Ok(name) => Ok((name, None)),
                Err(_) => Err(error.into()),
            },
        }
    }

    /// The name of the project.
    pub fn project(&self) -> Result<ProjectName, CliError> {
        Ok(compose::project_name(&self.options())?)
    }

    /// The folder that relative paths in the Compose file refer to, if a file is found.
    pub fn directory(&self) -> Option<PathBuf> {
        compose::directory(&self.options())
    }

    /// Names that the project's own resources can have: from its file, if there is one, and from its stored state.
    pub fn expected(&self, name: &ProjectName, file: Option<&Project>) -> Expected {
        let remembered = self.paths().and_then(|paths| Ok(StateFile::at(paths.state(name)).load()?));
        let mut expected = remembered.map(|loaded| loaded.state.expected()).unwrap_or_else(|error| {
            // This loses only a name that the file of an earlier release gave and the present file does not.
            tracing::debug!(%error, "cannot read the stored state of the project");
            Expected::default()
        });
        file.into_iter().for_each(|file| expected.note(file));
        expected
    }

    /// The address of the engine.
    pub fn endpoint(&self) -> Result<Endpoint, CliError> {
        Ok(Surroundings::from_env().endpoint()?)
    }

    /// Connects to the engine.
    pub async fn engine(&self) -> Result<Docker, CliError> {
        Ok(Docker::connect().await?)
    }

    /// Connects to the engine. If that takes longer than 800 ms, a note says so, with the time of the engine's last
    /// answer to the supervisor.
    pub async fn engine_or_told(&self) -> Result<Docker, CliError> {
        const ENGINE_TIMEOUT: Duration = Duration::from_millis(800);
        let connect = self.engine();
        tokio::pin!(connect);
        if let Ok(connected) = tokio::time::timeout(ENGINE_TIMEOUT, &mut connect).await {
            return connected;
        }
        let status = async {
            let session = Session::running(self, &self.project()?).await?;
            match session {
                Some(session) => Ok::<_, CliError>(session.status().await?.engine_unreachable_since),
                None => Ok(None),
            }
        };
        let since = match status.await {
            Ok(since) => project_status::last_answer(since),
            // This waits for the engine; other commands report a supervisor that does not answer.
            Err(_) => String::new(),
        };
        output::note(&format!("the engine does not answer{since}; waiting, Ctrl-C ends"))?;
        connect.await
    }

    /// The settings for a supervisor of the project in this process.
    pub async fn settings(&self, project: &ProjectName, docker: &Docker) -> Result<Settings, CliError> {
        let kernel: Arc<dyn Kernel> =
            if docker.is_local() { Arc::new(ThisKernel) } else { Arc::new(NoKernel) };
        let processes: Arc<dyn ProcessView> =
            if docker.is_local() { Arc::new(HostProcesses) } else { Arc::new(HiddenProcesses) };
        Ok(Settings {
            processes,
            state: self.state(project)?.on(other_engine::identity(docker).await),
            clock: Clock::default(),
            netns_of: Arc::new(netns::inode),
            kernel,
            ticker: Ticker::by_thread(),
            check_folder: Some(self.paths()?.of_host().to_owned()),
        })
    }

    /// Arguments by which another sameport process selects the same project.
    pub fn project_args(&self) -> Vec<std::ffi::OsString> {
        let mut args: Vec<std::ffi::OsString> = Vec::new();
        let mut add = |flag: &str, value: std::ffi::OsString| args.extend([flag.into(), value]);
        let global = &self.global;
        for file in &global.files {
            add("--file", self.current_dir.join(file).into());
        }
        if let Some(name) = &global.project_name {
            add("--project-name", name.into());
        }
        if let Some(folder) = &global.project_directory {
            add("--project-directory", self.current_dir.join(folder).into());
        }
        for file in &global.env_files {
            add("--env-file", self.current_dir.join(file).into());
        }
        for profile in &global.profiles {
            add("--profile", profile.into());
        }
        args
    }
}
