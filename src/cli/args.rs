//! Argument types that several commands share.

use std::{str::FromStr, time::Duration};

use sameport::spec::ServiceName;

/// A replica count, written as `SERVICE=N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScaleArg {
    pub service: ServiceName,
    /// The desired number of replicas; 0 is valid.
    pub replicas: u32,
}

impl FromStr for ScaleArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (service, number) = text.split_once('=').ok_or("write SERVICE=N, such as web=4")?;
        let replicas = number.parse().map_err(|_| format!("invalid replica count `{number}`"))?;
        Ok(Self { service: service.parse().map_err(|e| format!("{e}"))?, replicas })
    }
}

/// Parses a duration such as `10s` or `1m30s`. A bare number is in seconds, as for `docker compose`.
pub fn time(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let parsed: jiff::SignedDuration =
        text.parse().map_err(|_| format!("`{text}` is no time; write for example 10s or 1m30s"))?;
    Duration::try_from(parsed).map_err(|_| "a time cannot be negative".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_or_are_seconds() {
        assert_eq!(time("10"), Ok(Duration::from_secs(10)));
        assert_eq!(time("1m30s"), Ok(Duration::from_secs(90)));
        assert!(time("soon").is_err() && time("-1s").is_err());
    }
}
