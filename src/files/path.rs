//! Resolves paths into the directory entries that determine where they lead.

use std::{
    collections::VecDeque,
    ffi::OsString,
    path::{Component, Path, PathBuf},
};

/// The kernel's limit of symbolic links in one path.
const MOST_LINKS: usize = 40;

/// A directory entry that a path leads through.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Step {
    /// The directory; its path contains no symbolic links.
    pub folder: PathBuf,
    /// The name of the entry.
    pub name: OsString,
    /// The type of the entry.
    pub kind: Kind,
}

/// The type of a directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A directory within the path.
    Folder,
    /// The end of the path, a symbolic link, or a missing entry: these are replaced when a file changes.
    Other,
}

/// All directory entries that an absolute path leads through, including those of symbolic links, up to the first
/// missing one.
pub(super) fn steps(path: &Path) -> Vec<Step> {
    let mut found = Vec::new();
    let mut ahead: VecDeque<OsString> = parts(path);
    let mut folder = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            folder.pop();
            continue;
        }
        let entry = folder.join(&name);
        let target = entry.read_link().ok();
        let is_folder = target.is_none() && entry.is_dir();
        let kind = if is_folder && !ahead.is_empty() { Kind::Folder } else { Kind::Other };
        found.push(Step { folder: folder.clone(), name, kind });
        match target {
            Some(target) if links < MOST_LINKS => {
                links += 1;
                if target.is_absolute() {
                    folder = PathBuf::from("/");
                }
                parts(&target).into_iter().rev().for_each(|part| ahead.push_front(part));
            }
            None if is_folder => folder = entry,
            // A file, a missing entry, or a loop of symbolic links.
            _ => break,
        }
    }
    found
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
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    /// The steps within the directory of the test.
    fn below(base: &Path, path: &str) -> Vec<String> {
        let steps = steps(&base.join(path));
        let paths = steps.into_iter().map(|step| step.folder.join(step.name));
        let inside = paths.filter_map(|path| Some(path.strip_prefix(base).ok()?.display().to_string()));
        inside.filter(|path| !path.is_empty()).collect()
    }

    #[test]
    fn every_link_on_the_way_is_a_step() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("v1/deep")).unwrap();
        fs::write(base.join("v1/file"), "").unwrap();
        for (target, link) in
            [("v1", "now"), ("now/file", "file"), ("../v1/file", "v1/up"), ("me", "me"), ("gone/x", "lost")]
        {
            symlink(target, base.join(link)).unwrap();
        }
        symlink(base.join("v1/file"), base.join("absolute")).unwrap();
        for (path, expected) in [
            ("v1/file", &["v1", "v1/file"][..]),
            ("file", &["file", "now", "v1", "v1/file"]),
            ("v1/up", &["v1", "v1/up", "v1", "v1/file"]),
            ("absolute", &["absolute", "v1", "v1/file"]),
            ("none/such/file", &["none"]),
            ("v1/file/below", &["v1", "v1/file"]),
            ("lost", &["lost", "gone"]),
        ] {
            assert_eq!(below(&base, path), expected, "{path}");
        }
        assert_eq!(below(&base, "me").len(), MOST_LINKS + 1);
    }
}
