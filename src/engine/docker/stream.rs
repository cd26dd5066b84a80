//! Events, logs and pulls: answers that come bit by bit.

use std::collections::HashMap;

use bollard::{
    container::LogOutput,
    models::{CreateImageInfo, EventMessage, EventMessageTypeEnum},
    query_parameters::{EventsOptions, LogsOptions},
};
use futures_util::{Stream, StreamExt, stream};
use jiff::Timestamp;

use super::stops;
use crate::{
    engine::{ContainerId, EngineEvent, Labels, LogLine, LogLines, LogOptions, PullProgress},
    spec::ProjectName,
};

/// The events that are asked for: of this project, only what can change a plan, and from `since`, a time as the
/// engine tells it.
pub(super) fn events(project: &ProjectName, since: Option<&str>) -> EventsOptions {
    let filters = HashMap::from([
        ("label".to_owned(), vec![format!("{}={project}", Labels::PROJECT)]),
        ("type".to_owned(), ["container", "network", "volume"].map(str::to_owned).to_vec()),
    ]);
    EventsOptions { since: since.and_then(from), until: None, filters: Some(filters) }
}

/// Who is connected to networks and taken off them, which the engine tells without any label.
pub(super) fn connections(since: Option<&str>) -> EventsOptions {
    let filters = HashMap::from([
        ("type".to_owned(), vec!["network".to_owned()]),
        ("event".to_owned(), ["connect", "disconnect"].map(str::to_owned).to_vec()),
    ]);
    EventsOptions { since: since.and_then(from), until: None, filters: Some(filters) }
}

/// A time as the engine tells it, as it wants it in a filter.
pub(super) fn from(time: &str) -> Option<String> {
    let time = time.parse::<Timestamp>().ok()?;
    Some(format!("{}.{:09}", time.as_second(), time.subsec_nanosecond()))
}

/// What an event means to us; none for those that change nothing, such as every run of a health check.
pub(super) fn event(told: EventMessage) -> Option<EngineEvent> {
    let action = told.action.unwrap_or_default();
    match told.typ {
        Some(EventMessageTypeEnum::CONTAINER) if action.starts_with("exec_") => None,
        Some(EventMessageTypeEnum::CONTAINER) => {
            let actor = told.actor?;
            let id = ContainerId(actor.id?);
            Some(match stops::patience(&action, actor.attributes.as_ref()) {
                Some(patience) => EngineEvent::Ending { id, patience },
                None => EngineEvent::Container(id),
            })
        }
        Some(EventMessageTypeEnum::NETWORK) if action == "connect" || action == "disconnect" => {
            Some(EngineEvent::Connection(ContainerId(told.actor?.attributes?.remove("container")?)))
        }
        _ => Some(EngineEvent::Resource),
    }
}

/// The log that is asked for. Times are always wanted: the daemon takes whole seconds only, so what is too old by
/// less is sorted out here, and whoever follows on needs them.
pub(super) fn log_options(options: &LogOptions) -> LogsOptions {
    let seconds = |time: Option<Timestamp>| {
        time.map_or(0, |time| i32::try_from(time.as_second()).unwrap_or(i32::MAX).max(1))
    };
    LogsOptions {
        follow: options.follow,
        stdout: true,
        stderr: true,
        timestamps: true,
        since: seconds(options.since),
        until: seconds(
            options.until.map(|time| time.checked_add(jiff::SignedDuration::from_secs(1)).unwrap_or(time)),
        ),
        tail: options.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string()),
    }
}

/// Cuts a log into lines. A frame may hold several lines or a part of one, and with a terminal there are no
/// frames at all.
pub(super) fn lines<E: Send>(
    frames: impl Stream<Item = Result<LogOutput, E>> + Send + Unpin,
) -> impl Stream<Item = Result<LogLine, E>> + Send {
    stream::unfold(
        (frames, LogLines::default(), Vec::new().into_iter()),
        async |(mut frames, mut lines, mut ready)| {
            loop {
                if let Some(line) = ready.next() {
                    return Some((Ok(line), (frames, lines, ready)));
                }
                match frames.next().await {
                    Some(Ok(frame)) => {
                        let is_stderr = matches!(frame, LogOutput::StdErr { .. });
                        ready = lines.take(is_stderr, &frame.into_bytes()).into_iter();
                    }
                    Some(Err(error)) => return Some((Err(error), (frames, lines, ready))),
                    None => {
                        let rest = lines.rest();
                        if rest.is_empty() {
                            return None;
                        }
                        ready = rest.into_iter();
                    }
                }
            }
        },
    )
}

/// Whether a line is from the time that was asked for.
pub(super) fn is_within(line: &LogLine, options: &LogOptions) -> bool {
    line.time.is_none_or(|time| {
        options.since.is_none_or(|since| time >= since) && options.until.is_none_or(|until| time <= until)
    })
}

/// How far a pull is.
pub(super) fn progress(told: CreateImageInfo) -> PullProgress {
    let bytes = told.progress_detail.and_then(|detail| {
        Some((u64::try_from(detail.current?).ok()?, u64::try_from(detail.total.unwrap_or(0)).ok()?))
    });
    PullProgress { layer: told.id, status: told.status.unwrap_or_default(), bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(text: &str) -> LogOutput {
        LogOutput::StdOut { message: text.to_owned().into() }
    }

    fn err(text: &str) -> LogOutput {
        LogOutput::StdErr { message: text.to_owned().into() }
    }

    async fn read(frames: Vec<LogOutput>) -> Vec<(bool, String)> {
        let frames = stream::iter(frames.into_iter().map(Ok::<_, ()>));
        lines(frames).map(|line| line.map(|l| (l.stderr, l.text)).unwrap()).collect().await
    }

    #[tokio::test]
    async fn frames_are_cut_into_lines_by_output() {
        let got = read(vec![out("one\ntw"), err("oops\n"), out("o\nthree")]).await;
        let wanted = [(false, "one"), (true, "oops"), (false, "two"), (false, "three")];
        assert_eq!(got, wanted.map(|(stderr, text)| (stderr, text.to_owned())));
    }

    #[tokio::test]
    async fn a_time_is_taken_off_every_piece_of_a_long_line() {
        let time = "2024-05-06T07:08:09.123456789Z";
        let got = read(vec![out(&format!("{time} one")), out(&format!("{time} two\n")), out(time)]).await;
        let wanted = [(false, "onetwo"), (false, "")];
        assert_eq!(got, wanted.map(|(stderr, text)| (stderr, text.to_owned())));
    }

    #[tokio::test]
    async fn a_line_without_end_comes_in_pieces_of_the_same_time() {
        let time = "2024-05-06T07:08:09.123456789Z";
        let piece = format!("{time} {}", "x".repeat(16 * 1024));
        let frames = stream::iter(vec![Ok::<_, ()>(out(&piece)); 13]);
        let got: Vec<_> = lines(frames).map(Result::unwrap).collect().await;
        assert!(got.len() >= 3);
        assert!(got.iter().all(|line| line.time == time.parse().ok()), "{got:?}");
        let text: String = got.into_iter().map(|line| line.text).collect();
        assert_eq!(text, "x".repeat(13 * 16 * 1024));
    }
}
