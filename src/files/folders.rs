//! Detects changes of directory entries with [inotify(7)](https://man7.org/linux/man-pages/man7/inotify.7.html).
//!
//! Directories are watched rather than files, since editors replace a file by a new one.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::Path,
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};
use tokio::io::unix::AsyncFd;

use super::{
    path::{Kind, Step, steps},
    watch::WatchError,
};
use crate::kernel::asynchronous;

/// Events that can change what a path resolves to. Reads are excluded: comparing files reads them.
const CHANGE_EVENTS: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);
/// The number of attempts to resolve paths that change while they are resolved.
const MAX_ATTEMPTS: usize = 5;

/// The directories that a set of paths leads through.
#[derive(Debug)]
pub(super) struct Folders {
    inotify: AsyncFd<OwnedFd>,
    /// The watched names by the watch descriptor of their directory.
    watched: BTreeMap<i32, BTreeSet<OsString>>,
}

impl Folders {
    pub fn new() -> Result<Self, WatchError> {
        let open = || asynchronous(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?);
        match open() {
            Ok(inotify) => Ok(Self { inotify, watched: BTreeMap::new() }),
            Err(error) if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => {
                Err(WatchError::Watchers)
            }
            Err(error) => Err(WatchError::Unsupported(error)),
        }
    }

    /// Watches the directories that these paths lead through now, and no others.
    pub fn arm<'a>(&mut self, paths: impl Iterator<Item = &'a Path> + Clone) -> Result<(), WatchError> {
        let mut way = way(paths.clone());
        for _ in 0..MAX_ATTEMPTS {
            self.watch(&way)?;
            let now = self::way(paths.clone());
            if now == way {
                break;
            }
            way = now;
        }
        Ok(())
    }

    fn watch(&mut self, way: &BTreeSet<Step>) -> Result<(), WatchError> {
        let mut watched: BTreeMap<i32, BTreeSet<OsString>> = BTreeMap::new();
        let mut failed = None;
        for Step { folder, name, kind } in way {
            match inotify::add_watch(&self.inotify, folder.as_path(), CHANGE_EVENTS) {
                Ok(number) => {
                    watched.entry(number).or_default().insert(name.clone());
                }
                // It was removed after it was found. The next attempt finds what replaced it.
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                // Entries of a directory can be usable without permission to list it. Directories are rarely replaced.
                Err(Errno::ACCESS) if *kind == Kind::Folder => {}
                Err(Errno::NOSPC) => failed = Some(WatchError::Folders { folder: folder.clone() }),
                Err(error) => {
                    failed = Some(WatchError::Folder { folder: folder.clone(), source: error.into() });
                }
            }
        }
        for number in self.watched.keys().filter(|number| !watched.contains_key(number)) {
            // Fails if the directory was removed, which also removes its watch.
            let _ = inotify::remove_watch(&self.inotify, *number);
        }
        self.watched = watched;
        failed.map_or(Ok(()), Err)
    }

    /// Waits for an event after which a file may have changed. Cancel safe: no event is lost.
    pub async fn stirred(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.inotify.readable().await?;
            match ready.try_io(|inotify| read(inotify.get_ref(), &self.watched)) {
                Ok(Ok(false)) | Err(_) => {}
                Ok(Ok(true)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
            }
        }
    }
}

fn way<'a>(paths: impl Iterator<Item = &'a Path>) -> BTreeSet<Step> {
    paths.flat_map(steps).collect()
}

/// Reads all pending events. Returns whether any of them concerns a watched name.
fn read(inotify: &OwnedFd, watched: &BTreeMap<i32, BTreeSet<OsString>>) -> io::Result<bool> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = Reader::new(inotify, &mut buffer);
    let mut matters = false;
    loop {
        match reader.next() {
            Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => matters = true,
            Ok(event) => {
                let Some(names) = watched.get(&event.wd()) else { continue };
                // An event without a name is about the directory itself.
                matters |=
                    event.file_name().is_none_or(|name| names.contains(OsStr::from_bytes(name.to_bytes())));
            }
            Err(Errno::AGAIN) if matters => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}
