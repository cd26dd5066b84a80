//! `sameport events`.

use clap::Args;
use futures_util::StreamExt;
use sameport::api::{
    protocol::Line,
    schema::{Event, EventKind},
};

use super::{
    context::Context,
    error::CliError,
    output::{self, event},
    session::Session,
    signals::Signals,
};

/// Arguments of `sameport events`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sameport events                   what happened, and what happens from now on
  sameport events --format json     each as a line of JSON")]
pub struct EventsArgs {
    /// Print the events so far and exit
    #[arg(long)]
    no_follow: bool,
}

/// Runs `sameport events`.
pub async fn run(context: &Context, args: EventsArgs) -> Result<(), CliError> {
    let name = context.project()?;
    let session = Session::required_to_answer(context, &name, "; no events available").await?;
    let show = |event: &Event| match context.data() {
        Some(format) => format.streamed(event),
        None => event::with_time(event).map_or(Ok(()), |text| output::colored_line(&text)),
    };
    if args.no_follow {
        return session.history().await?.iter().try_for_each(show);
    }
    let mut events = session.events().await?;
    let mut signals = Signals::new()?;
    loop {
        let line = tokio::select! {
            line = events.next() => line,
            () = signals.end() => return Err(CliError::Interrupted),
        };
        let Some(line) = line else { return Ok(()) };
        match line? {
            Line::History(event) | Line::Live(event) => show(&event)?,
            Line::Missed { events } => output::note(&format!("warning: {events} events are missing here"))?,
        }
    }
}

/// Prints new events beside the logs, until the supervisor ends.
pub async fn show_new(context: &Context, session: &Session) -> Result<(), CliError> {
    let mut events = session.events().await?;
    while let Some(line) = events.next().await {
        let Line::Live(event) = line? else { continue };
        // It was printed in color when the file was read.
        let is_told = matches!(event.kind, EventKind::Rejected { .. });
        match context.data() {
            Some(format) => format.streamed(&event)?,
            None if is_told => {}
            None => event::describe(&event).map_or(Ok(()), |text| output::note(&text))?,
        }
    }
    Err(CliError::ClosedPipe)
}
