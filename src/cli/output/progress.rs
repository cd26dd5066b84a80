//! Progress while a command waits: one line per event, and on a terminal a live count of replicas.

use std::{collections::BTreeMap, io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use sameport::api::schema::{Event, EventKind, Status};

use super::{event, format::Format, line_to};
use crate::cli::error::CliError;

/// Prints events, and shows the count on a terminal.
pub struct Progress {
    /// `None` if standard error is not a terminal.
    bar: Option<ProgressBar>,
    /// The format of events for programs; `None` for people.
    data: Option<Format>,
}

impl Progress {
    /// Shows progress on standard error, so that standard output stays free for data. With `data`, prints each event as
    /// data instead.
    pub fn new(data: Option<&Format>) -> Self {
        let shows = data.is_none() && std::io::stderr().is_terminal();
        let bar = shows.then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(
                ProgressStyle::with_template("{spinner} {wide_msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar, data: data.cloned() }
    }

    /// Prints an event.
    pub fn event(&mut self, event: &Event) -> Result<(), CliError> {
        if let Some(format) = &self.data {
            return format.streamed(event);
        }
        // Other code prints these: `up` prints how ports are shared and whether the state was reset, and the command
        // that reads a file prints its errors.
        if matches!(
            event.kind,
            EventKind::SharedByKernel
                | EventKind::SharedByApplication { .. }
                | EventKind::StateReset { .. }
                | EventKind::Rejected { .. }
        ) {
            return Ok(());
        }
        let Some(text) = event::describe(event) else { return Ok(()) };
        match &self.bar {
            Some(bar) => bar.suspend(|| line_to(&mut anstream::stderr(), &text)),
            None => line_to(&mut anstream::stderr(), &text),
        }
    }

    /// Shows how many replicas of each service are up.
    pub fn status(&mut self, status: &Status) {
        let Some(bar) = &self.bar else { return };
        let mut services: BTreeMap<_, (usize, usize)> = BTreeMap::new();
        for replica in &status.replicas {
            let (up, all) = services.entry(replica.service.as_str()).or_default();
            *up += usize::from(replica.state.is_up() && replica.up_to_date);
            *all += 1;
        }
        let words: Vec<_> = services.iter().map(|(name, (up, all))| format!("{name} {up}/{all}")).collect();
        bar.set_message(words.join("  "));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
