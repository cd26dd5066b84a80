//! What the user wants of a process that runs.

use std::io::IsTerminal;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::CliError;

/// The signals that a command heeds.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    /// Whether there was a terminal at first.
    terminal: bool,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// An end: Ctrl-C, `kill`, or a terminal that was closed.
    End,
    /// The file read anew.
    Reload,
}

impl Signals {
    /// From now on they are heeded, and no longer end the process by themselves.
    pub fn new() -> Result<Self, CliError> {
        let heed = |kind| signal(kind).map_err(CliError::io("cannot heed signals"));
        Ok(Self {
            interrupt: heed(SignalKind::interrupt())?,
            terminate: heed(SignalKind::terminate())?,
            hangup: heed(SignalKind::hangup())?,
            terminal: on_terminal(),
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Wanted {
        tokio::select! {
            _ = self.interrupt.recv() => Wanted::End,
            _ = self.terminate.recv() => Wanted::End,
            // `kill -HUP` and the end of a terminal are the same signal.
            _ = self.hangup.recv() => match self.terminal && !on_terminal() {
                true => Wanted::End,
                false => Wanted::Reload,
            },
        }
    }

    /// The next one that asks for an end.
    pub async fn end(&mut self) {
        while self.next().await != Wanted::End {}
    }
}

/// Whether there is a terminal; one that was closed is none any more.
fn on_terminal() -> bool {
    std::io::stdin().is_terminal() || std::io::stderr().is_terminal()
}
