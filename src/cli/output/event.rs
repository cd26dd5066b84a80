//! Events as people read them.

use anstyle::{AnsiColor, Style};
use sameport::{
    api::schema::{Event, EventKind, Level, RolloutPhase},
    control_chars::visible,
};

use crate::cli::error::styled;

/// An event as text: one line, or a few where the message has more. `None` for events that are of no interest to
/// people.
pub fn describe(event: &Event) -> Option<String> {
    let message = visible(event.message.as_ref()?);
    let (first, rest) =
        message.split_once('\n').map_or((&*message, None), |(first, rest)| (first, Some(rest)));
    let first = style(event).map_or_else(|| first.to_owned(), |style| styled(first, style));
    Some(rest.map_or_else(|| first.clone(), |rest| format!("{first}\n{rest}")))
}

fn style(event: &Event) -> Option<Style> {
    let color = match (event.level, &event.kind) {
        (Level::Error, _) => AnsiColor::Red,
        (Level::Warning, _) => AnsiColor::Yellow,
        (Level::Info, EventKind::Converged | EventKind::Rollout { phase: RolloutPhase::Done { .. }, .. }) => {
            AnsiColor::Green
        }
        (Level::Info, EventKind::Health { health, .. }) if health == "healthy" => AnsiColor::Green,
        (Level::Info, _) => return None,
    };
    Some(color.on_default())
}

/// The event with its local time in front.
pub fn with_time(event: &Event) -> Option<String> {
    let time = event.time.0.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%H:%M:%S").to_string();
    Some(format!("{} {}", styled(&time, Style::new().dimmed()), describe(event)?))
}
