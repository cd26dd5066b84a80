//! `sameport supervise`: the supervisor as a process of its own.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clap::Args;
use futures_util::StreamExt;
use sameport::{
    api::{
        protocol::Line,
        schema::{Diagnostic, Event, EventKind, Level},
    },
    compose::Loaded,
    engine::docker::Docker,
    kernel,
    spec::ProjectName,
    supervisor::{
        self, Apply, Request,
        lock::Lock,
        paths::{open_log, rotated_log},
        private_folder,
    },
};
use sd_notify::NotifyState;
use tracing_subscriber::{
    EnvFilter, filter::filter_fn, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt,
};

use super::{
    context::{Context, who},
    error::CliError,
    pull,
    reload::Reload,
    session::Session,
    signals::{Signals, Wanted},
    variables,
};

/// Arguments of `sameport supervise`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  sameport -f /srv/shop/compose.yaml supervise --watch
  sameport -f /srv/shop/compose.yaml supervise --resume     after a reboot

SIGHUP makes it read the file again; with `--watch`, so does a change of the file. SIGTERM ends the supervisor and
leaves everything running; `sameport down` removes it.")]
pub struct SuperviseArgs {
    /// Apply the Compose file again whenever it or one of its env files changes
    #[arg(long)]
    watch: bool,
    /// Resume what was requested last (`up`, `scale`, `stop`, `rollout`); apply the file only if there is no such state
    #[arg(long)]
    resume: bool,
    /// Log as JSON
    #[arg(long)]
    json: bool,
    /// Used by `up -d`: wait for requests, and limit the size of the log
    #[arg(long, hide = true)]
    background: bool,
}

/// Interval at which the engine is tried, for example while the host boots.
const RETRY: Duration = Duration::from_secs(1);
/// Interval at which unused memory is returned to the system: the start and each change need more than the steady
/// state.
const RELEASE_INTERVAL: Duration = Duration::from_secs(5);
/// Size in bytes at which the log of a supervisor in the background is rotated. One rotated log is kept.
const MAX_LOG_BYTES: u64 = 4 << 20;

/// Runs `sameport supervise`.
pub async fn run(context: &Context, args: SuperviseArgs) -> Result<(), CliError> {
    let mut signals = Signals::new()?;
    let (loaded, files) = context.read();
    let loaded = loaded?;
    let name = loaded.project.name.clone();
    let mut reload = Reload::new(context, &name, files);
    if args.watch {
        reload.watch()?;
    }
    if args.background {
        // Creates a session, so that closing the terminal does not end it. Fails only for a process that leads a
        // session already.
        let _ = nix::unistd::setsid();
    }
    log(context, &name, &args)?;
    let lock = Lock::acquire(&context.paths()?.lock(&name))?;
    let Some(docker) = engine(&mut signals).await? else { return Ok(()) };
    // A damaged state has no versions; the file is then applied to what the containers show.
    let state = context.state(&name)?.load()?.state;
    let missing = variables::check(&state, &loaded.variables);
    let mut session =
        Session::begin_locked(context, &name, Some(&loaded.project), docker.clone(), lock).await?;
    // The state of the last `up` stays. In the background, the calling command applies the file.
    let was_applied = !state.versions.is_empty();
    let begin = match &missing {
        Ok(()) if args.resume && was_applied => Request::Resume(Box::new(loaded.project)),
        Ok(()) if args.background && !args.resume => Request::Load(Box::new(loaded.project)),
        Ok(()) => desired_state_request(&docker, &loaded).await?,
        // Without a variable, the file has another meaning than the running version.
        Err(_) => Request::Resume(Box::new(loaded.project)),
    };
    session.ask(begin).await?;
    if let Err(error) = &missing {
        reload.refused(error).into_iter().for_each(|event| session.tell(event));
    }
    let journal = tokio::spawn(journal(session.events().await?));
    let tidy = tokio::spawn(tidy());
    reload.hear(&session, anew(&args));
    notify(&[NotifyState::Ready]);
    let end = supervise(&mut reload, &docker, &mut session, &mut signals).await;
    notify(&[NotifyState::Stopping]);
    let left = session.leave().await;
    journal.abort();
    tidy.abort();
    left.and(end)
}

/// How to restart this supervisor with another file or other variables, for messages.
fn anew(args: &SuperviseArgs) -> String {
    let pid = std::process::id();
    match args.background {
        true => format!(
            "`kill {pid}` ends it and leaves everything running; then `sameport up -d --watch` starts another one"
        ),
        false => format!("restart it with these options: ending process {pid} leaves everything running"),
    }
}

async fn supervise(
    reload: &mut Reload<'_>,
    docker: &Docker,
    session: &mut Session,
    signals: &mut Signals,
) -> Result<(), CliError> {
    loop {
        tokio::select! {
            () = session.ended() => return Ok(()),
            wanted = signals.next() => match wanted {
                Wanted::End => return Ok(()),
                Wanted::Reload => {}
            },
            wanted = reload.wanted() => if let Err(error) = wanted {
                session.tell(supervisor::EventKind::WatchUnavailable { error: error.to_string() });
                continue;
            },
        }
        notify(&[NotifyState::Reloading]);
        let applied = async { session.ask(desired_state_request(docker, &reload.load()?).await?).await };
        match applied.await {
            Ok(()) => {
                reload.taken();
                tracing::info!("Compose file applied");
            }
            // The last valid file stays in effect.
            Err(error) => reload.refused(&error).into_iter().for_each(|event| session.tell(event)),
        }
        notify(&[NotifyState::Ready]);
    }
}

/// The request to apply a file. Missing images are pulled when they are needed.
async fn desired_state_request(docker: &Docker, loaded: &Loaded) -> Result<Request, CliError> {
    let found = pull::look(docker, &loaded.project).await?;
    Ok(Request::Apply(Box::new(Apply {
        images: found.ids,
        variables: loaded.variables.given.clone(),
        folder: Some(loaded.directory.clone()),
        ..Apply::all(loaded.project.clone(), who())
    })))
}

/// Waits until the engine answers; `None` if a signal requests an end first.
async fn engine(signals: &mut Signals) -> Result<Option<Docker>, CliError> {
    let mut told = false;
    loop {
        match Docker::connect().await {
            Ok(docker) => return Ok(Some(docker)),
            Err(error) if error.is_passing() => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, "waiting for the engine");
                    notify(&[NotifyState::Status("waiting for the engine")]);
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = signals.end() => return Ok(None),
        }
    }
}

/// Returns unused memory to the system, periodically.
async fn tidy() {
    loop {
        tokio::time::sleep(RELEASE_INTERVAL).await;
        kernel::give_memory_back();
    }
}

/// Notifies systemd, if it started this process.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd is not told");
    }
}

async fn journal(mut events: impl futures_util::Stream<Item = Result<Line, CliError>> + Unpin) {
    while let Some(Ok(line)) = events.next().await {
        match line {
            Line::History(event) | Line::Live(event) => write(&event),
            Line::Missed { events } => tracing::warn!(events, "events are missing here"),
        }
    }
}

/// Writes an event to the log: its name, its keys, and the message for people.
fn write(event: &Event) {
    match &event.kind {
        EventKind::Started { .. } => return,
        EventKind::Rejected { error, diagnostics } => return rejected(error, diagnostics),
        EventKind::Converged => notify(&[NotifyState::Status("converged")]),
        _ => {}
    }
    let keys = serde_json::to_value(&event.kind).unwrap_or_default();
    let name = keys.get("event").and_then(serde_json::Value::as_str).unwrap_or("event");
    let keys = details(&keys);
    let message = event.message.as_deref().unwrap_or(name);
    // A log entry is one line.
    let message = message.lines().next().unwrap_or(name);
    match event.level {
        Level::Info => tracing::info!(event = name, keys, "{message}"),
        Level::Warning => tracing::warn!(event = name, keys, "{message}"),
        Level::Error => tracing::error!(event = name, keys, "{message}"),
    }
}

/// The keys of an event, such as `slot=1 weight=100`. Longer values are in the message or in `events`.
fn details(keys: &serde_json::Value) -> String {
    use serde_json::Value;
    let words = keys.as_object().into_iter().flatten().filter_map(|(key, value)| match value {
        Value::String(text) if key != "event" && !text.contains(char::is_whitespace) => {
            Some(format!("{key}={text}"))
        }
        Value::Number(_) | Value::Bool(_) => Some(format!("{key}={value}")),
        _ => None,
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Writes one entry per diagnostic.
fn rejected(error: &str, diagnostics: &[Diagnostic]) {
    for Diagnostic { message, file, line, column, help } in diagnostics {
        tracing::error!(file, line, column, mistake = message, help, "Compose file rejected");
    }
    if diagnostics.is_empty() {
        tracing::error!(error, "Compose file rejected");
    }
}

/// Whether a log entry of a library may contain data that is exchanged with the engine, such as environments, which can
/// contain secrets. They are excluded at every log level.
fn may_contain_bodies(target: &str, level: tracing::Level) -> bool {
    let library = target.split("::").next().unwrap_or_default();
    matches!(library, "bollard" | "hyper" | "hyper_util" | "h2") && level > tracing::Level::INFO
}

fn log(context: &Context, name: &ProjectName, args: &SuperviseArgs) -> Result<(), CliError> {
    let level = match context.global.verbose {
        0 => "info",
        1 => "sameport=debug,info",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("SAMEPORT_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    let no_bodies = filter_fn(|about| !may_contain_bodies(about.target(), *about.level()));
    // The log of a supervisor in the background is not read on a terminal.
    let result = match (args.background, args.json) {
        (true, _) => {
            let path = context.paths()?.log(name);
            let file = RotatingLog::open(&path).map_err(CliError::io(path.display().to_string()))?;
            log.with_ansi(false).with_writer(file).finish().with(no_bodies).try_init()
        }
        (false, true) => log.json().with_writer(io::stderr).finish().with(no_bodies).try_init(),
        (false, false) => {
            let log = log.with_ansi(std::io::IsTerminal::is_terminal(&io::stderr())).with_writer(io::stderr);
            log.finish().with(no_bodies).try_init()
        }
    };
    result.map_err(|error| CliError::failed(format!("cannot write a log: {error}"), None))
}

/// A log of limited size. It is created again if it is removed.
#[derive(Clone)]
struct RotatingLog {
    path: PathBuf,
    file: Arc<Mutex<(File, u64)>>,
}

impl RotatingLog {
    fn open(path: &Path) -> io::Result<Self> {
        let file = open_log(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file: Arc::new(Mutex::new((file, size))) })
    }
}

impl Write for RotatingLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut held = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, size) = &mut *held;
        // Entries are rare, and the check is one system call.
        let is_removed =
            fs::symlink_metadata(&self.path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if *size > MAX_LOG_BYTES && !is_removed {
            fs::rename(&self.path, rotated_log(&self.path))?;
        }
        if *size > MAX_LOG_BYTES || is_removed {
            if let Some(folder) = self.path.parent() {
                private_folder::make(folder)?;
            }
            *file = open_log(&self.path)?;
            *size = 0;
        }
        let written = file.write(bytes)?;
        *size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).0.flush()
    }
}

impl<'a> MakeWriter<'a> for RotatingLog {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
