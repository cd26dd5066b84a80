//! The list of schema documents and the commands or paths that print them.

use schemars::{JsonSchema, Schema, generate::SchemaSettings};

use super::{
    AppliedWeight, Check, Config, ErrorReport, Event, LogRecord, Preview, ProjectSummary, Replica, Revision,
    RolloutStatus, SentSignal, Status, VERSION, Version,
};
use crate::api::protocol::{Line, Reply};

/// A JSON document with its schema.
pub struct Document {
    /// The file name without `.json`.
    pub name: &'static str,
    /// The command that prints it, in Markdown.
    pub printed_by: &'static str,
    /// The JSON Schema (draft 2020-12).
    pub schema: Schema,
}

/// All documents. Where a command prints a list, the schema describes one element.
#[must_use]
pub fn documents() -> Vec<Document> {
    vec![
        document::<Status>("status", "`status`"),
        document::<Replica>("replica", "`ps`, one a line"),
        document::<Event>("event", "`events` and commands that act, one a line"),
        document::<ErrorReport>("error", "any command that fails, on standard error"),
        document::<Preview>("preview", "`--dry-run`"),
        document::<RolloutStatus>("rollout-status", "`rollout status`"),
        document::<Revision>("revision", "`rollout history`, an array of them"),
        document::<Config>("config", "`config`"),
        document::<ProjectSummary>("project", "`ls`, an array of them"),
        document::<Check>("check", "`doctor`, an array of them"),
        document::<Version>("version", "`version`"),
        document::<LogRecord>("log-record", "`logs`, one a line"),
        document::<SentSignal>("signal", "`kill`, one a line"),
        document::<AppliedWeight>("weight", "`weight` and `drain`, one a line"),
        document::<Reply>("reply", "the control socket, to a request"),
        document::<Line>("line", "the control socket, one a line of its events"),
    ]
}

fn document<T: JsonSchema>(name: &'static str, printed_by: &'static str) -> Document {
    let mut schema =
        SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>();
    schema.insert("$id".to_owned(), format!("urn:sameport:schema:{VERSION}:{name}").into());
    Document { name, printed_by, schema }
}
