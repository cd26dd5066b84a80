//! Loads a [`Project`] from Compose files.
//!
//! The input is a list of files and the environment of the process. The output is the project, warnings for everything
//! that has no effect, and the resolved file; or all errors, each with its place.
//!
//! The stages: `find` finds the files, `yaml` parses them, `interpolate` inserts variables, `merge` merges several
//! files, and `convert` checks every key and builds the spec.

mod checks_by_host;
mod convert;
mod diagnostic;
mod env_file;
mod fields;
mod find;
mod interpolate;
mod keys;
mod merge;
mod node;
mod profiles;
mod render;
mod report;
mod resolve;
mod source;
mod units;
mod yaml;

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

pub use diagnostic::{Diagnostic, LoadError, Related, Severity};
pub use report::Variables;

use self::{
    find::Accepts,
    node::Node,
    report::{Problem, Report},
};
use crate::{
    files::Files,
    spec::{Project, ProjectName},
};

/// What to load, from the command line and the environment.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `-f`, in order; `-` is standard input. If empty, `COMPOSE_FILE` or the default names in the current directory
    /// and its parents.
    pub files: Vec<PathBuf>,
    /// `-p`.
    pub project_name: Option<String>,
    /// `--project-directory`: the base directory of relative paths; by default the directory of the first file.
    pub project_directory: Option<PathBuf>,
    /// `--env-file`, in order; by default `.env` in the project directory.
    pub env_files: Vec<PathBuf>,
    /// `--profile`; `*` enables all.
    pub profiles: Vec<String>,
    /// The absolute path of the current directory.
    pub current_dir: PathBuf,
    /// The environment of the process.
    pub environment: BTreeMap<String, String>,
    /// The known addresses of this host.
    pub host_addresses: Vec<IpAddr>,
}

/// A project that was loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The services, networks and volumes to run.
    pub project: Project,
    /// Settings that have no effect, or an unexpected one.
    pub warnings: Vec<Diagnostic>,
    /// The Compose files that were read, in the order of merging.
    pub files: Vec<PathBuf>,
    /// The absolute base directory of relative paths.
    pub directory: PathBuf,
    /// The absolute paths of the env files that were read.
    pub env_files: Vec<PathBuf>,
    /// The variables of the env files alone.
    pub env_file_values: BTreeMap<String, String>,
    /// The variables that the files use.
    pub variables: Variables,
    /// The places of health checks by name of service, as warnings without a message.
    pub health_checks: BTreeMap<String, Diagnostic>,
    /// The resolved file: valid Compose YAML that loads to the same project from any directory.
    pub rendered: String,
}

/// The result of reading a project.
#[derive(Clone, Debug)]
pub struct Read {
    /// The project, or all errors.
    pub result: Result<Loaded, LoadError>,
    /// Every file that was looked for, including missing ones: a change of any of them can change the project.
    pub files: Files,
}

/// Loads a project, and returns the files that were looked for.
#[must_use]
pub fn read(options: &Options) -> Read {
    let report = Report::default();
    let result = load_into(options, &report);
    Read { result, files: report.files() }
}

/// Loads a project.
///
/// # Errors
/// If no file is found, a file cannot be read, or a file is invalid; with all errors.
pub fn load(options: &Options) -> Result<Loaded, LoadError> {
    read(options).result
}

fn load_into(options: &Options, report: &Report) -> Result<Loaded, LoadError> {
    let found = find::find(options, report)?;
    let mut document = documents(&found, report)?;
    let name = name_of(&document, &found, options, report)?;
    let off = profiles::turn_off(&mut document, &found.profiles, report);
    resolve::resolve(&mut document, &name, &found, report)?;
    let project = convert::project(&document, &name, &off, report);
    if let Some(project) = &project {
        checks_by_host::warn(&document, project, &options.host_addresses, report);
    }
    let warnings = report.finish()?;
    let Some(project) = project else {
        return Err(LoadError::general(
            "the file has no project",
            "write `services:` with a service below it",
        ));
    };
    Ok(Loaded {
        project,
        warnings,
        files: found.files,
        directory: found.directory,
        env_files: found.env_files,
        env_file_values: found.env_file_values,
        variables: report.variables(&options.environment),
        health_checks: health_checks(&document, report),
        rendered: render::render(&document),
    })
}

fn health_checks(document: &Node, report: &Report) -> BTreeMap<String, Diagnostic> {
    let services = document.get("services").and_then(Node::as_map).into_iter().flatten();
    let marked = services.filter_map(|(name, service)| {
        let test = service.node.get("healthcheck")?.get("test")?;
        Some((name.clone(), report.mark(test.at)))
    });
    marked.collect()
}

/// The name of the project, for commands that need nothing else. If the command line or the environment sets it, no
/// Compose file is needed.
///
/// # Errors
/// If the name is invalid, or no file that may set it can be read.
pub fn project_name(options: &Options) -> Result<ProjectName, LoadError> {
    let report = Report::default();
    if let Some(name) = &options.project_name {
        return ProjectName::new(name.as_str()).map_err(|e| find::bad_name("-p", &e));
    }
    if let Some(name) = options.environment.get("COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty()) {
        return ProjectName::new(name.as_str()).map_err(|e| find::bad_name("COMPOSE_PROJECT_NAME", &e));
    }
    let found = find::find(options, &report)?;
    if let Some(name) = found.name(options)? {
        return Ok(name);
    }
    let document = documents(&found, &report)?;
    name_of(&document, &found, options, &report)
}

/// The base directory of relative paths in the project's file; `None` if there is no file.
#[must_use]
pub fn directory(options: &Options) -> Option<PathBuf> {
    find::find(options, &Report::default()).ok().map(|found| found.directory)
}

/// All documents of all files, interpolated and merged.
fn documents(found: &find::Found, report: &Report) -> Result<Node, LoadError> {
    let mut merged: Option<Node> = None;
    let lookup = |name: &str| report.variable(name, found.environment.get(name).cloned());
    for file in &found.files {
        let (source, at) = find::open(file, Accepts::Files, report)?;
        let read = yaml::read(&source, at, report).unwrap_or_default();
        if read.iter().all(Node::is_null) && !report.failed() {
            report.push(
                Problem::error(at.part(0..0), "the file is empty")
                    .help("write `services:`, and below it `web:` with `image: NAME`"),
            );
        }
        for mut document in read.into_iter().filter(|document| !document.is_null()) {
            interpolate::fill_tree(&mut document, &lookup, report);
            merge::normalise(&mut document, report);
            merged = Some(match merged.take() {
                None => document,
                Some(base) => merge::merge(base, document),
            });
        }
    }
    let Some(mut merged) = merged else {
        return Err(report
            .finish()
            .err()
            .unwrap_or_else(|| LoadError::general("there is no Compose file", "name one with `-f FILE`")));
    };
    merge::prune(&mut merged);
    Ok(merged)
}

/// The name from the command line, the environment, the file, or the directory, in this order.
fn name_of(
    document: &Node,
    found: &find::Found,
    options: &Options,
    report: &Report,
) -> Result<ProjectName, LoadError> {
    if let Some(name) = found.name(options)? {
        return Ok(name);
    }
    let Some(node) = document.get("name") else { return found.directory_name() };
    let name = fields::text(node, "name", report).map(ProjectName::new);
    match name {
        Some(Ok(name)) => Ok(name),
        Some(Err(e)) => {
            report
                .push(Problem::error(node.at, format!("`{}` cannot be a project name", e.name)).help(e.rule));
            // The rest of the file is checked under the name of the directory.
            found.directory_name().or_else(|e| report.finish().and(Err(e)))
        }
        None => found.directory_name(),
    }
}
