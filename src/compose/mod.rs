//! From Compose files to a [`Project`].
//!
//! In: which files, and the environment of the process. Out: the project, warnings for everything that
//! has no effect here, and the resolved file; or all errors at once, each with its place.
//!
//! The way: `find` names the files, `yaml` reads them, `interpolate` fills in variables, `merge`
//! puts several files together, `convert` checks every key and makes the spec.

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

/// What to load, as the command line and the environment say it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `-f`, in order; `-` is standard input. Empty: `COMPOSE_FILE`, or the usual names here or above.
    pub files: Vec<PathBuf>,
    /// `-p`.
    pub project_name: Option<String>,
    /// `--project-directory`: what relative paths start from; by default the folder of the first file.
    pub project_directory: Option<PathBuf>,
    /// `--env-file`, in order; by default `.env` of the project's folder.
    pub env_files: Vec<PathBuf>,
    /// `--profile`; `*` is all.
    pub profiles: Vec<String>,
    /// Where the command was called, absolute.
    pub current_dir: PathBuf,
    /// The environment of the process.
    pub environment: BTreeMap<String, String>,
    /// The addresses of this host, as far as they are known.
    pub host_addresses: Vec<IpAddr>,
}

/// A project that can be run.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What to run.
    pub project: Project,
    /// What has no effect, or another one than it seems.
    pub warnings: Vec<Diagnostic>,
    /// The Compose files that were read, in the order of merging.
    pub files: Vec<PathBuf>,
    /// What relative paths in them start from, absolute.
    pub directory: PathBuf,
    /// The files of variables that were read, absolute.
    pub env_files: Vec<PathBuf>,
    /// What those files alone say.
    pub env_file_values: BTreeMap<String, String>,
    /// The variables that the files name.
    pub variables: Variables,
    /// Where the health check of a service is in the files, by the service's name: a warning without words.
    pub health_checks: BTreeMap<String, Diagnostic>,
    /// The resolved file: valid Compose YAML that loads to the same project from anywhere.
    pub rendered: String,
}

/// What came of reading a project.
#[derive(Clone, Debug)]
pub struct Read {
    /// The project, or all that is wrong.
    pub result: Result<Loaded, LoadError>,
    /// Every file that was looked at for it, also those that are not there: when one of them changes, another
    /// project may come of it.
    pub files: Files,
}

/// Loads a project, and tells where it looked.
#[must_use]
pub fn read(options: &Options) -> Read {
    let report = Report::default();
    let result = load_into(options, &report);
    Read { result, files: report.files() }
}

/// Loads a project.
///
/// # Errors
/// When no file is found or one cannot be read, and with all that is wrong in them.
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

/// The name of the project alone, for commands that need nothing else. When the command line or the
/// environment gives it, no Compose file has to be there.
///
/// # Errors
/// When the name is not valid, or has to be in a file and none can be read.
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

/// The folder that relative paths in a project's file start from; none where there is no file.
#[must_use]
pub fn directory(options: &Options) -> Option<PathBuf> {
    find::find(options, &Report::default()).ok().map(|found| found.directory)
}

/// All documents of all files, filled in and merged.
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

/// The name: of the command line, of the environment, of the file, of the folder.
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
            // The rest of the file is checked under a name that stands in for it.
            found.directory_name().or_else(|e| report.finish().and(Err(e)))
        }
        None => found.directory_name(),
    }
}
