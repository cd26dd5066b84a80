//! The forms in which services and pods are hashed and kept: explicit types whose JSON is a contract, whatever the
//! types of [`spec`](super) are called and hold.
//!
//! A [`Generation`](super::Generation) is the hash of a form ([`VersionForm`], [`PodForm`], [`DeclaredForm`]), and
//! running containers carry it in their labels: a form that changes restarts the containers of everybody who upgrades. The
//! state file keeps a [`ServiceForm`] of each version. `docs/reference/generation.md` describes what is hashed.
//!
//! The rule for a field that is new in `spec` (it does not compile until somebody decides, since conversions name all):
//!
//! - It is appended at the end of its form, never put between others: order is part of the hash.
//! - At its default it is left out, by `#[serde(default, skip_serializing_if = "…")]`: a service that does not use it has the
//!   hash that it had before, and a form that was written before can still be read.
//! - Nothing is ever renamed, moved, taken away, or written in another way.
//!
//! `hashes.txt` pins the hash of each field. Lines are added to it, and none is changed.

mod container;
mod hook;
mod pod;
mod policy;
mod service;
#[cfg(test)]
mod tests;
mod version;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use container::ContainerForm;
pub use hook::HooksForm;
pub use pod::{PodForm, ProtocolForm};
pub use service::ServiceForm;
pub use version::{DeclaredForm, VersionForm};

use super::NameError;

/// A form that a [`Generation`](super::Generation) can be the hash of. No type of `spec` is one.
pub trait Hashed: Serialize {}

/// What was written in a form cannot be a value of `spec`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// A name breaks the rule for it.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Replicas count from 1.
    #[error("0 is not a replica number: they start at 1")]
    Slot,
}

/// The form of a [`Duration`]: whole seconds, and what is left in billionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DurationForm {
    secs: u64,
    nanos: u32,
}

impl From<Duration> for DurationForm {
    fn from(duration: Duration) -> Self {
        Self { secs: duration.as_secs(), nanos: duration.subsec_nanos() }
    }
}

impl From<DurationForm> for Duration {
    fn from(DurationForm { secs, nanos }: DurationForm) -> Self {
        // A file may hold any number, and a sum must not overflow.
        Self::from_secs(secs).saturating_add(Self::from_nanos(nanos.into()))
    }
}
