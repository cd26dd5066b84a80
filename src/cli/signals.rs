//! Signals of a running command.

use std::io::IsTerminal;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::CliError;

/// The signals that a command handles.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    /// Whether there was a terminal at the start.
    terminal: bool,
}

/// What a signal requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// To end: Ctrl-C, SIGTERM, or a terminal that was closed.
    End,
    /// To read the file again: SIGHUP.
    Reload,
}

impl Signals {
    /// Handles the signals from now on, so that they no longer end the process by themselves.
    pub fn new() -> Result<Self, CliError> {
        let heed = |kind| signal(kind).map_err(CliError::io("cannot heed signals"));
        Ok(Self {
            interrupt: heed(SignalKind::interrupt())?,
            terminate: heed(SignalKind::terminate())?,
            hangup: heed(SignalKind::hangup())?,
            terminal: on_terminal(),
        })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> Wanted {
        tokio::select! {
            _ = self.interrupt.recv() => Wanted::End,
            _ = self.terminate.recv() => Wanted::End,
            // A closed terminal sends SIGHUP, too.
            _ = self.hangup.recv() => match self.terminal && !on_terminal() {
                true => Wanted::End,
                false => Wanted::Reload,
            },
        }
    }

    /// Waits for the next signal that requests an end.
    pub async fn end(&mut self) {
        while self.next().await != Wanted::End {}
    }
}

/// Whether there is an open terminal.
fn on_terminal() -> bool {
    std::io::stdin().is_terminal() || std::io::stderr().is_terminal()
}
