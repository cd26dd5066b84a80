//! What is said of a state file that is damaged.

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

/// How long a supervisor that has just begun may take to tell.
const TELLING: Duration = Duration::from_secs(2);

/// Reads the state of a project to show something, and says if the file is damaged. It is left as it is: only whoever
/// supervises puts it aside.
///
/// # Errors
/// When it cannot be read, or a newer sameport wrote it.
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

/// Says that the state was made anew, if a supervisor of this process did so.
pub async fn tell_reset(session: &Session) -> Result<(), CliError> {
    session.told().iter().find(|event| is_reset(event)).map_or(Ok(()), tell)
}

/// Says that a supervisor in the background that has just begun made the state anew. It was found out before anybody
/// could listen.
pub async fn tell_reset_of_other(session: &Session) -> Result<(), CliError> {
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
    // It is in its log, too.
    tokio::time::timeout(TELLING, found).await.unwrap_or(Ok(()))
}

fn is_reset(event: &Event) -> bool {
    matches!(event.kind, EventKind::StateReset { .. })
}

fn tell(reset: &Event) -> Result<(), CliError> {
    event::describe(reset).map_or(Ok(()), |text| output::note(&text))
}
