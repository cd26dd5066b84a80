//! What travels over the control socket besides requests and replies.

use serde::{Deserialize, Serialize};

use crate::supervisor::Event;

/// Where requests go.
pub const REQUEST: &str = "/v2/request";
/// Where events come from.
pub const EVENTS: &str = "/v2/events";

/// A line of the stream of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "line")]
pub enum Line {
    /// Something that had happened before the stream began.
    Past(Event),
    /// Something that has just happened.
    Now(Event),
    /// The reader was too slow, and so many events are lost to it.
    Missed {
        /// How many.
        events: u64,
    },
}
