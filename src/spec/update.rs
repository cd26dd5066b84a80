//! How a service is brought to another version (`deploy.update_config`, `deploy.rollback_config`).

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::Image;

/// The rules for replacing replicas by those of another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// How many slots are under way at once; 0 is all.
    pub parallelism: u32,
    /// Between the end of one slot and the beginning of the next.
    pub delay: Duration,
    /// Which of the two comes first; `None`: what the service is decides, see [`crate::plan::replacement_order`].
    pub order: Option<Order>,
    /// How long a new replica is watched once it is ready. Only then the old one goes.
    pub monitor: Duration,
    /// More failed slots than that share of all, and the failure action follows.
    pub max_failure_ratio: Share,
    /// What follows.
    pub failure_action: FailureAction,
    /// How long a new replica may take to get ready.
    pub deadline: Duration,
    /// How many of the new version's connections may end badly, besides twice as many as of the old version's do.
    pub budget: Share,
}

impl Update {
    /// How long a new replica is watched when the file does not say: Docker's five seconds.
    pub const MONITOR: Duration = Duration::from_secs(5);
    /// How long a new replica may take to get ready when the file does not say: that of Kubernetes.
    pub const DEADLINE: Duration = Duration::from_secs(600);
    /// How many connections may end badly when the file does not say: one in a hundred.
    pub const BUDGET: Share = Share(10);
}

impl Default for Update {
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: Duration::ZERO,
            order: None,
            monitor: Self::MONITOR,
            max_failure_ratio: Share::NONE,
            failure_action: FailureAction::default(),
            deadline: Self::DEADLINE,
            budget: Self::BUDGET,
        }
    }
}

/// Whether the old replica of a slot goes before its successor comes, or after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The new one comes first: at no time there are fewer than wanted.
    StartFirst,
    /// The old one goes first: at no time there are more than wanted.
    StopFirst,
}

/// What follows when a new version fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureAction {
    /// Everything goes back to the version before. Compose's own default is `pause`: half of the one and half of the
    /// other is what nobody wants who is asleep.
    #[default]
    Rollback,
    /// Nothing more is replaced until somebody says how to go on.
    Pause,
    /// The other slots are replaced all the same.
    Continue,
}

/// A part of a whole, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Share(u16);

impl Share {
    /// Nothing of it.
    pub const NONE: Self = Self(0);
    /// The whole.
    pub const ALL: Self = Self(1000);

    /// So many thousandths, from 0 to 1000.
    #[must_use]
    pub fn of_thousand(number: u16) -> Option<Self> {
        (number <= 1000).then_some(Self(number))
    }

    /// A share as people write it: `10%`, `10` (of a hundred), `0.5%`.
    #[must_use]
    pub fn from_percent(text: &str) -> Option<Self> {
        let number: f64 = text.trim().trim_end_matches('%').trim_end().parse().ok()?;
        Self::from_ratio(number / 100.0)
    }

    /// A share as a number from 0 to 1.
    #[must_use]
    pub fn from_ratio(ratio: f64) -> Option<Self> {
        if !(0.0..=1.0).contains(&ratio) {
            return None;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 0 to 1000")]
        Self::of_thousand((ratio * 1000.0).round() as u16)
    }

    /// In thousandths.
    #[must_use]
    pub fn thousandths(self) -> u16 {
        self.0
    }

    /// How many of `all` that is, if none may be too little: rounded up.
    #[must_use]
    pub fn of(self, all: u32) -> u32 {
        let share = u64::from(all) * u64::from(self.0);
        u32::try_from(share.div_ceil(1000)).unwrap_or(all)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 10 {
            0 => write!(f, "{} %", self.0 / 10),
            tenth => write!(f, "{}.{tenth} %", self.0 / 10),
        }
    }
}

/// Another image that gets a part of the traffic, as long as the file says so (`x-sameport.canary`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// Which one.
    pub image: Image,
    /// What it meant when it was first used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// How much of the new connections it gets.
    pub share: Share,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_as_people_write_them() {
        for (text, wanted) in [
            ("10%", Some(100)),
            ("10", Some(100)),
            ("0.5 %", Some(5)),
            ("100", Some(1000)),
            ("101", None),
            ("-1", None),
            ("NaN", None),
            ("ten", None),
        ] {
            assert_eq!(Share::from_percent(text).map(Share::thousandths), wanted, "{text}");
        }
        assert_eq!(Share::from_percent("12.5%").unwrap().to_string(), "12.5 %");
        assert_eq!(Share::ALL.to_string(), "100 %");
    }

    #[test]
    fn a_share_of_a_few_is_one_at_least() {
        let tenth = Share::of_thousand(100).unwrap();
        assert_eq!([0, 1, 4, 10, 11].map(|all| tenth.of(all)), [0, 1, 1, 1, 2]);
        assert_eq!(Share::NONE.of(7), 0);
        assert_eq!(Share::ALL.of(7), 7);
    }
}
