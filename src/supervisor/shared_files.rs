//! Finds sockets and pid files that several replicas of a service share in one folder: each program replaces or removes
//! the files of the others.
//!
//! The file system is accessed in a separate thread, because a network file system may not respond.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{CStr, OsStr},
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    time::Duration,
};

use jiff::Timestamp;
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    engine::{ContainerId, ContainerState, Role},
    kernel::processes::{self, Cgroup},
    plan::{Container, Desired, SharedFile, SharedFileKind},
    spec::{MountSource, Service, ServiceName},
};

/// How long after the start servers have opened their files.
const SETTLE: Duration = Duration::from_secs(5);
/// The interval of further checks, because files may be opened later.
const AGAIN: Duration = Duration::from_secs(60);
/// Maximum number of bytes to read of the kernel's socket table.
const MOST_OF_TABLE: u64 = 1 << 20;
/// The depth to which a folder is searched for pid files (`tmp/pids/server.pid`), and the maximum number of entries.
const DEPTH: usize = 3;
const MOST_ENTRIES: usize = 2000;
/// Maximum number of files to report of a service.
const MOST_TOLD: usize = 8;

/// Services of which several running replicas write to the same folders.
pub(super) type Wanted = BTreeMap<ServiceName, Sharing>;
type Found = BTreeSet<SharedFile>;

/// Replicas that share folders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sharing {
    /// The mount paths of the folders in the replicas.
    folders: BTreeSet<String>,
    /// The main process of each replica, and its start.
    replicas: BTreeMap<u32, Timestamp>,
}

/// The state of the search.
#[derive(Debug)]
pub(super) struct SharedFiles {
    known: Wanted,
    look: Option<oneshot::Receiver<Found>>,
    at: Instant,
    is_told: bool,
}

impl SharedFiles {
    pub(super) fn new() -> Self {
        Self { known: Wanted::new(), look: None, at: Instant::now(), is_told: false }
    }

    /// Waits for a result. `wanted` returns where to search.
    pub(super) async fn found(&mut self, wanted: impl FnOnce() -> Wanted) -> Found {
        let wanted = wanted();
        if wanted != self.known {
            self.known = wanted;
            self.at = Instant::now() + SETTLE;
        }
        if self.look.is_none() {
            match (self.known.is_empty(), self.is_told) {
                (true, true) => {
                    self.is_told = false;
                    return Found::new();
                }
                (true, false) => std::future::pending().await,
                (false, _) => tokio::time::sleep_until(self.at).await,
            }
        }
        // Do not start another search before this one ends: threads would pile up.
        let look = self.look.get_or_insert_with(|| begin(self.known.clone()));
        let found = look.await.unwrap_or_default();
        self.look = None;
        self.at = Instant::now() + AGAIN;
        self.is_told = !found.is_empty();
        found
    }
}

/// The folders that several replicas write to, by service.
pub(super) fn wanted(desired: &Desired, containers: &BTreeMap<ContainerId, Container>) -> Wanted {
    let services = desired.project.services.values();
    let sharing = services.filter_map(|service| Some((service.name.clone(), sharing(service, containers)?)));
    sharing.collect()
}

fn sharing(service: &Service, containers: &BTreeMap<ContainerId, Container>) -> Option<Sharing> {
    let mounts = service.container.mounts.iter().filter(|mount| !mount.read_only);
    let folders: BTreeSet<_> = mounts
        .filter(|mount| match &mount.source {
            MountSource::Bind { path: source, .. } | MountSource::Volume { name: source, .. } => {
                !source.contains("{{")
            }
            MountSource::Anonymous | MountSource::Tmpfs { .. } => false,
        })
        .map(|mount| mount.target.clone())
        .collect();
    if folders.is_empty() {
        return None;
    }
    let replicas =
        containers.values().filter_map(|container| match (&container.labels.role, &container.state) {
            (Role::Replica { service: of, .. }, ContainerState::Running(process)) if *of == service.name => {
                Some((process.pid, process.started_at))
            }
            _ => None,
        });
    let replicas: BTreeMap<_, _> = replicas.collect();
    (replicas.len() > 1).then_some(Sharing { folders, replicas })
}

fn begin(wanted: Wanted) -> oneshot::Receiver<Found> {
    let (sender, receiver) = oneshot::channel();
    let look = move || {
        let found = wanted.iter().flat_map(|(service, sharing)| {
            let sockets = sharing.sockets().into_iter().map(|path| (path, SharedFileKind::Socket));
            let files = sharing.pid_files().into_iter().map(|path| (path, SharedFileKind::PidFile));
            let told = sockets.chain(files).take(MOST_TOLD);
            told.map(|(path, kind)| SharedFile { service: service.clone(), path, kind })
        });
        // The receiver may be dropped before the search ends.
        drop(sender.send(found.collect()));
    };
    if let Err(error) = std::thread::Builder::new().name("shared files".to_owned()).spawn(look) {
        tracing::warn!(%error, "cannot look for files that replicas share");
    }
    receiver
}

impl Sharing {
    /// Sockets of several replicas that have, or had, the same path in a shared folder.
    fn sockets(&self) -> Vec<String> {
        // The replicas are in one network namespace, so one table is enough.
        let Some(table) = self.replicas.keys().find_map(|pid| table(*pid).ok()) else { return Vec::new() };
        let mut by_path = BTreeMap::<String, BTreeSet<u64>>::new();
        for (path, inode) in table.lines().filter_map(server) {
            if let Some(path) = self.shared_path(path) {
                by_path.entry(path).or_default().insert(inode);
            }
        }
        by_path.retain(|_, inodes| inodes.len() > 1 && self.are_of_several(inodes));
        by_path.into_keys().collect()
    }

    /// The path as the replicas see it, if it is in a shared folder.
    fn shared_path(&self, path: &str) -> Option<String> {
        let is_in = |path: &str| {
            let mut folders = self.folders.iter();
            folders.any(|folder| Path::new(path).starts_with(folder))
        };
        if path.starts_with('/') {
            return is_in(path).then(|| path.to_owned());
        }
        // Relative paths start from the program's working directory. Abstract sockets (`@`) have no path.
        let mut places =
            self.replicas.keys().filter_map(|pid| fs::read_link(format!("/proc/{pid}/cwd")).ok());
        let path = places.next().filter(|_| !path.starts_with('@'))?.join(path).display().to_string();
        is_in(&path).then_some(path)
    }

    /// Whether the sockets belong to several replicas; `true` if that cannot be determined.
    fn are_of_several(&self, inodes: &BTreeSet<u64>) -> bool {
        let owners = self.replicas.keys().map(|pid| processes::hold_one_of(&processes_of(*pid), inodes));
        match owners.collect::<io::Result<Vec<_>>>() {
            Ok(owners) => owners.into_iter().filter(|owns| *owns).count() > 1,
            Err(_) => true,
        }
    }

    /// Pid files in shared folders that name a process of a replica.
    fn pid_files(&self) -> Vec<String> {
        let first = self.replicas.values().min().copied().unwrap_or_default();
        let mut found = Vec::new();
        for folder in &self.folders {
            let opened = self.replicas.keys().find_map(|pid| open_folder(*pid, folder).ok());
            let Some(opened) = opened else { continue };
            let files = pid_files_in(opened, first.as_second());
            let is_ours = |number| self.replicas.keys().any(|pid| runs_as(&processes_of(*pid), number));
            let files = files.into_iter().filter(|(_, number)| is_ours(*number));
            found.extend(files.map(|(name, _)| format!("{}/{name}", folder.trim_end_matches('/'))));
        }
        found
    }
}

fn processes_of(pid: u32) -> Vec<u32> {
    Cgroup::of(pid).map_or_else(|_| vec![pid], |group| group.processes())
}

/// The Unix sockets of a process's network namespace (`/proc/PID/net/unix`, unix(7)).
fn table(pid: u32) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(format!("/proc/{pid}/net/unix"))?.take(MOST_OF_TABLE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The path and inode of a row, if it belongs to a server: a listening socket, or a datagram socket with a path.
fn server(row: &str) -> Option<(&str, u64)> {
    // Num RefCount Protocol Flags Type St Inode Path
    const ACCEPTS: u32 = 1 << 16;
    let (mut rest, mut fields) = (row, [""; 7]);
    for field in &mut fields {
        (*field, rest) = rest.trim_start().split_once(' ')?;
    }
    let is_server = u32::from_str_radix(fields[3], 16).ok()? & ACCEPTS != 0 || fields[4] == "0002";
    (is_server && !rest.is_empty()).then_some((rest, fields[6].parse().ok()?))
}

/// Opens a folder as a process in the container sees it. Symbolic links cannot lead out of the container.
fn open_folder(pid: u32, folder: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, format!("/proc/{pid}/root"), flags, Mode::empty())?;
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(root, folder, flags, Mode::empty(), within)?)
}

/// The pid files in a folder and its subfolders that were modified since the given second, with the number in each.
fn pid_files_in(folder: OwnedFd, since: i64) -> Vec<(String, u32)> {
    let (mut found, mut folders, mut entries) = (Vec::new(), vec![(String::new(), folder)], 0);
    for depth in 0..DEPTH {
        let mut below = Vec::new();
        for (path, folder) in folders {
            let Ok(list) = Dir::read_from(&folder) else { continue };
            for entry in list.flatten() {
                let name = entry.file_name();
                entries += 1;
                if entries > MOST_ENTRIES {
                    return found;
                }
                let Some(text) = name.to_str().ok().filter(|name| !name.starts_with('.')) else { continue };
                match entry.file_type() {
                    FileType::Directory if depth + 1 < DEPTH => {
                        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                        if let Ok(inner) = openat(&folder, name, flags, Mode::empty()) {
                            below.push((format!("{path}{text}/"), inner));
                        }
                    }
                    FileType::RegularFile if text.ends_with(".pid") => {
                        found.extend(
                            number_in(&folder, name, since).map(|number| (format!("{path}{text}"), number)),
                        );
                    }
                    _ => {}
                }
            }
        }
        folders = below;
    }
    found
}

/// The number in a regular file that was modified since the given second.
fn number_in(folder: impl AsFd, name: &CStr, since: i64) -> Option<u32> {
    /// Process IDs are shorter.
    const LONGEST: u64 = 32;
    // `O_PATH` has no side effects on the file, whatever its type.
    let file = openat(folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let stat = fstat(&file).ok()?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !is_file || stat.st_mtime < since {
        return None;
    }
    let mut text = String::new();
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .ok()?
        .take(LONGEST)
        .read_to_string(&mut text)
        .ok()?;
    text.trim().parse().ok()
}

/// Whether one of these processes has this ID in its own PID namespace (`NSpid` in proc(5)).
fn runs_as(processes: &[u32], number: u32) -> bool {
    processes.iter().any(|pid| {
        let status = fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
        let mut lines = status.split(|byte| *byte == b'\n').map(OsStr::from_bytes).filter_map(OsStr::to_str);
        let ids = lines.find_map(|line| line.strip_prefix("NSpid:"));
        ids.and_then(|ids| ids.split_whitespace().last()?.parse::<u32>().ok()) == Some(number)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    use super::*;

    #[test]
    fn server_sockets_are_recognized() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let _listener = UnixListener::bind(at("app server.sock")).unwrap();
        let _datagrams = UnixDatagram::bind(at("log")).unwrap();
        let client = UnixStream::connect(at("app server.sock")).unwrap();
        let (_one, _other) = UnixStream::pair().unwrap();
        let table = table(std::process::id()).unwrap();
        let mut seen: Vec<_> = table
            .lines()
            .filter_map(server)
            .filter_map(|(path, _)| path.strip_prefix(folder.path().to_str().unwrap()))
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, ["/app server.sock", "/log"]);
        drop(client);
    }

    #[test]
    fn two_sockets_of_one_path_are_found_in_a_shared_folder_only() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let _first = UnixListener::bind(at("app.sock")).unwrap();
        fs::remove_file(at("app.sock")).unwrap();
        let _second = UnixListener::bind(at("app.sock")).unwrap();
        let _lone = UnixListener::bind(at("lone.sock")).unwrap();
        // Both are in the control group of this test, so both seem to own both sockets.
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let replicas = [std::process::id(), other.id()].map(|pid| (pid, Timestamp::UNIX_EPOCH));
        let sharing =
            |folder: String| Sharing { folders: BTreeSet::from([folder]), replicas: replicas.into() };
        let inside = sharing(folder.path().display().to_string()).sockets();
        let beside = sharing(at("other")).sockets();
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(inside, [at("app.sock")]);
        assert_eq!(beside, [""; 0]);
    }

    #[test]
    fn pid_files_of_the_replicas_are_found_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let own = std::process::id();
        write("tmp/pids/server.pid", &format!("{own}\n"));
        write("ended.pid", "4194305");
        write("notes.pid", "not a number");
        write("server.txt", &own.to_string());
        write("a/b/c/deep.pid", &own.to_string());
        std::os::unix::fs::symlink("tmp/pids/server.pid", folder.path().join("link.pid")).unwrap();
        let found = |started| {
            let folders = BTreeSet::from([folder.path().display().to_string()]);
            Sharing { folders, replicas: BTreeMap::from([(own, started)]) }.pid_files()
        };
        assert_eq!(
            found(Timestamp::UNIX_EPOCH),
            [format!("{}/tmp/pids/server.pid", folder.path().display())]
        );
        // The file is older than the replicas.
        let tomorrow = Timestamp::now() + jiff::SignedDuration::from_hours(24);
        assert_eq!(found(tomorrow), [""; 0]);
    }
}
