//! What every command begins with: the global arguments, the file, the engine.

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

/// Arguments of every command.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// A Compose file; several are merged. Stands before the command, where `-f` has no other meaning
    #[arg(short, long = "file", value_name = "FILE", help_heading = "Project")]
    pub files: Vec<PathBuf>,
    /// The project's name
    #[arg(short, long, value_name = "NAME", global = true, help_heading = "Project")]
    pub project_name: Option<String>,
    /// Where relative paths in the file start
    #[arg(long, value_name = "FOLDER", global = true, help_heading = "Project")]
    pub project_directory: Option<PathBuf>,
    /// A file of variables, instead of `.env`
    #[arg(long = "env-file", value_name = "FILE", global = true, help_heading = "Project")]
    pub env_files: Vec<PathBuf>,
    /// Services of this profile take part, too
    #[arg(long = "profile", value_name = "NAME", global = true, help_heading = "Project")]
    pub profiles: Vec<String>,
    /// Show what would be done, step by step, and do nothing
    #[arg(long, global = true, help_heading = "Output")]
    pub dry_run: bool,
    /// How data is printed: `table`, `json`, or a Go template such as '{{.Name}}' or 'table {{.Name}}'
    #[arg(long, value_name = "FORMAT", default_value = "table", global = true, help_heading = "Output")]
    pub format: Format,
    /// Whether to use colours
    #[arg(long, value_enum, default_value_t = Color::Auto, global = true, help_heading = "Output")]
    pub color: Color,
    /// Tell more of what goes on inside; twice: everything
    #[arg(long, action = clap::ArgAction::Count, global = true, help_heading = "Output")]
    pub verbose: u8,
}

/// Whether to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Global {
    /// Lets all output follow the choice of colours.
    pub fn choose_colors(&self) {
        match self.color {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

/// Who gives this command: the name of its user, and who that was before `sudo`.
pub fn who() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::current()).ok().flatten();
    let name = user.map_or_else(|| nix::unistd::Uid::current().to_string(), |user| user.name);
    match env::var("SUDO_USER") {
        Ok(before) if before != name => format!("{before} as {name}"),
        _ => name,
    }
}

/// What every command begins with.
pub struct Context {
    /// Arguments of every command.
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
    /// Looks around.
    pub fn new(global: Global) -> Result<Self, CliError> {
        let current_dir = env::current_dir().map_err(CliError::io("cannot get the current directory"))?;
        Ok(Self { global, current_dir, kept: Kept::InFile })
    }

    /// The same for a supervisor that does not use the state file.
    pub fn without_state(&self) -> Self {
        Self { global: self.global.clone(), current_dir: self.current_dir.clone(), kept: Kept::InMemory }
    }

    /// What outlives a project's supervisor.
    pub fn state(&self, project: &ProjectName) -> Result<StateFile, CliError> {
        Ok(match self.kept {
            Kept::InFile => StateFile::at(self.paths()?.state(project)),
            Kept::InMemory => StateFile::default(),
        })
    }

    /// Our folders, made where they are missing.
    pub fn paths(&self) -> Result<Paths, CliError> {
        Ok(Paths::from_env()?)
    }

    /// A path as whoever gave the command means it.
    pub fn absolute(&self, path: &Path) -> PathBuf {
        self.current_dir.join(path)
    }

    /// Whether nothing is to be done.
    pub fn is_dry_run(&self) -> bool {
        self.global.dry_run
    }

    /// How data is printed, where it is not for people.
    pub fn data(&self) -> Option<&Format> {
        Some(&self.global.format).filter(|format| !format.is_text())
    }

    /// What decides which project is meant.
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
            // Without them one warning less is given.
            host_addresses: netns::addresses().unwrap_or_default(),
        }
    }

    /// The file, with its warnings told.
    pub fn load(&self) -> Result<Loaded, CliError> {
        self.read().0
    }

    /// The file, with its warnings told; and which files were looked at, also when something is wrong.
    pub fn read(&self) -> (Result<Loaded, CliError>, Files) {
        let compose::Read { result, files } = compose::read(&self.options());
        let told = result.map_err(CliError::from).and_then(|loaded| {
            loaded.warnings.iter().try_for_each(|warning| output::colored_note(&warning.render(true)))?;
            Ok(loaded)
        });
        (told, files)
    }

    /// The file without its warnings, which `up` has told; none when it cannot be loaded but the project's name
    /// is known, so that what is there can still be looked at and removed.
    pub fn load_if_possible(&self) -> Result<(ProjectName, Option<Loaded>), CliError> {
        match compose::load(&self.options()) {
            Ok(loaded) => Ok((loaded.project.name.clone(), Some(loaded))),
            Err(error) => match compose::project_name(&self.options()) {
                Ok(name) => Ok((name, None)),
                Err(_) => Err(error.into()),
            },
        }
    }

    /// The project's name.
    pub fn project(&self) -> Result<ProjectName, CliError> {
        Ok(compose::project_name(&self.options())?)
    }

    /// The folder that relative paths in the project's file start from, if there is such a file.
    pub fn directory(&self) -> Option<PathBuf> {
        compose::directory(&self.options())
    }

    /// What is known of the names of what is a project's own: from its file, if there is one, and from what is remembered
    /// of it.
    pub fn expected(&self, name: &ProjectName, file: Option<&Project>) -> Expected {
        let remembered = self.paths().and_then(|paths| Ok(StateFile::at(paths.state(name)).load()?));
        let mut expected = remembered.map(|loaded| loaded.state.expected()).unwrap_or_else(|error| {
            // All that is lost is a name that the file of an earlier release gave, and does not give any more.
            tracing::debug!(%error, "cannot read the stored state of the project");
            Expected::default()
        });
        file.into_iter().for_each(|file| expected.note(file));
        expected
    }

    /// Where the engine is.
    pub fn endpoint(&self) -> Result<Endpoint, CliError> {
        Ok(Surroundings::from_env().endpoint()?)
    }

    /// The engine.
    pub async fn engine(&self) -> Result<Docker, CliError> {
        Ok(Docker::connect().await?)
    }

    /// The engine. One that lets us wait is told of within a second, with what the supervisor knows of it.
    pub async fn engine_or_told(&self) -> Result<Docker, CliError> {
        const AT_ONCE: Duration = Duration::from_millis(800);
        let connect = self.engine();
        tokio::pin!(connect);
        if let Ok(connected) = tokio::time::timeout(AT_ONCE, &mut connect).await {
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
            // It is the engine that is waited for: a supervisor that does not answer is told by others.
            Err(_) => String::new(),
        };
        output::note(&format!("the engine does not answer{since}; waiting, Ctrl-C ends"))?;
        connect.await
    }

    /// What a supervisor of a project in this process needs.
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

    /// The arguments by which another process of ours means the same project.
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
