//! Reports state files that are damaged.

use std::time::Duration;

use futures_util::StreamExt;
use sameport::{
    api::{
        protocol::Line,
        schema::{Event, EventKind},
    },
    spec::ProjectName,
    supervisor::{Loaded, State},
};

use super::{
    context::Context,
    error::CliError,
    output::{self, event},
    session::Session,
};

/// Limit for a supervisor that has just started to report the damage.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads the state of a project, to show it, and warns if the file is damaged. The file is not changed: only a
/// supervisor moves it away.
///
/// # Errors
/// If it cannot be read, or was written by a newer release.
pub fn warn_of_damage(context: &Context, project: &ProjectName) -> Result<State, CliError> {
    let Loaded { state, damage } = context.state(project)?.load()?;
    if let Some(damage) = damage {
        output::note(&format!(
            "warning: {damage}\n  replica counts are taken from the containers instead; the next supervisor moves the file away \
             and rebuilds it"
        ))?;
    }
    Ok(state)
}

/// Reports if a supervisor in this process has reset the state.
pub async fn note_reset(session: &Session) -> Result<(), CliError> {
    session.told().iter().find(|event| is_reset(event)).map_or(Ok(()), tell)
}

/// Reports if a supervisor in the background has reset the state when it started. It records that before a client can
/// connect.
pub async fn note_background_reset(session: &Session) -> Result<(), CliError> {
    let mut events = session.events().await?;
    let found = async {
        while let Some(line) = events.next().await {
            match line? {
                Line::History(event) | Line::Live(event) if is_reset(&event) => return tell(&event),
                Line::History(_) | Line::Live(_) | Line::Missed { .. } => {}
            }
        }
        Ok(())
    };
    // Its log has the event as well.
    tokio::time::timeout(REPORT_TIMEOUT, found).await.unwrap_or(Ok(()))
}

fn is_reset(event: &Event) -> bool {
    matches!(event.kind, EventKind::StateReset { .. })
}

fn tell(reset: &Event) -> Result<(), CliError> {
    event::describe(reset).map_or(Ok(()), |text| output::note(&text))
}
