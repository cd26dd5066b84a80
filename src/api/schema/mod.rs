//! The public schema: every type that sameport prints as JSON, on the control socket and with `--format json`.
//!
//! What scripts rely on is here and nowhere else, apart from the types that plan and supervise. `super::convert` is the one
//! place that turns those into these. `docs/schema/` holds the JSON Schema of each document; a test makes it from these
//! types and compares. Rules:
//!
//! - Keys are snake_case. A key never changes its meaning and never goes within one [`VERSION`]; new keys may come, so a
//!   reader ignores those that it does not know.
//! - Times are RFC 3339 in UTC, durations are seconds, sizes are bytes.
//! - A replica is called `web-1` everywhere. Its container has a name of its own, `shop-web-1`.
//! - No document holds a value of the environment, or a secret, unless it was asked for with `--show-env`.

mod documents;
mod error;
mod event;
mod preview;
mod report;
mod rollout;
mod status;
mod target;
mod value;

pub use documents::{Document, documents};
pub use error::{ErrorReport, Rejection, RejectionCode};
pub use event::{Diagnostic, Event, EventKind, Level, RolloutPhase};
pub use preview::{Gap, Preview, ServiceOrder, Step};
pub use report::{
    AppliedWeight, Check, CheckLevel, Config, EngineVersion, ForeignKind, ForeignResource, LogRecord,
    ProjectSummary, SentSignal, SupervisorProcess, Version,
};
pub use rollout::{
    Failure, FailureCode, Order, OrderReason, Pinned, Reason, ReplacementOrder, Revision, RevisionState,
    Rollout, RolloutResult, RolloutStatus, Steps, Summary,
};
pub use status::{
    Counters, ErrorCondition, ExclusivePort, Exit, ForeignListener, Pod, PortConflict, PortTraffic, Replaced,
    Replica, ReplicaState, SharedFile, SharedFileKind, Sharing, Status, Termination, Traffic, UnservedPort,
    UserConflict, WaitingConnections, WaitingFor,
};
pub use target::{Action, Target, TargetKind, replica_name};
pub use value::{Seconds, Time};

/// The version of all documents. It changes only when a key changes its meaning or goes.
pub const VERSION: u32 = 1;
