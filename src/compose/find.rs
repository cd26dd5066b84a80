//! Finds the files of a project, its directory, and the variables for interpolation.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read as _,
    os::unix::fs::FileTypeExt as _,
    path::{Component, Path, PathBuf},
    rc::Rc,
};

use super::{
    Options,
    diagnostic::{Diagnostic, LoadError, Severity},
    env_file::{self, Format},
    report::Report,
    source::{At, Source},
    yaml,
};
use crate::spec::ProjectName;

/// The names of Compose files, in order of preference.
const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
/// The names of override files, which are merged over the Compose file in the same directory.
const OVERRIDES: [&str; 4] = [
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yaml",
    "docker-compose.override.yml",
];

/// What is known before any Compose file is read.
#[derive(Debug)]
pub(super) struct Found {
    /// The Compose files in the order of merging: absolute paths, or `-`.
    pub files: Vec<PathBuf>,
    /// The absolute base directory of relative paths.
    pub directory: PathBuf,
    /// The variables of the process and of env files; those of the process have precedence.
    pub environment: BTreeMap<String, String>,
    /// The env files that were read.
    pub env_files: Vec<PathBuf>,
    /// The variables of the env files alone.
    pub env_file_values: BTreeMap<String, String>,
    /// The enabled profiles.
    pub profiles: BTreeSet<String>,
}

impl Found {
    /// The name from the command line or the environment.
    pub fn name(&self, options: &Options) -> Result<Option<ProjectName>, LoadError> {
        let given = options
            .project_name
            .as_ref()
            .map(|name| ("-p", name))
            .or_else(|| {
                self.environment.get("COMPOSE_PROJECT_NAME").map(|name| ("COMPOSE_PROJECT_NAME", name))
            })
            .filter(|(_, name)| !name.is_empty());
        given.map(|(from, name)| ProjectName::new(name.as_str()).map_err(|e| bad_name(from, &e))).transpose()
    }

    /// The name derived from the project directory: in lower case, without invalid characters.
    pub fn directory_name(&self) -> Result<ProjectName, LoadError> {
        let folder =
            self.directory.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
        let kept: String = folder
            .chars()
            .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(*c))
            .collect();
        let name: String = kept.trim_start_matches(['-', '_']).chars().take(63).collect();
        ProjectName::new(name).map_err(|_| {
            LoadError::general(
                format!("the folder {} gives no project name", self.directory.display()),
                "name the project with `-p NAME`, or with `name:` at the top of the file",
            )
        })
    }
}

/// Finds files and variables.
pub(super) fn find(options: &Options, report: &Report) -> Result<Found, LoadError> {
    let mut environment = options.environment.clone();
    // `.env` may set COMPOSE_FILE, so it is read before the Compose files are known.
    let first = options.files.first().filter(|f| f.as_os_str() != "-").and_then(|f| f.parent());
    let home = options.project_directory.as_deref().or(first).unwrap_or(Path::new(""));
    let home = absolute(&options.current_dir, home);
    let mut env_files = read_env_files(options, &home, &mut environment, report)?;
    let files = files(options, &environment, report)?;
    let beside = match files.first() {
        Some(file) if file.as_os_str() != "-" => file.parent().map(Path::to_path_buf),
        _ => None,
    };
    let directory = match (&options.project_directory, beside) {
        (Some(directory), _) => absolute(&options.current_dir, directory),
        (None, Some(beside)) => beside,
        (None, None) => options.current_dir.clone(),
    };
    if env_files.paths.is_empty() && directory != home {
        env_files = read_env_files(options, &directory, &mut environment, report)?;
    }
    tracing::debug!(directory = %directory.display(), dot_env = !env_files.paths.is_empty(), "project found");
    let named = environment.get("COMPOSE_PROFILES").map(String::as_str).unwrap_or_default();
    let profiles = options.profiles.iter().map(String::as_str).chain(named.split(','));
    let profiles = profiles.map(str::trim).filter(|p| !p.is_empty()).map(str::to_owned).collect();
    let EnvFiles { paths: env_files, values: env_file_values } = env_files;
    Ok(Found { files, directory, environment, env_files, env_file_values, profiles })
}

/// The Compose files named by the options or the environment, or found in the current directory or a parent.
fn files(
    options: &Options,
    environment: &BTreeMap<String, String>,
    report: &Report,
) -> Result<Vec<PathBuf>, LoadError> {
    if !options.files.is_empty() {
        return Ok(options.files.iter().map(|f| absolute(&options.current_dir, f)).collect());
    }
    if let Some(list) = environment.get("COMPOSE_FILE").filter(|list| !list.is_empty()) {
        let separator = environment.get("COMPOSE_PATH_SEPARATOR").filter(|s| !s.is_empty());
        let separator = separator.map_or(":", String::as_str);
        let named = list.split(separator).filter(|f| !f.is_empty());
        return Ok(named.map(|f| absolute(&options.current_dir, Path::new(f))).collect());
    }
    let start = match &options.project_directory {
        Some(directory) => absolute(&options.current_dir, directory),
        None => options.current_dir.clone(),
    };
    for folder in start.ancestors() {
        let Some(file) = one_of(folder, &NAMES, report) else { continue };
        return Ok(std::iter::once(file).chain(one_of(folder, &OVERRIDES, report)).collect());
    }
    Err(LoadError::missing(
        format!("there is no Compose file in {} or above it", start.display()),
        format!("name one with `-f FILE`, or make one of: {}", NAMES.join(", ")),
    ))
}

/// The first of `names` that exists in a directory. Others that exist cause a warning.
fn one_of(folder: &Path, names: &[&str], report: &Report) -> Option<PathBuf> {
    let mut there = names.iter().map(|name| folder.join(name)).filter(|path| report.is_file(path));
    let best = there.next()?;
    let others: Vec<_> = there.map(|p| p.display().to_string()).collect();
    if !others.is_empty() {
        report.push_general(Diagnostic::general(
            Severity::Warning,
            format!("{} is used, and not {}", best.display(), others.join(", ")),
            Some("name the files to use with `-f`, or remove the others".into()),
        ));
    }
    Some(best)
}

/// Env files and their variables.
#[derive(Default)]
struct EnvFiles {
    paths: Vec<PathBuf>,
    values: BTreeMap<String, String>,
}

/// Adds the variables of the env files. Existing variables have precedence.
fn read_env_files(
    options: &Options,
    home: &Path,
    environment: &mut BTreeMap<String, String>,
    report: &Report,
) -> Result<EnvFiles, LoadError> {
    let off = environment.get("COMPOSE_DISABLE_ENV_FILE").is_some_and(|v| matches!(v.as_str(), "1" | "true"));
    let named = environment.get("COMPOSE_ENV_FILES").cloned().unwrap_or_default();
    let files: Vec<PathBuf> = if !options.env_files.is_empty() {
        options.env_files.iter().map(|f| absolute(&options.current_dir, f)).collect()
    } else if !named.is_empty() {
        let named = named.split(',').map(str::trim).filter(|f| !f.is_empty());
        named.map(|f| absolute(&options.current_dir, Path::new(f))).collect()
    } else {
        let usual = home.join(".env");
        if off || !report.is_file(&usual) { Vec::new() } else { vec![usual] }
    };
    let process = environment.clone();
    let mut read = BTreeMap::<String, String>::new();
    for file in &files {
        let (source, at) = open(file, Accepts::Streams, report)?;
        let lookup =
            |name: &str| report.variable(name, process.get(name).or_else(|| read.get(name)).cloned());
        let found = env_file::read(&source, at, Format::Compose, &lookup, report);
        read.extend(found);
    }
    let values = read.clone();
    read.extend(process);
    *environment = read;
    Ok(EnvFiles { paths: files, values })
}

/// What is accepted in place of a regular file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepts {
    /// Nothing: a project is read again later, and a pipe can be read only once.
    Files,
    /// `/dev/null`, and the pipes that a shell provides for `<(command)`.
    Streams,
}

/// Reads a whole file, or standard input for `-`.
///
/// # Errors
/// If it cannot be read, is no regular file or larger than 2 MiB, or is not UTF-8.
pub(super) fn open(path: &Path, accepts: Accepts, report: &Report) -> Result<(Rc<Source>, At), LoadError> {
    let cannot =
        |why: String, help: &str| LoadError::general(format!("cannot read {}: {why}", path.display()), help);
    let unreadable = |e: std::io::Error| {
        let help = match e.kind() {
            std::io::ErrorKind::NotFound => "check the path; relative paths start in the current directory",
            std::io::ErrorKind::PermissionDenied => "make it readable for the user who runs sameport",
            _ => "check the path: a Compose file or env file is a readable regular file",
        };
        cannot(e.to_string(), help)
    };
    let is_taken = accepts == Accepts::Streams && is_of_shell(path);
    // Opening a pipe would block until a program writes to it. A missing file is reported below.
    let instead = fs::metadata(path).ok().and_then(|found| instead_of_file(found.file_type()));
    if let Some(what) = instead.filter(|_| !is_taken) {
        report.note(path, None);
        return Err(cannot(format!("it is {what}"), "give a file, or `-f -` to read standard input"));
    }
    let mut bytes = Vec::new();
    let limit = yaml::MOST_BYTES as u64 + 1;
    let mut is_file = false;
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        fs::File::open(path).and_then(|file| {
            is_file = file.metadata()?.is_file();
            file.take(limit).read_to_end(&mut bytes)
        })
    };
    report.note(path, (is_file && read.is_ok()).then_some(&bytes));
    read.map_err(unreadable)?;
    if bytes.len() > yaml::MOST_BYTES {
        return Err(cannot(
            "it is larger than 2 MiB".into(),
            "a Compose file is far smaller; check the path",
        ));
    }
    if !report.may_read(bytes.len()) {
        return Err(cannot(
            "all files together are larger than 4 MiB".into(),
            "use smaller env files, in fewer services",
        ));
    }
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err(cannot(format!("byte {at} is NUL"), "check the path: this is not a text file"));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        cannot(format!("byte {} is not UTF-8", e.utf8_error().valid_up_to()), "save it as UTF-8")
    })?;
    let shown = if path.as_os_str() == "-" { PathBuf::from("<stdin>") } else { path.to_owned() };
    Ok(report.sources.add(shown, text))
}

/// Names a file type whose opening or reading can block forever.
fn instead_of_file(found: fs::FileType) -> Option<&'static str> {
    if found.is_fifo() {
        Some("a pipe")
    } else if found.is_socket() {
        Some("a socket")
    } else if found.is_char_device() || found.is_block_device() {
        Some("a device")
    } else {
        None
    }
}

/// Whether a path is `/dev/null`, `/dev/stdin` or a file descriptor of this process.
fn is_of_shell(path: &Path) -> bool {
    let is_named = ["/dev/null", "/dev/stdin"].iter().any(|name| path == Path::new(name));
    is_named || path.starts_with("/dev/fd") || path.starts_with("/proc/self/fd")
}

/// An absolute path, with `.` and `..` resolved without following symbolic links; `-` is unchanged.
pub(super) fn absolute(base: &Path, path: &Path) -> PathBuf {
    if path.as_os_str() == "-" {
        return path.to_owned();
    }
    let mut out = PathBuf::new();
    for part in base.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// The error for an invalid project name.
pub(super) fn bad_name(from: &str, error: &crate::spec::NameError) -> LoadError {
    LoadError::general(format!("`{}` of {from} cannot be a project name", error.name), error.rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_give_names() {
        for (folder, expected) in [
            ("/srv/web", Some("web")),
            ("/srv/My App.v2", Some("myappv2")),
            ("/srv/_-a_b-", Some("a_b-")),
            ("/srv/äö", None),
            ("/", None),
        ] {
            let found = Found {
                files: vec![],
                directory: folder.into(),
                environment: BTreeMap::new(),
                env_files: vec![],
                env_file_values: BTreeMap::new(),
                profiles: BTreeSet::new(),
            };
            assert_eq!(found.directory_name().ok().as_ref().map(ProjectName::as_str), expected, "{folder}");
        }
    }

    #[test]
    fn paths_become_absolute() {
        for (path, expected) in [("a/../b", "/base/b"), ("./x", "/base/x"), ("/y/.", "/y"), ("../z", "/z")] {
            assert_eq!(absolute(Path::new("/base"), Path::new(path)), Path::new(expected), "{path}");
        }
    }
}
