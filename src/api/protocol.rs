//! What travels over the control socket besides requests.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::{Event, Preview, Rejection, Status};

/// Where requests go.
pub const REQUEST: &str = "/v3/request";
/// Where events come from.
pub const EVENTS: &str = "/v3/events";
/// Where the events so far come from.
pub const HISTORY: &str = "/v3/history";

/// What a supervisor answers to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "reply")]
pub enum Reply {
    /// It is wanted now; events tell how it goes.
    Accepted,
    /// The status of the project.
    Status(Box<Status>),
    /// What would be done.
    Preview(Box<Preview>),
    /// It is refused, and nothing has changed.
    Rejected(Rejection),
}

/// A line of the stream of events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "source")]
pub enum Line {
    /// Something that had happened before the stream began.
    History(Event),
    /// Something that has just happened.
    Live(Event),
    /// The reader was too slow, and so many events are lost to it.
    Missed {
        /// How many.
        events: u64,
    },
}
