//! Output for people and for programs.

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

/// Prints a line for people to standard output. Control characters are made visible, because the text may contain data
/// of containers or images.
pub fn line(text: &str) -> Result<(), CliError> {
    line_to(&mut anstream::stdout(), &visible(text))
}

/// Prints a line that contains colors of sameport. The caller makes control characters in foreign text visible.
pub fn colored_line(text: &str) -> Result<(), CliError> {
    line_to(&mut anstream::stdout(), &with_colors(text))
}

/// Prints a line to standard error, beside the data: a warning or a hint.
pub fn note(text: &str) -> Result<(), CliError> {
    line_to(&mut anstream::stderr(), &visible(text))
}

/// Like `note`, for a line with colors, as in [`colored_line`].
pub fn colored_note(text: &str) -> Result<(), CliError> {
    line_to(&mut anstream::stderr(), &with_colors(text))
}

/// Prints a line for programs. It is unchanged, unless standard output is a terminal.
pub fn data(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout();
    match out.is_terminal() {
        true => line_to(&mut out, &visible(text)),
        false => line_to(&mut out, text),
    }
}

/// Prints a prefix and then the unchanged bytes of a container.
pub fn bytes(before: &str, bytes: &[u8]) -> Result<(), CliError> {
    let mut text = before.to_owned();
    if !io::stdout().is_terminal() {
        text = anstream::adapter::strip_str(&text).to_string();
    }
    let line = [text.as_bytes(), bytes, b"\n"].concat();
    let mut out = io::stdout().lock();
    out.write_all(&line).and_then(|()| out.flush()).map_err(not_printed)
}

/// Prints data as one line of JSON.
pub fn json(data: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string(data).map_err(|error| CliError::failed(error.to_string(), None))?;
    self::data(&text)
}

/// Prints a line and flushes. A closed pipe ends the command silently, as it ends `cat`.
pub fn line_to(out: &mut impl Write, text: &str) -> Result<(), CliError> {
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(not_printed)
}

fn not_printed(error: io::Error) -> CliError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::ClosedPipe,
        // The terminal was closed.
        _ if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => CliError::ClosedPipe,
        _ => CliError::io("cannot print")(error),
    }
}
