//! Which version of the control protocol a supervisor speaks, and how one of another version is asked to leave.
//!
//! [`VERSION`] and [`DETACH`] stay as they are in every release: by them a command of one release can replace a supervisor
//! of another one.

use std::cmp::Ordering;

use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::{Client, ClientError, client::answered};
use crate::engine::EngineIdentity;

/// The version of the protocol that this release speaks: of the paths in [`protocol`](super::protocol), and of all that
/// travels there. One that changes so that the release before would not understand it gets the next number.
pub const PROTOCOL: u32 = 3;

/// `GET` tells a supervisor's [`Version`]. Supervisors of protocol 1 do not have it.
pub const VERSION: &str = "/version";
/// `POST` has a supervisor end and leave everything running. Supervisors of protocol 1 do not have it.
pub const DETACH: &str = "/detach";

/// Where supervisors of protocol 1 take requests.
const REQUEST_1: &str = "/v1/request";

/// What a supervisor is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The version of the control protocol that it speaks.
    pub protocol: u32,
    /// Its release, such as `0.1.0`; releases that spoke protocol 1 did not tell.
    #[serde(default)]
    pub release: Option<String>,
    /// Which engine its project is on; earlier releases did not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Box<EngineIdentity>>,
}

/// A supervisor, seen from a command of this release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It understands us.
    Same,
    /// It understands us, and is of an older release.
    OlderRelease,
    /// It is of an older release, and does not understand us.
    OlderProtocol,
    /// It is of a newer release, and does not understand us.
    NewerProtocol,
}

impl Version {
    /// That of this release.
    #[must_use]
    pub fn own() -> Self {
        Self { protocol: PROTOCOL, release: Some(env!("CARGO_PKG_VERSION").to_owned()), engine: None }
    }

    /// How a supervisor of this version stands to this release.
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

/// The numbers of a release, without what may stand behind them: `0.2.1-rc.1` is 0, 2, 1.
fn numbers(release: &str) -> Vec<u32> {
    let numbers = release.split(['-', '+']).next().unwrap_or_default();
    numbers.split('.').map_while(|number| number.parse().ok()).collect()
}

impl Client {
    /// Which version the supervisor is.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn version(&self) -> Result<Version, ClientError> {
        let response = self.send(Method::GET, VERSION, Vec::new()).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(Version { protocol: 1, release: None, engine: None });
        }
        let text = answered(response).await?;
        serde_json::from_slice(&text).map_err(|e| ClientError::Misunderstood(e.to_string()))
    }

    /// Has a supervisor of any version end and leave everything running. It may take a moment after the answer.
    ///
    /// # Errors
    /// When it does not answer, or refuses.
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
    fn a_version_may_tell_more_than_we_know() {
        let version: Version =
            serde_json::from_str(r#"{"protocol": 7, "release": "3.0.0", "features": []}"#).unwrap();
        assert_eq!(version, Version { protocol: 7, release: Some("3.0.0".to_owned()), engine: None });
    }
}
