//! Folders in which only the current user and root can create or replace files.
//!
//! This requires the same of each component of the path: a user who can rename a component can put another folder in
//! its place. Each component is opened relative to the previous one without following symbolic links, and is checked by
//! its file descriptor.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Component, Path, PathBuf},
};

use nix::unistd::{Gid, Group, Uid, User};
use rustix::{
    fs::{FileType, Mode, OFlags, RawMode, Stat, chmod, fstat, mkdirat, open, openat, readlinkat},
    io::Errno,
};

/// The kernel's limit of symbolic links in a path.
const MOST_LINKS: usize = 40;
/// Opens a path for `fstat` only, not for reading.
const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const STICKY: RawMode = 0o1000;
const GROUP_WRITES: RawMode = 0o020;
const OTHERS_WRITE: RawMode = 0o002;
const OTHERS_READ: RawMode = 0o077;

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be opened or created.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A path component belongs to another user.
    #[error("{} belongs to user {owner}, who could replace what is in it", part.display())]
    Foreign {
        /// The path component.
        part: PathBuf,
        /// The user ID of its owner.
        owner: u32,
    },
    /// Other users can write to a path component.
    #[error("other users can write to {} (mode {mode:04o})", part.display())]
    Writable {
        /// The path component.
        part: PathBuf,
        /// Its mode.
        mode: RawMode,
    },
    /// The path is not absolute.
    #[error("it is not an absolute path")]
    Relative,
}

impl From<FolderError> for io::Error {
    fn from(error: FolderError) -> Self {
        match error {
            FolderError::Io(error) => error,
            other => Self::new(io::ErrorKind::PermissionDenied, other),
        }
    }
}

/// Creates a folder for the current user only (mode 0700), including missing parents. Removes the permissions of other
/// users to read an existing folder.
///
/// # Errors
/// If the folder cannot be created, or another user can change its content.
pub fn make(path: &Path) -> Result<(), FolderError> {
    let folder = walk(path, Missing::Make)?;
    let (stat, me) = (fstat(&folder).map_err(io::Error::from)?, me());
    if stat.st_uid != me {
        return Err(FolderError::Foreign { part: path.to_owned(), owner: stat.st_uid });
    }
    let mode = stat.st_mode;
    if mode & (GROUP_WRITES | OTHERS_WRITE) != 0 {
        return Err(FolderError::Writable { part: path.to_owned(), mode: mode & 0o7777 });
    }
    if mode & OTHERS_READ != 0 {
        // A descriptor opened with `O_PATH` can only be changed through this path.
        chmod(format!("/proc/self/fd/{}", folder.as_raw_fd()), Mode::RWXU).map_err(io::Error::from)?;
    }
    Ok(())
}

/// Checks that only the current user and root can change the content of an existing folder.
///
/// # Errors
/// If another user can, or the folder does not exist.
pub fn check(path: &Path) -> Result<(), FolderError> {
    walk(path, Missing::Fail).map(drop)
}

/// The handling of a missing path component.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Make,
    Fail,
}

fn walk(path: &Path, missing: Missing) -> Result<OwnedFd, FolderError> {
    if !path.is_absolute() {
        return Err(FolderError::Relative);
    }
    // The open folders of the path so far, with their paths for messages.
    let mut way = vec![enter(open("/", LOOK, Mode::empty()).map_err(io::Error::from)?, Path::new("/"))?];
    let mut ahead = parts(path);
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            if way.len() > 1 {
                way.pop();
            }
            continue;
        }
        let Some((folder, at)) = way.last() else { return Err(FolderError::Relative) };
        let at = at.join(&name);
        let fail = |errno: Errno| {
            let error = io::Error::from(errno);
            io::Error::new(error.kind(), format!("{}: {error}", at.display()))
        };
        let part = match openat(folder, &name, LOOK, Mode::empty()) {
            Err(Errno::NOENT) if missing == Missing::Make => {
                match mkdirat(folder, &name, Mode::RWXU) {
                    // Another process was faster. The checks below tell whether it was one of this user.
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(fail(errno).into()),
                }
                openat(folder, &name, LOOK, Mode::empty())
            }
            opened => opened,
        };
        let part = part.map_err(fail)?;
        let stat = fstat(&part).map_err(fail)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            way.push(enter(part, &at)?);
            continue;
        }
        is_ours(&stat, &at)?;
        links += 1;
        if links > MOST_LINKS {
            return Err(fail(Errno::LOOP).into());
        }
        let target = OsString::from_vec(readlinkat(&part, "", Vec::new()).map_err(fail)?.into_bytes());
        if target.as_bytes().starts_with(b"/") {
            way.truncate(1);
        }
        parts(Path::new(&target)).into_iter().rev().for_each(|part| ahead.push_front(part));
    }
    let last = way.pop().ok_or(FolderError::Relative)?;
    Ok(last.0)
}

/// Checks a folder of the path.
fn enter(folder: OwnedFd, at: &Path) -> Result<(OwnedFd, PathBuf), FolderError> {
    let stat = fstat(&folder).map_err(io::Error::from)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        let error = format!("{} is not a folder", at.display());
        return Err(io::Error::new(io::ErrorKind::NotADirectory, error).into());
    }
    is_ours(&stat, at)?;
    let mode = stat.st_mode & 0o7777;
    // In a sticky folder, other users cannot rename files of this user.
    let by_others = mode & OTHERS_WRITE != 0 || mode & GROUP_WRITES != 0 && !is_private_group(stat.st_gid);
    if by_others && mode & STICKY == 0 {
        return Err(FolderError::Writable { part: at.to_owned(), mode });
    }
    Ok((folder, at.to_owned()))
}

fn is_ours(stat: &Stat, at: &Path) -> Result<(), FolderError> {
    match stat.st_uid {
        0 => Ok(()),
        owner if owner == me() => Ok(()),
        owner => Err(FolderError::Foreign { part: at.to_owned(), owner }),
    }
}

/// Whether a group is root's, or this user's private group: it has the name of the user and no other members.
fn is_private_group(gid: u32) -> bool {
    let is_of_user = || {
        let user = User::from_uid(Uid::from_raw(me())).ok()??;
        let group = Group::from_gid(Gid::from_raw(gid)).ok()??;
        Some(group.name == user.name && group.mem.iter().all(|member| *member == user.name))
    };
    gid == 0 || is_of_user().unwrap_or(false)
}

fn me() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let part = |component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    };

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_folder_and_its_parents_are_created_for_this_user_only() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a/b/sameport");
        make(&path).unwrap();
        for part in ["a", "a/b", "a/b/sameport"] {
            assert_eq!(base.path().join(part).metadata().unwrap().mode() & 0o7777, 0o700, "{part}");
        }
        set_mode(&path, 0o755);
        make(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o700);
        assert!(matches!(make(Path::new("here")), Err(FolderError::Relative)));
    }

    #[test]
    fn a_path_that_others_can_change_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let way = base.path().join("way");
        let path = way.join("sameport");
        make(&path).unwrap();
        for (mode, is_good) in [(0o777, false), (0o757, false), (0o1777, true), (0o755, true), (0o700, true)]
        {
            set_mode(&way, mode);
            let checked = (check(&path), make(&path));
            assert_eq!((checked.0.is_ok(), checked.1.is_ok()), (is_good, is_good), "{mode:o}: {checked:?}");
        }
        set_mode(&path, 0o770);
        assert!(matches!(make(&path), Err(FolderError::Writable { .. })));
    }

    #[test]
    fn symbolic_links_of_this_user_are_followed() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        fs::create_dir_all(base.join("real/deep")).unwrap();
        symlink("real", base.join("link")).unwrap();
        symlink("../real/deep", base.join("real/up")).unwrap();
        symlink(base.join("real/up"), base.join("absolute")).unwrap();
        symlink("round", base.join("round")).unwrap();
        for way in ["link", "link/deep", "link/up", "absolute", "real/../link"] {
            make(&base.join(way).join("sameport")).unwrap_or_else(|error| panic!("{way}: {error}"));
        }
        assert!(base.join("real/deep/sameport").is_dir());
        assert!(make(&base.join("round/sameport")).is_err());
        fs::write(base.join("file"), "").unwrap();
        let error = make(&base.join("file/sameport")).unwrap_err().to_string();
        assert!(error.ends_with("file is not a folder"), "{error}");
    }

    #[test]
    fn folders_of_other_users_are_refused() {
        if me() != 0 {
            return;
        }
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        let give = |path: &Path| std::os::unix::fs::lchown(path, Some(4242), Some(4242)).unwrap();
        fs::create_dir(base.join("theirs")).unwrap();
        give(&base.join("theirs"));
        fs::create_dir(base.join("ours")).unwrap();
        symlink("ours", base.join("link")).unwrap();
        give(&base.join("link"));
        for way in ["theirs", "link"] {
            let made = make(&base.join(way).join("sameport"));
            assert!(matches!(made, Err(FolderError::Foreign { owner: 4242, .. })), "{way}: {made:?}");
        }
        let made = make(&base.join("theirs"));
        assert!(matches!(made, Err(FolderError::Foreign { .. })), "{made:?}");
        assert!(!base.join("ours/sameport").exists() && !base.join("theirs/sameport").exists());
    }
}
