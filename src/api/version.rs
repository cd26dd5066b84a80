//! The version of the control protocol, and how a command stops a supervisor of another version.
//!
//! The paths [`VERSION`] and [`DETACH`] are the same in every release, so that a command of one release can replace a
//! supervisor of another.

use std::cmp::Ordering;

use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::{Client, ClientError, client::answered};
use crate::engine::EngineIdentity;

/// The protocol version of this release. It covers the paths in [`protocol`](super::protocol) and the data of their
/// requests and responses, and increases with every change that the previous release would not understand.
pub const PROTOCOL: u32 = 3;

/// `GET`: returns the [`Version`] of a supervisor. Supervisors of protocol 1 do not have this path.
pub const VERSION: &str = "/version";
/// `POST`: ends a supervisor and leaves everything running. Supervisors of protocol 1 do not have this path.
pub const DETACH: &str = "/detach";

/// The request path of protocol 1.
const REQUEST_1: &str = "/v1/request";

/// The version of a supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The version of the control protocol.
    pub protocol: u32,
    /// The release, such as `0.1.0`; `None` for releases that spoke protocol 1.
    #[serde(default)]
    pub release: Option<String>,
    /// The engine of its project; `None` for releases that do not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Box<EngineIdentity>>,
}

/// Compatibility of a supervisor with a command of this release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Same protocol, same or newer release.
    Same,
    /// Same protocol, older release.
    OlderRelease,
    /// Older protocol: the supervisor does not understand this release.
    OlderProtocol,
    /// Newer protocol: the supervisor does not understand this release.
    NewerProtocol,
}

impl Version {
    /// The version of this release.
    #[must_use]
    pub fn own() -> Self {
        Self { protocol: PROTOCOL, release: Some(env!("CARGO_PKG_VERSION").to_owned()), engine: None }
    }

    /// The compatibility of a supervisor of this version with this release.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self.protocol.cmp(&PROTOCOL) {
            Ordering::Less => Standing::OlderProtocol,
            Ordering::Greater => Standing::NewerProtocol,
            Ordering::Equal => {
                let own = numbers(env!("CARGO_PKG_VERSION"));
                let is_older = self.release.as_deref().is_some_and(|release| numbers(release) < own);
                if is_older { Standing::OlderRelease } else { Standing::Same }
            }
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.release {
            Some(release) => write!(f, "sameport {release}, control protocol {}", self.protocol),
            None => write!(f, "control protocol {}", self.protocol),
        }
    }
}

/// The numeric components of a release, without a pre-release or build suffix: `0.2.1-rc.1` is 0, 2, 1.
fn numbers(release: &str) -> Vec<u32> {
    let numbers = release.split(['-', '+']).next().unwrap_or_default();
    numbers.split('.').map_while(|number| number.parse().ok()).collect()
}

impl Client {
    /// Requests the version of the supervisor; protocol 1 if it has no version path.
    ///
    /// # Errors
    /// If the supervisor cannot be reached, or its reply cannot be parsed.
    pub async fn version(&self) -> Result<Version, ClientError> {
        let response = self.send(Method::GET, VERSION, Vec::new()).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(Version { protocol: 1, release: None, engine: None });
        }
        let text = answered(response).await?;
        serde_json::from_slice(&text).map_err(|e| ClientError::UnexpectedReply(e.to_string()))
    }

    /// Ends a supervisor of any version and leaves everything running. The process can take a moment to exit after the
    /// reply.
    ///
    /// # Errors
    /// If the supervisor cannot be reached, or refuses.
    pub async fn detach(&self, version: &Version) -> Result<(), ClientError> {
        let response = match version.protocol {
            ..=1 => self.send(Method::POST, REQUEST_1, b"\"detach\"".to_vec()).await?,
            _ => self.send(Method::POST, DETACH, Vec::new()).await?,
        };
        answered(response).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_decides_and_then_the_release() {
        let own = env!("CARGO_PKG_VERSION");
        for (protocol, release, wanted) in [
            (PROTOCOL, Some(own), Standing::Same),
            (PROTOCOL, Some("0.0.9"), Standing::OlderRelease),
            (PROTOCOL, Some("999.0.0"), Standing::Same),
            (PROTOCOL, None, Standing::Same),
            (1, None, Standing::OlderProtocol),
            (PROTOCOL - 1, Some(own), Standing::OlderProtocol),
            (PROTOCOL + 1, Some(own), Standing::NewerProtocol),
        ] {
            let version = Version { protocol, release: release.map(str::to_owned), engine: None };
            assert_eq!(version.standing(), wanted, "{version}");
        }
    }

    #[test]
    fn releases_are_compared_by_their_numbers() {
        assert!(numbers("0.9.1") < numbers("0.10.0"));
        assert!(numbers("0.9") < numbers("0.9.1"));
        assert_eq!(numbers("0.2.0-rc.1+abc"), [0, 2, 0]);
    }

    #[test]
    fn unknown_keys_of_a_version_are_ignored() {
        let version: Version =
            serde_json::from_str(r#"{"protocol": 7, "release": "3.0.0", "features": []}"#).unwrap();
        assert_eq!(version, Version { protocol: 7, release: Some("3.0.0".to_owned()), engine: None });
    }
}
