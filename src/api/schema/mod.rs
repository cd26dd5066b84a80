//! The public schema: every type that sameport prints as JSON, on the control socket and with `--format json`.
//!
//! Scripts depend on these types, so they are separate from the types of the planner and the supervisor;
//! `super::convert` is the only place that maps one to the other. `docs/schema/` holds the JSON Schema of each
//! document; a test generates it from these types and compares. Rules:
//!
//! - Keys are snake_case. Within one [`VERSION`], a key never changes its meaning and is never removed. Keys can be
//!   added, so readers must ignore unknown keys.
//! - Times are RFC 3339 in UTC, durations are in seconds, sizes in bytes.
//! - A replica is named `web-1` everywhere. Its container has a different name: `shop-web-1`.
//! - No document contains values of environment variables or secrets, except with `--show-env`.

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

/// The version of all documents. It increases only when a key changes its meaning or is removed.
pub const VERSION: u32 = 1;
