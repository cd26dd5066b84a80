//! What people see.

pub mod event;
pub mod format;
mod ports;
pub mod progress;
pub mod table;
mod template;

use std::io::{self, Write};

use serde::Serialize;

use super::error::CliError;

/// Prints a line of data.
pub fn line(text: &str) -> Result<(), CliError> {
    line_to(&mut anstream::stdout(), text)
}

/// Prints a line beside the data: a warning, a hint.
pub fn note(text: &str) -> Result<(), CliError> {
    line_to(&mut anstream::stderr(), text)
}

/// Prints data for programs.
pub fn json(data: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string(data).map_err(|error| CliError::failed(error.to_string(), None))?;
    line(&text)
}

/// Prints a line; a reader that has left ends the command without a word, as it does for `cat`.
pub fn line_to(out: &mut impl Write, text: &str) -> Result<(), CliError> {
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::ClosedPipe,
        // A terminal that was closed.
        _ if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => CliError::ClosedPipe,
        _ => CliError::io("cannot print")(error),
    })
}
