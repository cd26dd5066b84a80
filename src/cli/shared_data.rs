//! Warns, and asks for confirmation, where several replicas would write to the files of one database or to a directory
//! that a program locks.

use std::{collections::BTreeMap, fs, path::Path};

use sameport::{
    spec::{MountSource, Project, Service, ServiceName},
    supervisor::Selector,
};

use super::{confirm, context::Context, error::CliError, output, replicas::Finder};

/// Images of servers that need exclusive access to their data, by the last part of the name.
const DATABASES: [&str; 26] = [
    "cassandra",
    "clickhouse-server",
    "cockroach",
    "couchdb",
    "elasticsearch",
    "eclipse-mosquitto",
    "etcd",
    "influxdb",
    "keydb",
    "mariadb",
    "meilisearch",
    "mongo",
    "mosquitto",
    "mysql",
    "neo4j",
    "opensearch",
    "percona",
    "pgvector",
    "postgis",
    "postgres",
    "prometheus",
    "qdrant",
    "rabbitmq",
    "redis",
    "timescaledb",
    "valkey",
];
/// Suffixes of files that programs keep while they use a directory.
const LOCK_FILE_SUFFIXES: [&str; 4] = [".lck", ".lock", ".pid", ".sock"];
/// The number of directory entries that are searched for lock files.
const MAX_ENTRIES: usize = 1000;

/// Data that several replicas would write to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shared {
    /// The name of the volume, or the path on the host.
    source: String,
    /// The path in the container.
    target: String,
    /// Why only one replica may write to it.
    why: String,
}

/// Warns of services whose replicas would share such data. If there is a terminal and fewer than two of them run, asks
/// for confirmation. Call it while Ctrl-C still ends the process.
///
/// # Errors
/// If the answer is not yes, or the engine does not answer.
pub async fn check(
    context: &Context,
    project: &Project,
    counts: &BTreeMap<ServiceName, u32>,
    yes: bool,
) -> Result<(), CliError> {
    for service in project.services.values() {
        let replicas = counts.get(&service.name).copied().unwrap_or(service.replicas);
        if replicas < 2 {
            continue;
        }
        let Some(Shared { source, target, why }) = shared(service) else { continue };
        let name = &service.name;
        output::note(&format!("warning: {replicas} replicas of `{name}` write to {source} at once: {why}"))?;
        output::note(&format!(
            "  help: run one replica, or give each its own volume: `data-{{{{.Slot}}}}:{target}`"
        ))?;
        if yes || context.is_dry_run() || !confirm::is_on_terminal() {
            continue;
        }
        let docker = context.engine().await?;
        let selector = Selector { service: name.clone(), slot: None };
        let found = Finder::of(context, &project.name, Some(project)).list(&docker, &[selector]).await?;
        let is_new = found.iter().filter(|replica| replica.running).count() < 2;
        if is_new
            && !confirm::ask(format!("Run {replicas} replicas of `{name}` on one set of data? [y/N] "))
                .await?
        {
            return Err(CliError::failed("not confirmed; nothing changed", None));
        }
    }
    Ok(())
}

fn shared(service: &Service) -> Option<Shared> {
    let database = database(&service.container.image.0);
    let writable = service.container.mounts.iter().filter(|mount| !mount.read_only);
    writable.into_iter().find_map(|mount| {
        let (source, lock) = match &mount.source {
            MountSource::Volume { name, .. } => (name, None),
            MountSource::Bind { path, .. } => (path, lock(Path::new(path))),
            MountSource::Anonymous | MountSource::Tmpfs { .. } => return None,
        };
        let why = match (&lock, database) {
            _ if source.contains("{{") => return None,
            (Some(lock), _) => format!("the file `{lock}` in it suggests that only one may use it"),
            (None, Some(database)) => format!("{database} must not share its files"),
            (None, None) => return None,
        };
        Some(Shared { source: source.clone(), target: mount.target.clone(), why })
    })
}

/// The database that an image contains, by the name of the image.
fn database(image: &str) -> Option<&'static str> {
    let name = image.split('@').next()?.rsplit('/').next()?.split(':').next()?;
    DATABASES.into_iter().find(|database| *database == name)
}

/// The name of the first lock file in a directory, if any.
fn lock(folder: &Path) -> Option<String> {
    let entries = fs::read_dir(folder).ok()?.flatten().take(MAX_ENTRIES);
    let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.find(|name| LOCK_FILE_SUFFIXES.iter().any(|end| name.ends_with(end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_known_by_the_name_of_its_image() {
        for (image, wanted) in [
            ("postgres:16", Some("postgres")),
            ("registry.example:5000/library/redis@sha256:12", Some("redis")),
            ("bitnami/mariadb", Some("mariadb")),
            ("postgres-exporter", None),
            ("acme/web:redis", None),
        ] {
            assert_eq!(database(image), wanted, "{image}");
        }
    }

    #[test]
    fn a_lock_file_is_known_by_its_end() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("notes.txt"), "").unwrap();
        assert_eq!(lock(folder.path()), None);
        fs::write(folder.path().join("server.pid"), "").unwrap();
        assert_eq!(lock(folder.path()).as_deref(), Some("server.pid"));
        assert_eq!(lock(&folder.path().join("missing")), None);
    }
}
