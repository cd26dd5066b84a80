//! `sameport supervise`: the supervisor, as a service of its own.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clap::Args;
use futures_util::StreamExt;
use sameport::{
    api::protocol::Line,
    engine::docker::Docker,
    spec::{Project, ProjectName},
    supervisor::{Apply, Event, EventKind, Milestone, Mistake, Request, StateReset, lock::Lock},
};
use sd_notify::NotifyState;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use super::{
    context::{Context, who},
    error::CliError,
    pull,
    reload::Reload,
    session::Session,
    signals::{Signals, Wanted},
};

/// Arguments of `sameport supervise`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  sameport -f /srv/shop/compose.yaml supervise --watch

SIGHUP reads the file anew; with `--watch`, so does a change of it. SIGTERM ends the supervisor and
leaves everything running; `sameport down` removes it.")]
pub struct SuperviseArgs {
    /// Read the file anew whenever it changes, or a file of variables does
    #[arg(long)]
    watch: bool,
    /// Print the log as JSON
    #[arg(long)]
    json: bool,
    /// As `up -d` calls it: waits for what is asked, and keeps its log small
    #[arg(long, hide = true)]
    background: bool,
}

/// Between two tries to reach the engine, as at the start of a host.
const RETRY: Duration = Duration::from_secs(1);
/// A log in the background starts anew at this size; the last one is kept beside it.
const LARGEST_LOG: u64 = 4 << 20;

/// Runs `sameport supervise`.
pub async fn run(context: &Context, args: SuperviseArgs) -> Result<(), CliError> {
    let mut signals = Signals::new()?;
    let (loaded, files) = context.read();
    let project = loaded?.project;
    let name = project.name.clone();
    let mut reload = Reload::new(context, &name, files);
    if args.watch {
        reload.watch()?;
    }
    if args.background {
        // A session of its own: the terminal's end is not its end. It fails only where it is so already.
        let _ = nix::unistd::setsid();
    }
    log(context, &name, &args)?;
    let lock = Lock::acquire(&context.paths()?.lock(&name))?;
    let Some(docker) = engine(&mut signals).await? else { return Ok(()) };
    let mut session = Session::begin_locked(context, &name, docker.clone(), lock)?;
    // What was asked for at the last `up` stays: services in the background are applied by who calls.
    let begin =
        if args.background { Request::Load(Box::new(project)) } else { wish(&docker, project).await? };
    session.ask(begin).await?;
    let journal = tokio::spawn(journal(session.events().await?));
    reload.hear(&session, anew(&args));
    notify(&[NotifyState::Ready]);
    let end = supervise(&mut reload, &docker, &mut session, &mut signals).await;
    notify(&[NotifyState::Stopping]);
    session.leave().await;
    journal.abort();
    end
}

/// How this supervisor is begun anew, for another file or with other variables.
fn anew(args: &SuperviseArgs) -> String {
    let pid = std::process::id();
    match args.background {
        true => format!(
            "`kill {pid}` ends it and leaves everything running; then `sameport up -d --watch` begins another one"
        ),
        false => format!("begin it with these: it is process {pid}, and its end leaves everything running"),
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
                session.tell(EventKind::NotWatched { error: error.to_string() });
                continue;
            },
        }
        notify(&[NotifyState::Reloading]);
        let applied = async { session.ask(wish(docker, reload.load()?).await?).await };
        match applied.await {
            Ok(()) => {
                reload.taken();
                tracing::info!("the file is read anew");
            }
            // What was valid before stays in force.
            Err(error) => reload.refused(&error).into_iter().for_each(|event| session.tell(event)),
        }
        notify(&[NotifyState::Ready]);
    }
}

/// What a file asks for. Images that are not there are fetched when they are needed.
async fn wish(docker: &Docker, project: Project) -> Result<Request, CliError> {
    let found = pull::look(docker, &project).await?;
    Ok(Request::Apply(Box::new(Apply { images: found.ids, ..Apply::all(project, who()) })))
}

/// The engine, however long it takes to come up; none when the user wants an end before.
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

/// Tells systemd, where it has called us.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd is not told");
    }
}

async fn journal(mut events: impl futures_util::Stream<Item = Result<Line, CliError>> + Unpin) {
    while let Some(Ok(line)) = events.next().await {
        match line {
            Line::Past(event) | Line::Now(event) => write(&event),
            Line::Missed { events } => tracing::warn!(events, "events are missing here"),
        }
    }
}

fn write(event: &Event) {
    match &event.kind {
        EventKind::Begun { .. } => {}
        EventKind::Applied { services } => tracing::info!(services, "applied"),
        EventKind::NotApplied { error, mistakes } => not_applied(error, mistakes),
        EventKind::NotWatched { error } => tracing::warn!(error, "changes of the file are seen late"),
        EventKind::Done { verb, target } => tracing::info!(%target, %verb, "done"),
        EventKind::Failed { verb, target, error, .. } => tracing::error!(%target, %verb, error, "failed"),
        EventKind::Exited { service, slot, exit, exits, .. } => {
            tracing::warn!(%service, %slot, code = exit.code, out_of_memory = exit.out_of_memory, exits, "ended");
        }
        EventKind::PortNotShared { service, slot, image, port } => {
            tracing::error!(%service, %slot, %image, port, "the image does not share its port");
        }
        EventKind::OtherUser { service, slot, other } => {
            tracing::error!(%service, %slot, port = other.port, user = other.user, owner = other.owner,
                "another user shares its port");
        }
        EventKind::SharedByKernel => tracing::info!("the kernel shares ports"),
        EventKind::SharedByImages { reason } => tracing::warn!(reason, "images have to share their ports"),
        EventKind::CannotSteer { pod, error } => {
            tracing::error!(%pod, error, "the kernel cannot choose as wanted")
        }
        EventKind::LeftInKernel { error } => tracing::error!(error, "something stays in the kernel"),
        EventKind::Rotation { service, slot, weight, live, total, queue } => {
            tracing::info!(%service, %slot, weight, live, total, queue, "rotation");
        }
        EventKind::Waiting { pod, port, connections } => tracing::warn!(%pod, port, connections, "waiting"),
        EventKind::Stranger { pod, stranger } => {
            tracing::warn!(%pod, port = stranger.port, pid = stranger.pid, command = stranger.command, "a stranger");
        }
        EventKind::PreStopFailed { target, error } => {
            tracing::warn!(%target, error, "stopped, and its pre_stop did not succeed");
        }
        EventKind::JobFailed { target, exit, log } => {
            tracing::error!(%target, code = exit.code, out_of_memory = exit.out_of_memory, ?log,
                "the job before a new version failed");
        }
        EventKind::Health { service, slot, health } => tracing::info!(%service, %slot, ?health, "health"),
        EventKind::Stuck { service, slot, waiting } => {
            tracing::warn!(%service, %slot, waiting, "takes no connections while others do");
        }
        EventKind::Replaced { service, slot, why } => tracing::warn!(%service, %slot, why, "replaced"),
        EventKind::Rollout { service, milestone } => match milestone {
            Milestone::Begun { underway } => {
                tracing::info!(%service, from = underway.from, to = underway.to, back = underway.back.is_some(), "rollout");
            }
            Milestone::Step { share } => tracing::info!(%service, %share, "rollout goes on"),
            Milestone::Promoted => tracing::info!(%service, "rollout gets everything"),
            Milestone::Failed { version, failure, action } => {
                tracing::error!(%service, version, slot = %failure.slot, reason = %failure.reason, ?action, "rollout failed");
            }
            Milestone::Done { underway, proof } => {
                let proof = proof.map(|proof| proof.to_string());
                tracing::info!(%service, to = underway.to, proof, "rollout done");
            }
        },
        EventKind::PodLost { pod } => tracing::warn!(%pod, "lost its network"),
        EventKind::StateReset { reset } => {
            let StateReset { path, error, moved_to, scale, jobs, post_start, versions } = reset;
            let (path, moved_to) = (path.display(), moved_to.as_ref().map(|path| path.display().to_string()));
            tracing::warn!(%path, error, moved_to, ?scale, ?jobs, post_start, ?versions,
                "the state file was damaged, and the state was made anew");
        }
        EventKind::EngineLost { reason } => tracing::warn!(reason, "the engine is gone"),
        EventKind::EngineBack => tracing::info!("the engine is back"),
        EventKind::Converged => {
            tracing::info!("all is as wanted");
            notify(&[NotifyState::Status("all is as wanted")]);
        }
        EventKind::Removed => tracing::info!("all is removed"),
    }
}

/// A line for each mistake.
fn not_applied(error: &str, mistakes: &[Mistake]) {
    for Mistake { message, file, line, column, help } in mistakes {
        let file = file.as_ref().map(|file| file.display().to_string());
        tracing::error!(file, line, column, mistake = message, help, "the file is not taken");
    }
    if mistakes.is_empty() {
        tracing::error!(error, "the file is not taken");
    }
}

fn log(context: &Context, name: &ProjectName, args: &SuperviseArgs) -> Result<(), CliError> {
    let level = match context.global.verbose {
        0 => "info",
        1 => "sameport=debug,info",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("SAMEPORT_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    // Who reads a log in the background has no terminal.
    let result = match (args.background, args.json) {
        (true, _) => {
            let path = context.paths()?.log(name);
            let file = SmallLog::open(&path).map_err(CliError::io(path.display().to_string()))?;
            log.with_ansi(false).with_writer(file).try_init()
        }
        (false, true) => log.json().with_writer(io::stderr).try_init(),
        (false, false) => {
            log.with_ansi(std::io::IsTerminal::is_terminal(&io::stderr())).with_writer(io::stderr).try_init()
        }
    };
    result.map_err(|error| CliError::failed(format!("cannot write a log: {error}"), None))
}

/// A log that cannot fill the disk.
#[derive(Clone)]
struct SmallLog {
    path: PathBuf,
    file: Arc<Mutex<(File, u64)>>,
}

impl SmallLog {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file: Arc::new(Mutex::new((file, size))) })
    }
}

impl Write for SmallLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut held = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, size) = &mut *held;
        if *size > LARGEST_LOG {
            fs::rename(&self.path, self.path.with_extension("log.1"))?;
            *file = OpenOptions::new().create(true).append(true).open(&self.path)?;
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

impl<'a> MakeWriter<'a> for SmallLog {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
