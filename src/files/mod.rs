//! The files that a project is read from, and changes of them.
//!
//! The input is every path that was looked at, including missing ones. The output is [`Watch::changed`], once the
//! content at one of them differs, whether it was rewritten, replaced by a rename, or reached through another symbolic
//! link.

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
pub const MAX_FILE_BYTES: u64 = 2 << 20;

/// Paths, each with a digest of its content, or without one if no file could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<PathBuf, Option<Digest>>);

type Digest = [u8; 32];

impl Files {
    /// The current contents of these paths.
    #[must_use]
    pub fn at(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(paths.into_iter().map(|path| (path.clone(), now_at(&path))).collect())
    }

    /// Notes the content of a file, or that it does not exist. Only the first note of a path counts, so that a change
    /// between two reads is detected.
    pub fn note(&mut self, path: &Path, content: Option<&[u8]>) {
        self.0.entry(path.to_owned()).or_insert_with(|| content.map(digest));
    }

    /// Whether the current content of any path differs.
    #[must_use]
    pub fn have_changed(&self) -> bool {
        self.0.iter().any(|(path, then)| now_at(path) != *then)
    }

    /// A digest of the paths and contents of all existing files.
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

    /// A path that can be read only once, if any: standard input or a pipe.
    fn stream(&self) -> Option<&Path> {
        let is_pipe = |path: &Path| path.metadata().is_ok_and(|data| data.file_type().is_fifo());
        self.paths().find(|path| path.as_os_str() == "-" || is_pipe(path))
    }
}

fn digest(content: &[u8]) -> Digest {
    Sha256::digest(content).into()
}

fn now_at(path: &Path) -> Option<Digest> {
    // Opening a pipe would block until a program writes to it.
    if !path.is_file() {
        return None;
    }
    let mut content = Vec::new();
    File::open(path).ok()?.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).ok()?;
    Some(digest(&content))
}
