//! Arguments that several commands take.

use std::{str::FromStr, time::Duration};

use sameport::{
    spec::{ServiceName, Slot},
    supervisor::Selector,
};

/// `SERVICE=N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// Which service.
    pub service: ServiceName,
    /// How many replicas.
    pub replicas: u32,
}

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (service, number) = text.split_once('=').ok_or("write SERVICE=N, such as web=4")?;
        let replicas = number.parse().map_err(|_| format!("`{number}` is no number of replicas"))?;
        Ok(Self { service: service.parse().map_err(|e| format!("{e}"))?, replicas })
    }
}

/// `SERVICE` or `SERVICE.N`.
pub fn selector(text: &str) -> Result<Selector, String> {
    // Names may have dots; a slot is a number behind the last one.
    if let Some((service, slot)) = text.rsplit_once('.')
        && let Ok(number) = slot.parse()
    {
        let slot = Slot::new(number).ok_or("replicas are counted from 1")?;
        return Ok(Selector { service: service.parse().map_err(|e| format!("{e}"))?, slot: Some(slot) });
    }
    Ok(Selector { service: text.parse().map_err(|e| format!("{e}"))?, slot: None })
}

/// A time such as `10s`, `1m30s`; a bare number is seconds, as for `docker compose`.
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
    fn a_replica_is_named_by_its_service_and_slot() {
        let of = |text| selector(text).map(|s| (s.service.to_string(), s.slot.map(Slot::number)));
        assert_eq!(of("web"), Ok(("web".to_owned(), None)));
        assert_eq!(of("web.2"), Ok(("web".to_owned(), Some(2))));
        assert_eq!(of("my.web.2"), Ok(("my.web".to_owned(), Some(2))));
        assert!(of("web.0").is_err());
    }

    #[test]
    fn times_have_units_or_are_seconds() {
        assert_eq!(time("10"), Ok(Duration::from_secs(10)));
        assert_eq!(time("1m30s"), Ok(Duration::from_secs(90)));
        assert!(time("soon").is_err() && time("-1s").is_err());
    }
}
