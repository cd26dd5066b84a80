//! `sameport up`.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

use clap::Args;
use sameport::{
    api::{Client, convert},
    engine::docker::{Docker, START_INTERVAL},
    plan::Orphans,
    spec::{Project, ProjectName, Service, ServiceName},
    supervisor::{Apply, EventKind, Reading, Request, lock::Lock},
};
use tokio::time::Instant;

use super::{
    args::{Count, time},
    confirm,
    context::{Context, who},
    dry_run,
    error::CliError,
    layout, logs, output,
    pull::{Found, Pull, pull},
    reload::{self, Reload},
    replicas::Finder,
    session::Session,
    signals::{Signals, Wanted},
    state,
    takeover::{self, Replace},
    wait::{self, Until},
};

/// Arguments of `sameport up`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sameport up                        run the Compose file here, and show what the replicas write
  sameport up -d --scale web=4       four replicas of `web`, supervised in the background
  sameport up -d --watch             do so again by itself whenever the file changes")]
pub struct UpArgs {
    /// Leave the supervisor running in the background
    #[arg(short, long)]
    detach: bool,
    /// Read the file anew whenever it changes, or a file of variables does, and make it so
    #[arg(long)]
    watch: bool,
    /// Run so many replicas of a service
    #[arg(long, value_name = "SERVICE=N")]
    scale: Vec<Count>,
    /// Do not ask, however many replicas --scale wants
    #[arg(short, long)]
    yes: bool,
    /// Wait until all is up and healthy; implies --detach
    #[arg(long)]
    wait: bool,
    /// How long to wait at most
    #[arg(long, value_name = "TIME", value_parser = time, requires = "wait")]
    wait_timeout: Option<Duration>,
    /// When images are fetched, whatever the file says
    #[arg(long, value_enum)]
    pull: Option<Pull>,
    /// Remove containers of services that the file no longer has
    #[arg(long)]
    remove_orphans: bool,
    /// Take a pod down whose published ports or networks have changed: until the new one is open nobody is served
    #[arg(long)]
    recreate_pod: bool,
    /// How long a replica may take to end, whatever the file says
    #[arg(short, long, value_name = "TIME", value_parser = time)]
    timeout: Option<Duration>,
    /// Only these services, and what they depend on
    services: Vec<ServiceName>,
}

/// How long a supervisor in the background may take to begin.
const BEGIN: Duration = Duration::from_secs(10);

/// Runs `sameport up`.
pub async fn run(context: &Context, args: UpArgs) -> Result<(), CliError> {
    let scale = confirm::counts(&args.scale)?;
    let (loaded, files) = context.read();
    let loaded = loaded?;
    let seen = args.watch.then(|| reload::reading(&loaded, &files));
    let project = loaded.project;
    let name = project.name.clone();
    let mut reload = Reload::new(context, &name, files);
    if args.watch {
        reload.watch()?;
    }
    if !args.yes {
        confirm::large(context, &scale, &project).await?;
    }
    let docker = context.engine().await?;
    start_intervals(&docker, &project)?;
    if context.is_dry_run() {
        let images = dry_run::images(&docker, &project, args.pull).await?;
        let request = Wish { context, args: &args, scale, images, seen: None }.of(project);
        return dry_run::show(context, &name, None, request).await;
    }
    // Also before an image is fetched.
    layout::check(context, &name, Some(&project), &docker).await?;
    let finder = Finder::of(context, &name, Some(&project));
    let mut signals = Signals::new()?;
    let fetched = pull(&docker, &project, &args.services, args.pull);
    let images = tokio::select! {
        fetched = fetched => fetched?,
        () = signals.end() => return Err(CliError::Interrupted),
    };
    let wish = Wish { context, args: &args, scale, images, seen };
    takeover::replace(context, &name, Replace::Older).await?;
    match Session::running(context, &name).await? {
        Some(session) if args.detach || args.wait => {
            in_background(&session, project, &wish, &mut signals).await
        }
        Some(session) => beside(session, &docker, finder, project, &wish, &mut signals).await,
        None if args.detach || args.wait => {
            takeover::check(context, &docker, &name)?;
            let damage = context.state(&name)?.load()?.damage;
            let session = spawn(context, &name, &args).await?;
            let done = in_background(&session, project, &wish, &mut signals).await;
            match damage {
                Some(_) => state::tell_reset_of_other(&session).await.and(done),
                None => done,
            }
        }
        None => {
            let session = Session::begin(context, &project, docker.clone()).await?;
            in_foreground(&mut reload, session, &docker, &finder, project, &wish, &mut signals).await
        }
    }
}

/// Says which health checks are asked less often at first than the file says, because the engine cannot.
fn start_intervals(docker: &Docker, project: &Project) -> Result<(), CliError> {
    let has_one = |service: &&Service| {
        service.container.healthcheck.as_ref().is_some_and(|check| check.start_interval.is_some())
    };
    let names: Vec<_> = project.services.values().filter(has_one).map(|s| s.name.to_string()).collect();
    if names.is_empty() || docker.speaks(START_INTERVAL) {
        return Ok(());
    }
    output::note(&format!(
        "warning: `start_interval` in the health check of {} has no effect: the engine is asked every `interval`, also at \
         first, since it is older than Docker Engine 25; a `probe` under `x-sameport` asks five times a second until a \
         replica is ready",
        names.join(", ")
    ))
}

/// What is asked for, whatever the file says.
struct Wish<'a> {
    context: &'a Context,
    args: &'a UpArgs,
    scale: BTreeMap<ServiceName, u32>,
    images: Found,
    /// What another process shall watch.
    seen: Option<Reading>,
}

impl Wish<'_> {
    /// Asks the supervisor for it.
    async fn ask(&self, session: &Session, project: Project) -> Result<(), CliError> {
        // Before anything changes it is found out whether the files can be watched.
        self.watch(session).await?;
        session.ask(self.of(project)).await?;
        // And what has changed since they were read here, once this is done.
        self.watch(session).await
    }

    async fn watch(&self, session: &Session) -> Result<(), CliError> {
        match &self.seen {
            Some(seen) => session.ask(Request::Watch(seen.clone())).await,
            None => Ok(()),
        }
    }

    fn of(&self, project: Project) -> Request {
        let args = self.args;
        Request::Apply(Box::new(Apply {
            services: args.services.clone(),
            scale: self.scale.clone(),
            orphans: if args.remove_orphans { Orphans::Remove } else { Orphans::Keep },
            again: true,
            images: self.images.ids.clone(),
            renew: self.images.renewed.clone(),
            recreate_pod: args.recreate_pod,
            ..Apply::all(project, who())
        }))
    }
}

async fn in_background(
    session: &Session,
    project: Project,
    wish: &Wish<'_>,
    signals: &mut Signals,
) -> Result<(), CliError> {
    wish.ask(session, project).await?;
    let args = wish.args;
    let until = if args.wait { Until::Steady } else { Until::Started };
    let done = tokio::select! {
        done = wait::services(wish.context, session, until, args.wait_timeout, &args.services) => done,
        () = signals.end() => {
            return Err(CliError::midway(
                "the supervisor goes on in the background with what was asked for",
                "`sameport ps` shows how far it is; `sameport stop` or `sameport down` ends it",
            ));
        }
    };
    let told = sharing(session).await;
    done.and(told)?;
    orphans(session).await
}

/// Says in one line what is missing where the kernel was to share ports and cannot. That is known by when replicas run.
async fn sharing(session: &Session) -> Result<(), CliError> {
    let reason = session.status().await?.pods.into_iter().find_map(|pod| pod.sharing_error);
    reason.map_or(Ok(()), |reason| output::note(&convert::shared_by_application(&reason)))
}

async fn orphans(session: &Session) -> Result<(), CliError> {
    let orphans = session.status().await?.orphans;
    if orphans.is_empty() {
        return Ok(());
    }
    output::note(&format!(
        "warning: the file has no services for {}; `--remove-orphans` removes them",
        orphans.join(", ")
    ))
}

/// Another process supervises, and this one shows.
async fn beside(
    session: Session,
    docker: &Docker,
    finder: Finder,
    project: Project,
    wish: &Wish<'_>,
    signals: &mut Signals,
) -> Result<(), CliError> {
    wish.ask(&session, project).await?;
    output::note("a supervisor runs in the background: Ctrl-C ends this display, and nothing else")?;
    let show = async {
        wait::until(wish.context, &session, Until::Up, None).await?;
        logs::follow_all(wish.context, docker, finder, &wish.args.services).await
    };
    tokio::select! {
        shown = show => shown,
        () = signals.end() => Err(CliError::Interrupted),
    }
}

async fn in_foreground(
    reload: &mut Reload<'_>,
    session: Session,
    docker: &Docker,
    finder: &Finder,
    project: Project,
    wish: &Wish<'_>,
    signals: &mut Signals,
) -> Result<(), CliError> {
    session.ask(wish.of(project)).await?;
    reload.hear(&session, "Ctrl-C where it runs ends it, and stops everything");
    let end = attend(reload, &session, docker, finder, wish, signals).await;
    let stopped = match session.has_ended().await {
        true => Ok(()),
        false => stop(&session, docker, finder, wish, signals).await,
    };
    session.leave().await;
    stopped.and(end)
}

/// Shows what happens and does what is wanted, until that is an end.
async fn attend(
    reload: &mut Reload<'_>,
    session: &Session,
    docker: &Docker,
    finder: &Finder,
    wish: &Wish<'_>,
    signals: &mut Signals,
) -> Result<(), CliError> {
    let show = async {
        match wait::until(wish.context, session, Until::Up, None).await {
            Ok(()) => {}
            Err(CliError::ClosedPipe) => return Err(CliError::ClosedPipe),
            // What keeps failing is shown, and tried again; that is what a supervisor is for.
            Err(error) => output::note(&error.render().unwrap_or_default())?,
        }
        state::tell_reset(session).await?;
        sharing(session).await?;
        orphans(session).await?;
        tokio::try_join!(
            logs::follow_all(wish.context, docker, finder.clone(), &wish.args.services),
            super::events::show_new(wish.context, session),
        )
    };
    tokio::pin!(show);
    loop {
        tokio::select! {
            // The supervisor has ended, by `sameport down` from elsewhere; or nobody reads our output any more.
            shown = &mut show => return shown.map(|_| ()),
            wanted = signals.next() => match wanted {
                Wanted::Reload => {}
                Wanted::End => return Err(CliError::Interrupted),
            },
            wanted = reload.wanted() => if let Err(error) = wanted {
                session.tell(EventKind::NotWatched { error: error.to_string() });
                continue;
            },
        }
        tokio::select! {
            applied = apply_anew(reload, session, docker, wish) => applied?,
            // Fetching an image can take long.
            () = signals.end() => return Err(CliError::Interrupted),
        }
    }
}

/// The file once more. What was said of the first time, such as `--scale` or `--recreate-pod`, was said of that: it would undo
/// what others have asked for since, or take down what nobody was asked about.
fn anew(args: &UpArgs, images: Found, project: Project) -> Request {
    Request::Apply(Box::new(Apply {
        services: args.services.clone(),
        images: images.ids,
        renew: images.renewed,
        ..Apply::all(project, who())
    }))
}

/// Makes it so as the file says by now, or says what is wrong with it.
async fn apply_anew(
    reload: &mut Reload<'_>,
    session: &Session,
    docker: &Docker,
    wish: &Wish<'_>,
) -> Result<(), CliError> {
    let applied = async {
        let project = reload.load()?;
        let images = pull(docker, &project, &wish.args.services, wish.args.pull).await?;
        session.ask(anew(wish.args, images, project)).await
    };
    match applied.await {
        Ok(()) => {
            reload.taken();
            output::note("Compose file applied")?;
            orphans(session).await
        }
        // What was valid before stays in force.
        Err(error) => {
            let Some(event) = reload.refused(&error) else { return Ok(()) };
            session.tell(event);
            output::note(&error.render().unwrap_or_default())?;
            output::note("Compose file rejected; nothing changed")
        }
    }
}

/// Stops all replicas and keeps their containers; a second signal kills.
async fn stop(
    session: &Session,
    docker: &Docker,
    finder: &Finder,
    wish: &Wish<'_>,
    signals: &mut Signals,
) -> Result<(), CliError> {
    // Nobody may be there to read it.
    let _ = output::note("stopping; Ctrl-C again kills");
    session.ask(Request::Close { grace: wish.args.timeout }).await?;
    tokio::select! {
        stopped = wait::until(wish.context, session, Until::Up, None) => match stopped {
            // `sameport down` from elsewhere has removed it all meanwhile.
            Err(_) if session.has_ended().await => {}
            stopped => stopped?,
        },
        () = signals.end() => {
            let _ = output::note("killing");
            super::kill::all(docker, &mut finder.clone()).await?;
            tokio::select! {
                stopped = wait::until(wish.context, session, Until::Up, None) => stopped?,
                () = signals.end() => {}
            }
        }
    }
    Ok(())
}

/// Begins a supervisor in the background, and waits until it answers.
async fn spawn(context: &Context, name: &ProjectName, args: &UpArgs) -> Result<Session, CliError> {
    // So that who holds the lock is told at once, and by us.
    drop(Lock::acquire(&context.paths()?.lock(name))?);
    let log = context.paths()?.log(name);
    let mut child = launch(context, name, args)?;
    let deadline = Instant::now() + BEGIN;
    loop {
        if let Some(client) = Client::connect(&context.paths()?.socket(name)).await? {
            return Ok(Session::Other(client));
        }
        let ended = child.try_wait().map_err(CliError::io("the supervisor"))?;
        if ended.is_some() || Instant::now() > deadline {
            let words = fs::read_to_string(&log).unwrap_or_default();
            let last: Vec<_> = words.lines().rev().take(5).collect();
            let last: Vec<_> = last.into_iter().rev().collect();
            return Err(CliError::failed(
                format!("the supervisor in the background did not begin: {}", last.join("\n")),
                Some(&format!("its log is {}", log.display())),
            ));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn launch(context: &Context, name: &ProjectName, args: &UpArgs) -> Result<Child, CliError> {
    let path = context.paths()?.log(name);
    let fail =
        |error: io::Error| CliError::io(format!("cannot begin the supervisor ({})", path.display()))(error);
    let log = fs::OpenOptions::new().create(true).append(true).open(&path).map_err(fail)?;
    let program = std::env::current_exe().map_err(fail)?;
    Command::new(program)
        .args(context.project_args())
        .args(["supervise", "--background"])
        .args(args.watch.then_some("--watch"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        // Ctrl-C in this terminal is not meant for it.
        .process_group(0)
        .spawn()
        .map_err(fail)
}
