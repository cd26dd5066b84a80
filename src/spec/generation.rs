//! Which version of a spec something runs: a short hash of its [form](super::form).

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::form::Hashed;

/// Twelve hexadecimal digits, equal exactly when the specs are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(String);

impl Generation {
    /// The generation of what has this form: the first six bytes of the SHA-256 of its JSON.
    pub(super) fn of(form: &impl Hashed) -> Self {
        let mut hasher = Sha256::new();
        // Writing to a hasher cannot fail, and no form has a map key that JSON lacks; were it ever otherwise, what
        // was hashed so far still tells specs apart.
        let _ = serde_json::to_writer(HashWriter(&mut hasher), form);
        let digest = hasher.finalize();
        Self(digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect())
    }

    /// The generation that a label names.
    #[must_use]
    pub fn from_label(label: impl Into<String>) -> Self {
        Self(label.into())
    }

    /// As a label has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
