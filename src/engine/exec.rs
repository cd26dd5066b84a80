//! Commands in containers that run.

use std::{collections::VecDeque, time::Duration};

use crate::spec::Hook;

/// How many of the last lines that a command wrote are kept.
pub const LAST_LINES: usize = 10;
/// A longer line is cut.
const LONGEST_LINE: usize = 1024;

/// What is run in a container, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// `NAME=value`, added to the container's own.
    pub environment: Vec<String>,
    /// `UID[:GID]` or a name in the image; `None` is the container's own.
    pub user: Option<String>,
    /// Where it starts; `None` is the container's own.
    pub working_dir: Option<String>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Whether its standard input is connected.
    pub stdin: bool,
    /// Whether it gets all capabilities.
    pub privileged: bool,
    /// How long [`super::Engine::run`] waits for its end; then it is killed, where that is possible.
    pub limit: Option<Duration>,
}

impl From<&Hook> for ExecOptions {
    fn from(hook: &Hook) -> Self {
        let variable = |(name, value): (&String, &Option<String>)| match value {
            Some(value) => format!("{name}={value}"),
            // Without a sign the engine takes it away.
            None => name.clone(),
        };
        Self {
            command: hook.command.clone(),
            environment: hook.environment.iter().map(variable).collect(),
            user: hook.user.clone(),
            working_dir: hook.working_dir.clone(),
            privileged: hook.privileged,
            ..Self::default()
        }
    }
}

/// How a command ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// The exit code; 128 + n after signal n.
    pub code: i64,
    /// The last lines that it wrote, to wherever; at most [`LAST_LINES`].
    pub output: Vec<String>,
}

/// Keeps the last lines of an output that comes in pieces.
#[derive(Debug, Default)]
pub struct Tail {
    lines: VecDeque<String>,
    open: Vec<u8>,
}

impl Tail {
    /// Takes in a piece.
    pub fn push(&mut self, piece: &[u8]) {
        let mut parts = piece.split(|byte| *byte == b'\n');
        self.extend(parts.next().unwrap_or_default());
        for part in parts {
            self.close();
            self.extend(part);
        }
    }

    fn extend(&mut self, part: &[u8]) {
        let room = LONGEST_LINE.saturating_sub(self.open.len());
        self.open.extend_from_slice(part.get(..room).unwrap_or(part));
    }

    fn close(&mut self) {
        let line = String::from_utf8_lossy(&self.open).trim_end_matches('\r').to_owned();
        self.open.clear();
        if self.lines.len() == LAST_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The last lines.
    #[must_use]
    pub fn finish(mut self) -> Vec<String> {
        if !self.open.is_empty() {
            self.close();
        }
        self.lines.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_however_they_come() {
        for (pieces, wanted) in [
            (vec!["a\nb", "c\r\n", "\nd"], vec!["a", "bc", "", "d"]),
            (vec![], vec![]),
            (vec!["one\n"], vec!["one"]),
        ] {
            let mut tail = Tail::default();
            pieces.iter().for_each(|piece| tail.push(piece.as_bytes()));
            assert_eq!(tail.finish(), wanted, "{pieces:?}");
        }
    }

    #[test]
    fn an_endless_output_takes_no_endless_memory() {
        let mut tail = Tail::default();
        for number in 0..100 {
            tail.push(format!("{number}\n").as_bytes());
        }
        tail.push(&vec![b'x'; 10 * LONGEST_LINE]);
        let lines = tail.finish();
        assert_eq!(lines.len(), LAST_LINES);
        assert_eq!((lines[8].as_str(), lines[9].len()), ("99", LONGEST_LINE));
    }
}
