//! Which engine it is.

use serde::{Deserialize, Serialize};

/// Which engine it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineIdentity {
    /// Where it was reached: the same engine may be reached in several ways.
    pub address: String,
    /// What tells it from all others, however it is reached.
    pub id: Option<String>,
}

impl EngineIdentity {
    /// Whether it is certainly not that one. An engine that was installed anew has another id at the same address: what was
    /// known of the one before is of it.
    #[must_use]
    pub fn is_other_than(&self, that: &Self) -> bool {
        self.address != that.address && self.id.is_some() && that.id.is_some() && self.id != that.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_another_one_if_both_its_address_and_its_id_are() {
        let engine = |address: &str, id: Option<&str>| EngineIdentity {
            address: address.to_owned(),
            id: id.map(str::to_owned),
        };
        let here = engine("unix:///run/docker.sock", Some("A"));
        for (case, that, is_other) in [
            ("the same", here.clone(), false),
            ("the same, reached in another way", engine("tcp://here", Some("A")), false),
            ("installed anew", engine("unix:///run/docker.sock", Some("B")), false),
            ("does not tell", engine("tcp://there", None), false),
            ("another one", engine("tcp://there", Some("B")), true),
        ] {
            assert_eq!(here.is_other_than(&that), is_other, "{case}");
            assert_eq!(that.is_other_than(&here), is_other, "{case}");
        }
    }
}
