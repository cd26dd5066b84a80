//! `sameport logs`.

mod printed;

use std::{collections::BTreeMap, io::IsTerminal, time::Duration};

use anstyle::{AnsiColor, Style};
use clap::Args;
use futures_util::{StreamExt, stream::BoxStream};
use jiff::{SignedDuration, Timestamp};
use sameport::{
    api::schema::LogRecord,
    control_chars::with_colors,
    engine::{ContainerId, Engine, EngineError, EngineEvent, LogLine, LogOptions},
    spec::ServiceName,
    supervisor::Selector,
};
use tokio::sync::mpsc;

use super::{
    context::Context,
    error::{CliError, styled},
    output::{self, format::Format},
    replicas::{Finder, Replica},
    selector::{self, Written},
    signals::Signals,
};
use printed::Printed;

/// Arguments of `sameport logs`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sameport logs --tail 20          the last lines of each replica
  sameport logs -f --since 10m web-2")]
pub struct LogsArgs {
    /// Follow: also show what is written from now on
    #[arg(short, long)]
    follow: bool,
    /// Only the last N lines of each replica
    #[arg(short = 'n', long, value_name = "N", value_parser = tail)]
    tail: Option<Tail>,
    /// Only lines since then: 10m, 2h, 2026-01-31T10:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Only lines until then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// Print the time of each line
    #[arg(short, long)]
    timestamps: bool,
    /// Print lines without the name of the replica
    #[arg(long)]
    no_log_prefix: bool,
    /// Print control characters unchanged, even on a terminal
    #[arg(long)]
    raw: bool,
    /// Only these services or replicas
    #[arg(value_name = "SERVICE[-N]")]
    replicas: Vec<Written>,
}

/// The argument of `--tail`; `None` is `all`.
#[derive(Clone, Copy, Debug)]
struct Tail(Option<u64>);

fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail(None)),
        _ => text.parse().map(|n| Tail(Some(n))).map_err(|_| "write a number, or `all`".to_owned()),
    }
}

fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    if let Ok(seconds) = text.parse() {
        return Timestamp::from_second(seconds).map_err(|e| e.to_string());
    }
    if let Ok(local) = text.parse::<jiff::civil::DateTime>() {
        return local
            .to_zoned_datetime(jiff::tz::TimeZone::system())
            .map(|t| t.timestamp())
            .map_err(|e| e.to_string());
    }
    let ago: SignedDuration = text
        .parse()
        .map_err(|_| format!("`{text}` is no time; write for example 10m, 2h or 2026-01-31T10:00:00Z"))?;
    Timestamp::now().checked_sub(ago).map_err(|e| e.to_string())
}

/// How lines are printed.
#[derive(Clone, Debug)]
struct Look {
    /// The output format for programs; `None` for the one for people.
    data: Option<Format>,
    prefix: bool,
    timestamps: bool,
    raw: bool,
}

/// Runs `sameport logs`.
pub async fn run(context: &Context, args: LogsArgs) -> Result<(), CliError> {
    let finder = Finder::new(context)?;
    let engine = context.engine_or_told().await?;
    let options = LogOptions {
        follow: args.follow,
        tail: args.tail.and_then(|tail| tail.0),
        since: args.since,
        until: args.until,
    };
    let look = Look {
        data: context.data().cloned(),
        prefix: !args.no_log_prefix,
        timestamps: args.timestamps,
        raw: args.raw,
    };
    let wanted = match args.replicas.is_empty() {
        true => Vec::new(),
        false => selector::resolve(context, &args.replicas).await?,
    };
    let mut signals = Signals::new()?;
    let show = async {
        if args.follow {
            follow(&engine, finder, &wanted, options, look).await
        } else {
            past(&engine, finder, &wanted, options, look).await
        }
    };
    tokio::select! {
        shown = show => shown,
        () = signals.end() => Err(CliError::Interrupted),
    }
}

/// Follows the logs of the replicas of these services; an empty list means all.
pub async fn follow_all(
    context: &Context,
    engine: &impl Engine,
    finder: Finder,
    services: &[ServiceName],
) -> Result<(), CliError> {
    let replicas: Vec<_> =
        services.iter().map(|service| Selector { service: service.clone(), slot: None }).collect();
    let options = LogOptions { follow: true, tail: Some(10), ..LogOptions::default() };
    let look = Look { data: context.data().cloned(), prefix: true, timestamps: false, raw: false };
    follow(engine, finder, &replicas, options, look).await
}

/// Prints the existing logs, in order of time across all replicas. Holds only the next line of each replica in memory.
async fn past(
    engine: &impl Engine,
    mut finder: Finder,
    wanted: &[Selector],
    options: LogOptions,
    look: Look,
) -> Result<(), CliError> {
    let replicas = finder.list(engine, wanted).await?;
    if replicas.is_empty() {
        let what = wanted.first().map_or_else(|| "anything".to_owned(), |w| w.service.to_string());
        return output::note(&format!("no replica of {what} has been there to write"));
    }
    let mut printer = Printer::new(look);
    replicas.iter().for_each(|replica| printer.widen(replica));
    let mut streams = Vec::new();
    for replica in replicas {
        let mut lines = engine.logs(&replica.id, &options).await?;
        if let Some(line) = next(&mut lines).await? {
            streams.push((line, lines, replica));
        }
    }
    while let Some(first) =
        (0..streams.len()).min_by_key(|at| streams.get(*at).and_then(|(line, ..)| line.time))
    {
        let Some((line, lines, replica)) = streams.get_mut(first) else { break };
        printer.print(replica, line)?;
        match next(lines).await? {
            Some(following) => *line = following,
            None => drop(streams.remove(first)),
        }
    }
    Ok(())
}

type Lines = BoxStream<'static, Result<LogLine, EngineError>>;

/// The next line; `None` at the end of the log, or if the container is gone.
async fn next(lines: &mut Lines) -> Result<Option<LogLine>, EngineError> {
    match lines.next().await {
        None | Some(Err(EngineError::Gone { .. })) => Ok(None),
        Some(line) => line.map(Some),
    }
}

/// Lines that can wait to be printed. When it is full, backpressure reaches the engine.
const QUEUE_LENGTH: usize = 256;
/// Pause before reconnecting to the engine.
const RETRY: Duration = Duration::from_millis(500);
/// Interval at which replicas are listed again, since events can be lost.
const RESYNC: Duration = Duration::from_secs(5);

/// Prints new lines, including those of replicas that start later, until it is dropped.
async fn follow(
    engine: &impl Engine,
    mut finder: Finder,
    wanted: &[Selector],
    options: LogOptions,
    look: Look,
) -> Result<(), CliError> {
    let mut printer = Printer::new(look);
    let (sender, mut lines) = mpsc::channel(QUEUE_LENGTH);
    let mut readers = tokio::task::JoinSet::new();
    // The containers that were followed, and what was printed of them, so that reading continues there after a restart.
    // `None` while a reader is active.
    let mut seen: BTreeMap<ContainerId, Option<Printed>> = BTreeMap::new();
    let mut events: Option<BoxStream<'static, EngineEvent>> = None;
    loop {
        if events.is_none() {
            events = engine.events(finder.project()).await.ok();
        }
        if let Ok(replicas) = finder.list(engine, wanted).await {
            for replica in replicas {
                let options = match seen.get(&replica.id) {
                    None => options.clone(),
                    // A reader is active, or the container has ended and writes nothing new.
                    Some(None) => continue,
                    Some(Some(_)) if !replica.running => continue,
                    Some(Some(printed)) => LogOptions {
                        since: printed.newest().or(options.since),
                        tail: None,
                        ..options.clone()
                    },
                };
                let Ok(stream) = engine.logs(&replica.id, &options).await else { continue };
                printer.widen(&replica);
                let printed = seen.insert(replica.id.clone(), None).flatten().unwrap_or_default();
                readers.spawn(read(replica, stream, printed, sender.clone()));
            }
        }
        let look_again = tokio::time::sleep(if events.is_some() { RESYNC } else { RETRY });
        tokio::pin!(look_again);
        loop {
            tokio::select! {
                biased;
                Some((replica, line)) = lines.recv() => printer.print(&replica, &line)?,
                Some(Ok((id, printed))) = readers.join_next() => {
                    seen.insert(id, Some(printed));
                    break;
                }
                event = async {
                    match &mut events {
                        Some(events) => events.next().await,
                        None => std::future::pending().await,
                    }
                } => {
                    if event.is_none() {
                        events = None;
                        look_again.as_mut().reset(tokio::time::Instant::now() + RETRY);
                        continue;
                    }
                    break;
                }
                () = &mut look_again => break,
            }
        }
    }
}

/// Reads the lines of one container until its log ends. Returns what was printed.
async fn read(
    replica: Replica,
    mut lines: Lines,
    mut printed: Printed,
    sender: mpsc::Sender<(Replica, LogLine)>,
) -> (ContainerId, Printed) {
    let id = replica.id.clone();
    while let Some(Ok(line)) = lines.next().await {
        if printed.is_new(&line) && sender.send((replica.clone(), line)).await.is_err() {
            break;
        }
    }
    (id, printed)
}

struct Printer {
    look: Look,
    width: usize,
    terminal: bool,
}

const COLORS: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Yellow,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::BrightCyan,
];

impl Printer {
    fn new(look: Look) -> Self {
        Self { look, width: 0, terminal: std::io::stdout().is_terminal() }
    }

    /// Widens the column of names for a replica.
    fn widen(&mut self, replica: &Replica) {
        self.width = self.width.max(replica.to_string().len());
    }

    fn print(&mut self, replica: &Replica, line: &LogLine) -> Result<(), CliError> {
        if let Some(format) = &self.look.data {
            return format.streamed(&LogRecord {
                replica: replica.to_string(),
                service: replica.service.to_string(),
                slot: replica.slot.number(),
                time: line.time.map(Into::into),
                stream: if line.stderr { "stderr" } else { "stdout" }.to_owned(),
                message: line.text.clone(),
            });
        }
        let mut text = String::new();
        if self.look.prefix {
            text.push_str(&styled(&format!("{:<1$} |", replica.to_string(), self.width), color(replica)));
            text.push(' ');
        }
        if self.look.timestamps
            && let Some(time) = line.time
        {
            text.push_str(&format!("{time} "));
        }
        if self.look.raw || !(self.look.prefix || self.terminal) {
            return output::bytes(&text, line.bytes());
        }
        text.push_str(&with_colors(&line.text));
        if self.terminal {
            // A color that was not reset must not affect the next line.
            text.push_str("\u{1b}[0m");
        }
        output::colored_line(&text)
    }
}

/// The color of a replica, the same each time.
fn color(replica: &Replica) -> Style {
    let sum: usize = replica.service.as_str().bytes().map(usize::from).sum();
    let number = sum + usize::try_from(replica.slot.number()).unwrap_or_default();
    COLORS.get(number % COLORS.len()).map_or_else(Style::new, |color| color.on_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_absolute_or_relative() {
        let now = Timestamp::now();
        let ago = |text| now.duration_since(moment(text).unwrap()).as_secs();
        assert!((599..=601).contains(&ago("10m")));
        assert!((7199..=7201).contains(&ago("2h")));
        assert_eq!(moment("2026-01-31T10:00:00Z").unwrap().to_string(), "2026-01-31T10:00:00Z");
        assert_eq!(moment("1000").unwrap().as_second(), 1000);
        assert!(moment("yesterday-ish").is_err());
    }
}
