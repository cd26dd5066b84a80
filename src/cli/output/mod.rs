//! What people see.

pub mod event;
pub mod format;
mod ports;
pub mod progress;
pub mod table;
mod template;

use std::io::{self, IsTerminal, Write};

use sameport::control_chars::{visible, with_colors};
use serde::Serialize;

use super::error::CliError;

/// Prints a line for people. It may be of others' words: none of them commands the terminal.
pub fn line(text: &str) -> Result<(), CliError> {
    line_to(&mut anstream::stdout(), &visible(text))
}

/// Prints a line for people that we have given colours. Others' words in it were made visible before.
pub fn colored_line(text: &str) -> Result<(), CliError> {
    line_to(&mut anstream::stdout(), &with_colors(text))
}

/// Prints a line beside the data: a warning, a hint.
pub fn note(text: &str) -> Result<(), CliError> {
    line_to(&mut anstream::stderr(), &visible(text))
}

/// The same with colours of ours, as [`colored_line`].
pub fn colored_note(text: &str) -> Result<(), CliError> {
    line_to(&mut anstream::stderr(), &with_colors(text))
}

/// Prints a line for programs: just that, unless it goes to a terminal.
pub fn data(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout();
    match out.is_terminal() {
        true => line_to(&mut out, &visible(text)),
        false => line_to(&mut out, text),
    }
}

/// Prints others' bytes as they are, after a text of ours.
pub fn bytes(before: &str, bytes: &[u8]) -> Result<(), CliError> {
    let mut text = before.to_owned();
    if !io::stdout().is_terminal() {
        text = anstream::adapter::strip_str(&text).to_string();
    }
    let line = [text.as_bytes(), bytes, b"\n"].concat();
    let mut out = io::stdout().lock();
    out.write_all(&line).and_then(|()| out.flush()).map_err(not_printed)
}

/// Prints data for programs.
pub fn json(data: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string(data).map_err(|error| CliError::failed(error.to_string(), None))?;
    self::data(&text)
}

/// Prints a line; a reader that has left ends the command without a word, as it does for `cat`.
pub fn line_to(out: &mut impl Write, text: &str) -> Result<(), CliError> {
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(not_printed)
}

fn not_printed(error: io::Error) -> CliError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::ClosedPipe,
        // A terminal that was closed.
        _ if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => CliError::ClosedPipe,
        _ => CliError::io("cannot print")(error),
    }
}
