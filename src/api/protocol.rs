//! Paths and response types of the control socket.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::{Event, Preview, Rejection, Status};

/// `POST`: takes a request.
pub const REQUEST: &str = "/v3/request";
/// `GET`: streams events, the history first.
pub const EVENTS: &str = "/v3/events";
/// `GET`: returns the events so far.
pub const HISTORY: &str = "/v3/history";

/// The reply of a supervisor to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "reply")]
pub enum Reply {
    /// The request is part of the desired state now; events report its progress.
    Accepted,
    /// The status of the project.
    Status(Box<Status>),
    /// The effect that the request would have.
    Preview(Box<Preview>),
    /// The request is rejected; nothing changed.
    Rejected(Rejection),
}

/// A line of the event stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "source")]
pub enum Line {
    /// An event from before the stream started.
    History(Event),
    /// A new event.
    Live(Event),
    /// The reader was too slow, and events were dropped.
    Missed {
        /// The number of dropped events.
        events: u64,
    },
}
