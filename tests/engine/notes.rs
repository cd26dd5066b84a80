//! A folder of the host in which containers write down what they do, in order.

use std::fs;

use tempfile::TempDir;

use super::support::wait::{self, check};

/// The folder, which a Compose file has as `/notes` in its containers.
pub struct Notes(TempDir);

impl Notes {
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("spn").tempdir_in("/tmp").unwrap())
    }

    /// `OUT` in a Compose file becomes the entry that mounts the folder.
    pub fn mounted_in(&self, compose: &str) -> String {
        compose.replace("OUT", &format!("[\"{}:/notes\"]", self.0.path().display()))
    }

    /// All that was written down so far.
    pub fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.0.path().join("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until exactly that was written down.
    pub fn are(&self, wanted: &[&str]) {
        wait::until(&format!("{wanted:?} is written down"), || {
            let lines = self.lines();
            check(lines == wanted, &lines)
        });
    }
}
