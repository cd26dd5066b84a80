//! `sameport events`.

use clap::Args;
use futures_util::StreamExt;
use sameport::{api::protocol::Line, supervisor::EventKind};

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
    /// Print what happened so far, and end
    #[arg(long)]
    no_follow: bool,
}

/// Runs `sameport events`.
pub async fn run(context: &Context, args: EventsArgs) -> Result<(), CliError> {
    let name = context.project()?;
    let Some(session) = Session::running(context, &name).await? else {
        return Err(CliError::failed(
            format!("nobody supervises the project {name}, so nothing is told of it"),
            Some("`sameport up -d` begins a supervisor"),
        ));
    };
    let mut events = session.events().await?;
    let mut signals = Signals::new()?;
    loop {
        let line = tokio::select! {
            line = events.next() => line,
            () = signals.end() => return Err(CliError::Interrupted),
            // The past comes at once.
            () = tokio::time::sleep(std::time::Duration::from_millis(300)), if args.no_follow => return Ok(()),
        };
        let Some(line) = line else { return Ok(()) };
        match line? {
            Line::Now(_) if args.no_follow => return Ok(()),
            Line::Past(event) | Line::Now(event) if context.is_json() => output::json(&event)?,
            Line::Past(event) | Line::Now(event) => {
                if let Some(text) = event::with_time(&event) {
                    output::line(&text)?;
                }
            }
            Line::Missed { events } => output::note(&format!("warning: {events} events are missing here"))?,
        }
    }
}

/// Shows what happens from now on beside the logs, until the supervisor ends.
pub async fn show_new(session: &Session) -> Result<(), CliError> {
    let mut events = session.events().await?;
    while let Some(line) = events.next().await {
        if let Line::Now(event) = line?
            // It was told with its colours when the file was read.
            && !matches!(event.kind, EventKind::NotApplied { .. })
            && let Some(text) = event::describe(&event)
        {
            output::note(&text)?;
        }
    }
    Err(CliError::ClosedPipe)
}
