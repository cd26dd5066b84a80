//! Names and numbers that identify things, each with a type of its own.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A name that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` cannot be a {kind} name: {rule}")]
pub struct NameError {
    /// What was given.
    pub name: String,
    /// What it should have named.
    pub kind: &'static str,
    /// The rule it breaks, as a sentence.
    pub rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $valid:expr, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// When the name breaks Compose's rule for it.
            pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
                let name = name.into();
                let valid: fn(&str) -> bool = $valid;
                if valid(&name) { Ok(Self(name)) } else { Err(NameError { name, kind: $kind, rule: $rule }) }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                Self::new(s)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(s: String) -> Result<Self, NameError> {
                Self::new(s)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
    };
}

fn starts_alphanumeric(s: &str) -> bool {
    s.chars().next().is_some_and(|c| c.is_ascii_alphanumeric())
}

name!(
    /// Compose's project name: what every container, network and volume of ours begins with.
    ProjectName,
    "project",
    |s| {
        s.len() <= 63
            && s.chars().next().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
            && s.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_')
    },
    "use up to 63 lower-case letters, digits, `-` and `_`, starting with a letter or digit"
);

name!(
    /// The key of an entry under `services:`.
    ServiceName,
    "service",
    |s| starts_alphanumeric(s) && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)),
    "use letters, digits, `.`, `-` and `_`, starting with a letter or digit"
);

name!(
    /// Names the namespaces that replicas share; the service's own name unless it asks for another.
    PodName,
    "pod",
    |s| starts_alphanumeric(s) && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)),
    "use letters, digits, `.`, `-` and `_`, starting with a letter or digit"
);

impl From<&ServiceName> for PodName {
    /// The pod that a service has for itself: both follow the same rule.
    fn from(service: &ServiceName) -> Self {
        Self(service.0.clone())
    }
}

/// The number of a replica within its service, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(u32);

impl Slot {
    /// The first one.
    pub const FIRST: Self = Self(1);

    /// The slot with this number; `None` for 0, since slots count from 1.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        (number > 0).then_some(Self(number))
    }

    /// The slots 1 to `count`.
    pub fn first(count: u32) -> impl DoubleEndedIterator<Item = Self> {
        (1..=count).map(Self)
    }

    /// Its number, from 1.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_names_follow_compose() {
        for (name, valid) in [
            ("web", true),
            ("my-app_2", true),
            ("2048", true),
            ("", false),
            ("-web", false),
            ("Web", false),
            ("a b", false),
        ] {
            assert_eq!(ProjectName::new(name).is_ok(), valid, "{name:?}");
        }
    }

    #[test]
    fn slots_count_from_one() {
        assert_eq!(Slot::new(0), None);
        assert_eq!(Slot::first(3).map(Slot::number).collect::<Vec<_>>(), [1, 2, 3]);
    }
}
