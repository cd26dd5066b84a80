//! The stored form of a version's failure.
//!
//! A new variant requires a new version of the file, because an older release could not read it.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    kernel::steering::OtherUser,
    plan::{
        ExclusivePort, Failure, FailureReason, LastTermination, OutOfReach, PortNotShared, status::ExitStatus,
    },
    spec::{
        Image, Slot,
        form::{FormError, ProtocolForm},
    },
};

/// The stored form of a [`Failure`]: the keys of the reason are next to `slot`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FailureForm {
    slot: u32,
    #[serde(flatten)]
    reason: ReasonForm,
}

impl From<&Failure> for FailureForm {
    fn from(Failure { slot, reason }: &Failure) -> Self {
        Self { slot: slot.number(), reason: reason.into() }
    }
}

impl TryFrom<FailureForm> for Failure {
    type Error = FormError;

    fn try_from(FailureForm { slot, reason }: FailureForm) -> Result<Self, FormError> {
        Ok(Self { slot: Slot::new(slot).ok_or(FormError::Slot)?, reason: reason.into() })
    }
}

/// The stored form of a [`FailureReason`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason")]
enum ReasonForm {
    #[serde(rename = "ended")]
    Ended {
        #[serde(rename = "autopsy")]
        last_termination: Box<LastTerminationForm>,
    },
    #[serde(rename = "refused")]
    Refused { error: String },
    #[serde(rename = "job")]
    Job { error: String },
    #[serde(rename = "unhealthy")]
    Unhealthy,
    #[serde(rename = "listens_elsewhere")]
    ListensElsewhere {
        wanted: Vec<u16>,
        found: Vec<u16>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        out_of_reach: Option<SocketAddr>,
    },
    #[serde(rename = "too_slow")]
    TooSlow { seconds: u64 },
    #[serde(rename = "ill")]
    Ill { why: String },
    #[serde(rename = "resets")]
    Resets { reset: u64, connections: u64, old_reset: u64, old_connections: u64 },
    #[serde(rename = "overflows")]
    Overflows { overflowed: u64, connections: u64 },
    #[serde(rename = "queues")]
    Queues { waiting: u64, old_waiting: u64 },
    #[serde(rename = "other_user")]
    OtherUser { other: OtherUserForm },
}

impl From<&FailureReason> for ReasonForm {
    fn from(reason: &FailureReason) -> Self {
        match reason.clone() {
            FailureReason::Ended { last_termination } => {
                Self::Ended { last_termination: Box::new((*last_termination).into()) }
            }
            FailureReason::Refused { error } => Self::Refused { error },
            FailureReason::Job { error } => Self::Job { error },
            FailureReason::Unhealthy => Self::Unhealthy,
            FailureReason::ListensElsewhere { wanted, found, out_of_reach } => {
                let out_of_reach = out_of_reach.map(|OutOfReach { address }| address);
                Self::ListensElsewhere { wanted, found, out_of_reach }
            }
            FailureReason::TooSlow { seconds } => Self::TooSlow { seconds },
            FailureReason::Ill { why } => Self::Ill { why },
            FailureReason::Resets { reset, connections, old_reset, old_connections } => {
                Self::Resets { reset, connections, old_reset, old_connections }
            }
            FailureReason::Overflows { overflowed, connections } => {
                Self::Overflows { overflowed, connections }
            }
            FailureReason::Queues { waiting, old_waiting } => Self::Queues { waiting, old_waiting },
            FailureReason::OtherUser { other } => Self::OtherUser { other: other.into() },
        }
    }
}

impl From<ReasonForm> for FailureReason {
    fn from(form: ReasonForm) -> Self {
        match form {
            ReasonForm::Ended { last_termination } => {
                Self::Ended { last_termination: Box::new((*last_termination).into()) }
            }
            ReasonForm::Refused { error } => Self::Refused { error },
            ReasonForm::Job { error } => Self::Job { error },
            ReasonForm::Unhealthy => Self::Unhealthy,
            ReasonForm::ListensElsewhere { wanted, found, out_of_reach } => {
                let out_of_reach = out_of_reach.map(|address| OutOfReach { address });
                Self::ListensElsewhere { wanted, found, out_of_reach }
            }
            ReasonForm::TooSlow { seconds } => Self::TooSlow { seconds },
            ReasonForm::Ill { why } => Self::Ill { why },
            ReasonForm::Resets { reset, connections, old_reset, old_connections } => {
                Self::Resets { reset, connections, old_reset, old_connections }
            }
            ReasonForm::Overflows { overflowed, connections } => Self::Overflows { overflowed, connections },
            ReasonForm::Queues { waiting, old_waiting } => Self::Queues { waiting, old_waiting },
            ReasonForm::OtherUser { other } => Self::OtherUser { other: other.into() },
        }
    }
}

/// The stored form of a [`LastTermination`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LastTerminationForm {
    exit: ExitForm,
    log: Vec<String>,
    port_not_shared: Option<PortNotSharedForm>,
    #[serde(default)]
    other_user: Option<OtherUserForm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exclusive_port: Option<ExclusivePortForm>,
}

impl From<LastTermination> for LastTerminationForm {
    fn from(
        LastTermination { exit, log, port_not_shared, other_user, exclusive_port }: LastTermination,
    ) -> Self {
        Self {
            exit: exit.into(),
            log,
            port_not_shared: port_not_shared.map(PortNotSharedForm::from),
            other_user: other_user.map(OtherUserForm::from),
            exclusive_port: exclusive_port.map(ExclusivePortForm::from),
        }
    }
}

impl From<LastTerminationForm> for LastTermination {
    fn from(
        LastTerminationForm { exit, log, port_not_shared, other_user, exclusive_port }: LastTerminationForm,
    ) -> Self {
        Self {
            exit: exit.into(),
            log,
            port_not_shared: port_not_shared.map(PortNotShared::from),
            other_user: other_user.map(OtherUser::from),
            exclusive_port: exclusive_port.map(ExclusivePort::from),
        }
    }
}

/// The stored form of an [`ExitStatus`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ExitForm {
    code: i64,
    out_of_memory: bool,
    error: Option<String>,
    at: Timestamp,
}

impl From<ExitStatus> for ExitForm {
    fn from(ExitStatus { code, out_of_memory, error, at }: ExitStatus) -> Self {
        Self { code, out_of_memory, error, at }
    }
}

impl From<ExitForm> for ExitStatus {
    fn from(ExitForm { code, out_of_memory, error, at }: ExitForm) -> Self {
        Self { code, out_of_memory, error, at }
    }
}

/// The stored form of a [`PortNotShared`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PortNotSharedForm {
    image: String,
    port: Option<u16>,
}

impl From<PortNotShared> for PortNotSharedForm {
    fn from(PortNotShared { image: Image(image), port }: PortNotShared) -> Self {
        Self { image, port }
    }
}

impl From<PortNotSharedForm> for PortNotShared {
    fn from(PortNotSharedForm { image, port }: PortNotSharedForm) -> Self {
        Self { image: Image(image), port }
    }
}

/// The stored form of an [`OtherUser`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OtherUserForm {
    port: u16,
    user: u32,
    owner: u32,
}

impl From<OtherUser> for OtherUserForm {
    fn from(OtherUser { port, user, owner }: OtherUser) -> Self {
        Self { port, user, owner }
    }
}

impl From<OtherUserForm> for OtherUser {
    fn from(OtherUserForm { port, user, owner }: OtherUserForm) -> Self {
        Self { port, user, owner }
    }
}

/// The stored form of an [`ExclusivePort`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ExclusivePortForm {
    port: u16,
    protocol: ProtocolForm,
}

impl From<ExclusivePort> for ExclusivePortForm {
    fn from(ExclusivePort { port, protocol }: ExclusivePort) -> Self {
        Self { port, protocol: protocol.into() }
    }
}

impl From<ExclusivePortForm> for ExclusivePort {
    fn from(ExclusivePortForm { port, protocol }: ExclusivePortForm) -> Self {
        Self { port, protocol: protocol.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unreachable_address_of_a_failure_is_optional() {
        let out_of_reach = Some(OutOfReach { address: "127.0.0.1:80".parse().unwrap() });
        for out_of_reach in [None, out_of_reach] {
            let reason = FailureReason::ListensElsewhere { wanted: vec![80], found: vec![80], out_of_reach };
            let form = serde_json::to_value(ReasonForm::from(&reason)).unwrap();
            assert_eq!(form.get("out_of_reach").is_some(), out_of_reach.is_some());
            assert_eq!(FailureReason::from(serde_json::from_value::<ReasonForm>(form).unwrap()), reason);
        }
    }
}
