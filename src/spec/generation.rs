//! Which version of a spec something runs: a short hash of the spec.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Twelve hexadecimal digits, equal exactly when the specs are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(String);

impl Generation {
    /// The generation of any part of a spec.
    pub(super) fn of(spec: &impl Serialize) -> Self {
        let mut hasher = Sha256::new();
        // Writing to a hasher cannot fail, and no type of `spec` has a map key that JSON lacks; were it ever
        // otherwise, what was hashed so far still tells specs apart.
        let _ = serde_json::to_writer(HashWriter(&mut hasher), spec);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_specs_have_equal_generations() {
        assert_eq!(Generation::of(&("a", 1)), Generation::of(&("a", 1)));
        assert_ne!(Generation::of(&("a", 1)), Generation::of(&("a", 2)));
        assert_eq!(Generation::of(&"a").as_str().len(), 12);
    }
}
