//! The files that a project comes from: what was in them when it was read, and when that changes.
//!
//! In: every path that was looked at, also where nothing is. Out: [`Watch::changed`], once one of them has another
//! content, however that came: written anew, put in its place by renaming, at the other end of another link.

mod folders;
mod path;
mod watch;

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read as _,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

pub use watch::{Watch, WatchError};

/// The largest file that is read, in bytes.
pub const LARGEST: u64 = 2 << 20;

/// Paths, each with a digest of what was there; none where no file could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<PathBuf, Option<Digest>>);

type Digest = [u8; 32];

impl Files {
    /// What is at these paths now.
    #[must_use]
    pub fn at(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(paths.into_iter().map(|path| (path.clone(), now_at(&path))).collect())
    }

    /// Notes what was read from a file, or that there is none. What was found there first stays: where a later look
    /// finds something else, it changed meanwhile.
    pub fn note(&mut self, path: &Path, content: Option<&[u8]>) {
        self.0.entry(path.to_owned()).or_insert_with(|| content.map(digest));
    }

    /// Whether something else is there by now.
    #[must_use]
    pub fn have_changed(&self) -> bool {
        self.0.iter().any(|(path, then)| now_at(path) != *then)
    }

    /// One word for the files that were there, and for what was in them.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut all = Sha256::new();
        for (path, digest) in self.0.iter().filter_map(|(path, digest)| Some((path, digest.as_ref()?))) {
            all.update(Sha256::digest(path.as_os_str().as_encoded_bytes()));
            all.update(digest);
        }
        format!("{:x}", all.finalize())
    }

    fn paths(&self) -> impl Iterator<Item = &Path> + Clone {
        self.0.keys().map(PathBuf::as_path)
    }

    /// One that can be read only once, if there is one.
    fn stream(&self) -> Option<&Path> {
        let is_pipe = |path: &Path| path.metadata().is_ok_and(|data| data.file_type().is_fifo());
        self.paths().find(|path| path.as_os_str() == "-" || is_pipe(path))
    }
}

fn digest(content: &[u8]) -> Digest {
    Sha256::digest(content).into()
}

fn now_at(path: &Path) -> Option<Digest> {
    // To open a pipe would be to wait for who writes to it.
    if !path.is_file() {
        return None;
    }
    let mut content = Vec::new();
    File::open(path).ok()?.take(LARGEST + 1).read_to_end(&mut content).ok()?;
    Some(digest(&content))
}
