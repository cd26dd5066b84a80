//! Determines what is at the source path of bind mounts, which decides whether two replicas may use a mount at the same
//! time.
//!
//! The file system is accessed in a separate thread. A network file system may not respond; then the name of the path
//! decides.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::mpsc,
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{
    engine::{ContainerId, Role},
    kernel::processes::{self, Cgroup},
    plan::{BindSource, Container, Desired},
};

/// The interval of further checks: a replica may open a file later.
const RECHECK_INTERVAL: Duration = Duration::from_secs(30);
/// Timeout of a check, after which names decide. The check itself may never end.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long a command waits for a check.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(200);
/// File name extensions of databases.
const DATABASE_EXTENSIONS: [&str; 5] = ["db", "db3", "sqlite", "sqlite3", "rdb"];

/// The paths to check, each with the process IDs of the replicas that mount it.
pub(super) type Wanted = BTreeMap<String, BTreeSet<u32>>;
type Found = BTreeMap<String, BindSource>;

/// The checked paths, and the check in progress.
#[derive(Debug)]
pub(super) struct BindSources {
    known: BTreeSet<String>,
    /// The check in progress, and its timeout.
    look: Option<(oneshot::Receiver<Found>, Instant)>,
    again: Instant,
}

impl BindSources {
    pub(super) fn new() -> Self {
        Self { known: BTreeSet::new(), look: None, again: Instant::now() }
    }

    /// Makes the next call check all paths again.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// Waits for a result. `wanted` returns the paths to check.
    pub(super) async fn found(&mut self, wanted: impl FnOnce() -> Wanted) -> Found {
        let wanted = wanted();
        let is_known = wanted.keys().eq(self.known.iter());
        if self.look.is_none() {
            match (is_known, wanted.is_empty()) {
                (true, true) => std::future::pending().await,
                (true, false) => tokio::time::sleep_until(self.again).await,
                (false, _) => {}
            }
            self.known = wanted.keys().cloned().collect();
            let (sender, receiver) = oneshot::channel();
            // The receiver may be dropped before the check ends.
            begin(wanted.clone(), move |found| drop(sender.send(found)));
            self.look = Some((receiver, Instant::now() + TIMEOUT));
        }
        let Some((look, late)) = &mut self.look else { return Found::new() };
        let answer = match is_known && *late <= Instant::now() {
            true => Ok(look.await),
            false => timeout_at(*late, look).await,
        };
        self.again = Instant::now() + RECHECK_INTERVAL;
        match answer {
            Ok(found) => {
                self.look = None;
                // The check could not start a thread; rollouts must not wait for that.
                found.unwrap_or_else(|_| by_names(&wanted))
            }
            // Do not start another check before this one ends: threads would pile up.
            Err(_) => {
                self.known = wanted.keys().cloned().collect();
                by_names(&wanted)
            }
        }
    }
}

/// Checks the paths of a project once, for commands without a supervisor.
pub(super) fn now(desired: &Desired, containers: &BTreeMap<ContainerId, Container>) -> Found {
    let wanted = wanted(desired, containers);
    let (sender, receiver) = mpsc::channel();
    begin(wanted.clone(), move |found| drop(sender.send(found)));
    receiver.recv_timeout(COMMAND_TIMEOUT).unwrap_or_else(|_| by_names(&wanted))
}

/// The source paths that replicas may write to, with the process IDs of those that mount them.
pub(super) fn wanted(desired: &Desired, containers: &BTreeMap<ContainerId, Container>) -> Wanted {
    let mut wanted = Wanted::new();
    for (service, path) in desired.writable_binds() {
        let replicas = containers.values().filter(
            |container| matches!(&container.labels.role, Role::Replica { service: of, .. } if of == service),
        );
        let pids = replicas.filter_map(Container::process).map(|process| process.pid);
        wanted.entry(path.to_owned()).or_default().extend(pids);
    }
    wanted
}

fn begin(wanted: Wanted, tell: impl FnOnce(Found) + Send + 'static) {
    if wanted.is_empty() {
        return tell(Found::new());
    }
    let look = move || {
        let found = wanted.into_iter().map(|(path, pids)| {
            let source = look(&path, &pids);
            (path, source)
        });
        tell(found.collect());
    };
    if let Err(error) = std::thread::Builder::new().name("bind mounts".to_owned()).spawn(look) {
        tracing::warn!(%error, "cannot look at bind mounts");
    }
}

fn by_names(wanted: &Wanted) -> Found {
    wanted.keys().map(|path| (path.clone(), by_name(path))).collect()
}

/// Checks a path. `pids`: processes of replicas that mount it.
fn look(path: &str, pids: &BTreeSet<u32>) -> BindSource {
    // The engine may be on another host, or may create a folder there later.
    let Ok(metadata) = fs::metadata(path) else { return by_name(path) };
    if metadata.is_dir() {
        return BindSource::Folder;
    }
    if !metadata.is_file() {
        return BindSource::Other;
    }
    if by_name(path) == BindSource::Data {
        return BindSource::Data;
    }
    let file = (metadata.dev(), metadata.ino());
    let is_written = pids.iter().any(|pid| {
        let processes = Cgroup::of(*pid).map_or_else(|_| vec![*pid], |group| group.processes());
        processes::has_open_for_writing(&processes, file)
    });
    if is_written { BindSource::Data } else { BindSource::Other }
}

/// Classifies a path by its name: with an extension it is a file, otherwise a folder.
fn by_name(path: &str) -> BindSource {
    match Path::new(path).extension().and_then(|extension| extension.to_str()) {
        Some(extension) if DATABASE_EXTENSIONS.contains(&extension) => BindSource::Data,
        Some(extension) if !extension.contains("{{") => BindSource::Other,
        _ => BindSource::Folder,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn folders_and_files_that_are_written_to_are_data() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        fs::create_dir(at("data")).unwrap();
        for name in ["app.conf", "notes.db", "journal"] {
            fs::write(at(name), "").unwrap();
        }
        let _socket = UnixListener::bind(at("docker.sock")).unwrap();
        let _read = fs::File::open(at("app.conf")).unwrap();
        let _written = fs::File::options().append(true).open(at("journal")).unwrap();
        let own = BTreeSet::from([std::process::id()]);
        let wanted = || -> Wanted {
            let names =
                ["data", "app.conf", "notes.db", "journal", "docker.sock", "new", "new.conf", "/dev/null"];
            let path = |name: &str| if name.starts_with('/') { name.to_owned() } else { at(name) };
            names.iter().map(|name| (path(name), own.clone())).collect()
        };
        let mut sources = BindSources::new();
        let found = sources.found(wanted).await;
        let of = |name: &str| found[&at(name)];
        use BindSource::{Data, Folder, Other};
        assert_eq!(["data", "new"].map(of), [Folder; 2]);
        assert_eq!(["notes.db", "journal"].map(of), [Data; 2]);
        assert_eq!(["app.conf", "docker.sock", "new.conf"].map(of), [Other; 3]);
        assert_eq!(found["/dev/null"], Other);
        // The result is cached. The path is checked again after the interval or after `forget`.
        let soon = Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, sources.found(wanted)).await.is_err());
        sources.forget();
        assert_eq!(sources.found(wanted).await, found);
    }
}
