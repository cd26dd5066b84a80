//! Our folders on bpffs: they are made for us alone, and one that others can change is not used, followed or removed.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, FileType, FlockOperation, FsWord, Mode, OFlags, Stat, flock, fstat, mkdirat, open, openat,
        statat, statfs,
    },
    mount::{MountFlags, mount},
    process::geteuid,
};

use super::{KernelError, capability};

/// Where bpffs is usually mounted, and where we mount it if it is nowhere.
const BPFFS: &str = "/sys/fs/bpf";
/// By which `statfs` (2) tells bpffs (`linux/magic.h`).
const BPF_FS_MAGIC: FsWord = 0xcafe_4a11;
/// The folder of all of our pins.
const ROOT: &str = "sameport";
/// Only who made it has anything to do there.
const MODE: Mode = Mode::RWXU;
/// Others who may write can put anything in place of what is ours.
const OTHERS_WRITE: u32 = 0o022;

const NO_FOLDER: &str = "it is no folder, but a link or a file";

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// By which a file is known from a later one at the same path.
pub type Place = (u64, u64);

/// The folder of all of our pins, in bpffs, which is mounted if need be, as systemd does at the start of a host.
///
/// # Errors
/// When it cannot be mounted.
pub fn root() -> Result<PathBuf, KernelError> {
    if let Some(path) = existing_root() {
        return Ok(path);
    }
    mount_at(Path::new(BPFFS))?;
    Ok(Path::new(BPFFS).join(ROOT))
}

/// The same, if bpffs is mounted.
#[must_use]
pub fn existing_root() -> Option<PathBuf> {
    capability::mounted("bpf").map(|bpffs| bpffs.join(ROOT))
}

/// Mounts bpffs again where the folder of all of our pins was, if it is not mounted there any more.
///
/// # Errors
/// When it cannot be mounted.
pub fn mount_again(root: &Path) -> Result<(), KernelError> {
    root.parent().map_or(Ok(()), mount_at)
}

fn mount_at(path: &Path) -> Result<(), KernelError> {
    let fail = |errno: rustix::io::Errno| {
        KernelError::io(format!("mount bpffs at {}", path.display()))(errno.into())
    };
    let is_mounted = || statfs(path).is_ok_and(|fs| fs.f_type == BPF_FS_MAGIC);
    if is_mounted() {
        return Ok(());
    }
    // One at a time: a second one on top of the first would hide what is pinned there.
    let place = open(path, FOLDER, Mode::empty()).map_err(fail)?;
    flock(&place, FlockOperation::LockExclusive).map_err(fail)?;
    if is_mounted() {
        return Ok(());
    }
    mount("bpf", path, "bpf", MountFlags::empty(), Some(c"mode=0700")).map_err(fail)
}

/// Opens a folder below that of all of our pins, and makes it, and those above it, if they are not there.
///
/// # Errors
/// When one of them is not ours, or cannot be made.
pub fn make(root: &Path, path: &Path) -> Result<OwnedFd, KernelError> {
    loop {
        match walk(root, path, Some(MODE)) {
            // Somebody has just removed one of them.
            Err(KernelError::Gone { .. }) if root.parent().is_some_and(Path::exists) => {}
            walked => return walked,
        }
    }
}

/// Opens such a folder, if it is there.
///
/// # Errors
/// When one of them is not ours, or is not there.
pub fn open_ours(root: &Path, path: &Path) -> Result<OwnedFd, KernelError> {
    walk(root, path, None)
}

/// Opens each folder in the one above it, which then cannot be another one.
fn walk(root: &Path, path: &Path, mode: Option<Mode>) -> Result<OwnedFd, KernelError> {
    let bpffs = root.parent().unwrap_or(root);
    let mut at = bpffs.to_owned();
    let mut folder = open(bpffs, FOLDER, Mode::empty()).map_err(failed(bpffs))?;
    for name in path.strip_prefix(bpffs).unwrap_or(path).iter().map(Path::new) {
        at.push(name);
        match mode.map_or(Ok(()), |mode| mkdirat(&folder, name, mode)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(failed(&at)(errno)),
        }
        folder = match openat(&folder, name, FOLDER | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(inside) => inside,
            Err(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => return Err(foreign(&at, NO_FOLDER)),
            Err(errno) => return Err(failed(&at)(errno)),
        };
        check(&at, &fstat(&folder).map_err(failed(&at))?)?;
    }
    Ok(folder)
}

fn failed(path: &Path) -> impl Fn(rustix::io::Errno) -> KernelError {
    move |errno| KernelError::io(format!("open {}", path.display()))(errno.into())
}

/// Whether only we and root can change a folder.
fn check(path: &Path, stat: &Stat) -> Result<(), KernelError> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(foreign(path, NO_FOLDER));
    }
    if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() {
        return Err(foreign(path, format!("it belongs to user {}", stat.st_uid)));
    }
    if stat.st_mode & OTHERS_WRITE != 0 {
        let (user, mode) = (stat.st_uid, stat.st_mode & 0o7777);
        return Err(foreign(
            path,
            format!("others than its owner, user {user}, may write to it (mode {mode:04o})"),
        ));
    }
    Ok(())
}

fn foreign(path: &Path, reason: impl Into<String>) -> KernelError {
    KernelError::Foreign { path: path.to_owned(), reason: reason.into() }
}

/// Whether a folder is there and ours to read and to remove. Nothing is followed.
///
/// # Errors
/// When there is something that is not ours.
pub fn is_ours(path: &Path) -> Result<bool, KernelError> {
    match rustix::fs::lstat(path) {
        Ok(stat) => check(path, &stat).map(|()| true),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(errno) => Err(failed(path)(errno)),
    }
}

/// Whether a folder is the one at that path: else it was removed since it was opened, and is another one's by now.
pub fn is_at(folder: &OwnedFd, path: &Path) -> bool {
    let opened = fstat(folder).map(|stat| (stat.st_dev, stat.st_ino));
    fs::symlink_metadata(path).is_ok_and(|meta| opened == Ok((meta.dev(), meta.ino())))
}

/// By which what has a name in a folder is known; none if there is nothing.
///
/// # Errors
/// When the kernel does not tell.
pub fn place(folder: impl AsFd, name: &str) -> Result<Option<Place>, KernelError> {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some((stat.st_dev, stat.st_ino))),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(failed(Path::new(name))(errno)),
    }
}

/// Names of all that is in a folder; none if there is no such folder.
///
/// # Errors
/// When it cannot be read.
pub fn names(folder: &Path) -> Result<Vec<String>, KernelError> {
    let fail = || KernelError::io(format!("read {}", folder.display()));
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(fail())?,
    };
    entries.map(|entry| Ok(entry.map_err(fail())?.file_name().to_string_lossy().into_owned())).collect()
}
