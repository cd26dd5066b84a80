//! `sameport up`.

use std::{cell::Cell, collections::BTreeMap, time::Duration};

use clap::Args;
use sameport::{
    api::convert,
    compose::Loaded,
    control_chars::visible,
    engine::docker::{Docker, START_INTERVAL},
    plan::Orphans,
    spec::{Project, ProjectName, Service, ServiceName},
    supervisor::{Apply, EventKind, Reading, Request},
};

use super::{
    args::{ScaleArg, time},
    background::{self, Start},
    boot::{self, Boot, Setup},
    confirm,
    context::{Context, who},
    dry_run,
    error::CliError,
    layout, logs, output,
    pull::{Found, Pull, pull},
    reload::{self, Reload},
    replicas::Finder,
    session::Session,
    shared_data,
    signals::{Signals, Wanted},
    state,
    takeover::{self, Replace},
    wait::{self, Until},
};

/// Arguments of `sameport up`.
#[derive(Args, Debug)]
// `-V` is `--renew-anon-volumes` here, as for Docker Compose.
#[command(
    disable_version_flag = true,
    after_help = "Examples:
  sameport up                        run the Compose file here, and show what the replicas write
  sameport up -d --scale web=4       four replicas of `web`, supervised in the background
  sameport up -d --watch             do so again by itself whenever the file changes"
)]
pub struct UpArgs {
    /// Leave the supervisor running in the background
    #[arg(short, long)]
    detach: bool,
    /// Apply the Compose file again whenever it or one of its env files changes
    #[arg(long)]
    watch: bool,
    /// Set the number of replicas of a service
    #[arg(long, value_name = "SERVICE=N")]
    scale: Vec<ScaleArg>,
    /// Do not ask for confirmation, however many replicas --scale starts
    #[arg(short, long)]
    yes: bool,
    /// Wait until all replicas are ready; implies --detach
    #[arg(long)]
    wait: bool,
    /// How long --wait may take
    #[arg(long, value_name = "TIME", value_parser = time, requires = "wait")]
    wait_timeout: Option<Duration>,
    /// When to pull images; overrides the file
    #[arg(long, value_enum)]
    pull: Option<Pull>,
    /// Remove containers of services that the file no longer has
    #[arg(long)]
    remove_orphans: bool,
    /// Replace a pod whose published ports or networks have changed; its service is interrupted
    #[arg(long)]
    recreate_pod: bool,
    /// Give replicas that are created now new anonymous volumes; the data in the old ones is lost
    #[arg(short = 'V', long)]
    renew_anon_volumes: bool,
    /// Stop timeout; overrides the file
    #[arg(short, long, value_name = "TIME", value_parser = time)]
    timeout: Option<Duration>,
    /// Only these services and their dependencies
    services: Vec<ServiceName>,
}

/// Runs `sameport up`.
pub async fn run(context: &Context, args: UpArgs) -> Result<(), CliError> {
    let scale = confirm::counts(&args.scale)?;
    let (loaded, files) = context.read();
    let loaded = loaded?;
    let seen = args.watch.then(|| reload::reading(&loaded, &files));
    let name = loaded.project.name.clone();
    let mut reload = Reload::new(context, &name, files);
    if args.watch {
        reload.watch()?;
    }
    if !args.yes {
        confirm::large(context, &scale, &loaded.project).await?;
    }
    shared_data::check(context, &loaded.project, &scale, args.yes).await?;
    let docker = context.engine().await?;
    start_intervals(&docker, &loaded.project)?;
    if context.is_dry_run() {
        let images = dry_run::images(&docker, &loaded.project, args.pull).await?;
        let request = UpRequest::new(context, &args, scale, images, None).of(&loaded);
        return dry_run::show(context, &name, None, request).await;
    }
    // Before any image is pulled.
    layout::check(context, &name, Some(&loaded.project), &docker).await?;
    let finder = Finder::of(context, &name, Some(&loaded.project));
    let mut signals = Signals::new()?;
    let fetched = pull(&docker, &loaded.project, &args.services, args.pull);
    let images = tokio::select! {
        fetched = fetched => fetched?,
        () = signals.end() => return Err(CliError::Interrupted),
    };
    let up_request = UpRequest::new(context, &args, scale, images, seen);
    takeover::replace(context, &name, Replace::Older).await?;
    match Session::running(context, &name).await? {
        Some(session) if args.detach || args.wait => {
            let done = in_background(&session, &loaded, &up_request, &mut signals).await;
            both(done, boot_after_up(&up_request, &name, false).await)
        }
        Some(session) => beside(session, &docker, finder, &loaded, &up_request, &mut signals).await,
        None if args.detach || args.wait => {
            takeover::check(context, &docker, &name).await?;
            let damage = context.state(&name)?.load()?.damage;
            let project = context.project_args();
            let start = Start { project, environment: BTreeMap::new(), resume: false, watch: args.watch };
            let session = background::spawn(context, &name, &start).await?;
            let done = in_background(&session, &loaded, &up_request, &mut signals).await;
            let done = match damage {
                Some(_) => state::note_background_reset(&session).await.and(done),
                None => done,
            };
            both(done, boot_after_up(&up_request, &name, true).await)
        }
        None => {
            let session = Session::begin(context, &loaded.project, docker.clone()).await?;
            in_foreground(&mut reload, session, &docker, &finder, &loaded, &up_request, &mut signals).await
        }
    }
}

/// Returns the first error. If both failed, prints the second one.
fn both(done: Result<(), CliError>, then: Result<(), CliError>) -> Result<(), CliError> {
    match (done, then) {
        (Err(error), Err(other)) => {
            output::colored_note(&other.render().unwrap_or_default())?;
            Err(error)
        }
        (done, then) => done.and(then),
    }
}

/// If the project is enabled, the unit's supervisor replaces one in the background, and a unit that was changed is
/// restarted. Both resume what was requested. If the project is not enabled and this command has just started a
/// supervisor, notes that the project does not start at boot.
async fn boot_after_up(up_request: &UpRequest<'_>, name: &ProjectName, begun: bool) -> Result<(), CliError> {
    let context = up_request.context;
    match Boot::of_this_user() {
        Ok(boot) if boot.is_there() && boot.is_ours(name) => {
            boot::hand_over(context, &context.paths()?, &boot, name, up_request.renewed.get()).await?;
            match Session::running(context, name).await? {
                Some(session) => up_request.watch(&session).await,
                None => Ok(()),
            }
        }
        _ if begun => boot::hint(context, name),
        _ => Ok(()),
    }
}

/// Updates the unit of an enabled project to the arguments of this command, so that the next boot uses the same.
async fn renew_unit(up_request: &UpRequest<'_>, loaded: &Loaded) -> Result<(), CliError> {
    let context = up_request.context;
    let Ok(boot) = Boot::of_this_user() else { return Ok(()) };
    if !boot.is_there() || !boot.is_ours(&loaded.project.name) {
        return Ok(());
    }
    let renewed = async { Setup::of(context, boot, loaded, None)?.write().await };
    match renewed.await {
        Ok(renewed) => {
            up_request.renewed.set(renewed);
            Ok(())
        }
        Err(error) => {
            let error = error.render().unwrap_or_default();
            output::colored_note(&format!("warning: after a reboot the project may differ from now\n{error}"))
        }
    }
}

/// Warns of `start_interval` in health checks, if the engine is too old for it.
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

/// A request of `up`, from its arguments.
struct UpRequest<'a> {
    context: &'a Context,
    args: &'a UpArgs,
    scale: BTreeMap<ServiceName, u32>,
    images: Found,
    /// The files for another process to watch.
    seen: Option<Reading>,
    /// Whether the project's unit was changed.
    renewed: Cell<bool>,
}

impl<'a> UpRequest<'a> {
    fn new(
        context: &'a Context,
        args: &'a UpArgs,
        scale: BTreeMap<ServiceName, u32>,
        images: Found,
        seen: Option<Reading>,
    ) -> Self {
        Self { context, args, scale, images, seen, renewed: Cell::new(false) }
    }

    /// Sends the request to the supervisor.
    async fn ask(&self, session: &Session, loaded: &Loaded) -> Result<(), CliError> {
        // If the files cannot be watched, nothing must change.
        self.watch(session).await?;
        session.ask(self.of(loaded)).await?;
        // The files may have changed since they were read here.
        self.watch(session).await
    }

    async fn watch(&self, session: &Session) -> Result<(), CliError> {
        match &self.seen {
            Some(seen) => session.ask(Request::Watch(seen.clone())).await,
            None => Ok(()),
        }
    }

    fn of(&self, loaded: &Loaded) -> Request {
        let args = self.args;
        Request::Apply(Box::new(Apply {
            services: args.services.clone(),
            scale: self.scale.clone(),
            orphans: if args.remove_orphans { Orphans::Remove } else { Orphans::Keep },
            again: true,
            images: self.images.ids.clone(),
            renew: self.images.renewed.clone(),
            recreate_pod: args.recreate_pod,
            renew_volumes: args.renew_anon_volumes,
            variables: loaded.variables.given.clone(),
            folder: Some(loaded.directory.clone()),
            ..Apply::all(loaded.project.clone(), who())
        }))
    }
}

async fn in_background(
    session: &Session,
    loaded: &Loaded,
    up_request: &UpRequest<'_>,
    signals: &mut Signals,
) -> Result<(), CliError> {
    let mut events = session.events().await?;
    up_request.ask(session, loaded).await?;
    renew_unit(up_request, loaded).await?;
    let args = up_request.args;
    let until = if args.wait { Until::Steady } else { Until::Started };
    let publish = loaded.project.pods.values().flat_map(|pod| &pod.ports).map(|port| port.service.clone());
    let done = async {
        wait::services(up_request.context, session, &mut events, until, args.wait_timeout, &args.services)
            .await?;
        match until {
            Until::Started => {
                wait::until_taken(up_request.context, session, events, &publish.collect()).await
            }
            _ => Ok(()),
        }
    };
    let done = tokio::select! {
        done = done => done,
        () = signals.end() => {
            return Err(CliError::midway(
                "the supervisor continues in the background",
                "`sameport ps` shows the progress; `sameport stop` or `sameport down` stops it",
            ));
        }
    };
    let told = sharing(session).await;
    let checks = health_checks(session, loaded).await;
    done.and(told).and(checks)?;
    orphans(session).await
}

/// Shows the health checks that cannot be run at their place in the file.
async fn health_checks(session: &Session, loaded: &Loaded) -> Result<(), CliError> {
    let mut errors = BTreeMap::new();
    for replica in session.status().await?.replicas {
        if let Some(error) = replica.health_check_error {
            errors.entry(replica.service).or_insert(error);
        }
    }
    errors.into_iter().try_for_each(|(service, error)| {
        // The health check comes from the image, not from the file.
        let Some(place) = loaded.health_checks.get(&service) else { return Ok(()) };
        let mut shown = place.clone();
        shown.message = format!("the health check of {service} cannot be run, and is ignored");
        shown.label = Some(visible(&error).into_owned());
        output::colored_note(&shown.render(true))
    })
}

/// Reports why the kernel does not share ports, if it does not. Known only once replicas run.
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

/// Attaches to a supervisor in another process: sends the request and shows events and logs.
async fn beside(
    session: Session,
    docker: &Docker,
    finder: Finder,
    loaded: &Loaded,
    up_request: &UpRequest<'_>,
    signals: &mut Signals,
) -> Result<(), CliError> {
    let events = session.events().await?;
    up_request.ask(&session, loaded).await?;
    renew_unit(up_request, loaded).await?;
    output::note("a supervisor runs in the background: Ctrl-C ends this display, and nothing else")?;
    let show = async {
        wait::services(up_request.context, &session, events, Until::Up, None, &[]).await?;
        logs::follow_all(up_request.context, docker, finder, &up_request.args.services).await
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
    loaded: &Loaded,
    up_request: &UpRequest<'_>,
    signals: &mut Signals,
) -> Result<(), CliError> {
    session.ask(up_request.of(loaded)).await?;
    renew_unit(up_request, loaded).await?;
    reload.hear(&session, "Ctrl-C in its terminal ends it and stops all replicas");
    let end = attend(reload, &session, docker, finder, up_request, signals).await;
    let stopped = match session.has_ended().await {
        true => Ok(()),
        false => stop(&session, docker, finder, up_request, signals).await,
    };
    session.leave().await.and(stopped).and(end)
}

/// Shows events and logs and applies changed files, until a signal requests an end.
async fn attend(
    reload: &mut Reload<'_>,
    session: &Session,
    docker: &Docker,
    finder: &Finder,
    up_request: &UpRequest<'_>,
    signals: &mut Signals,
) -> Result<(), CliError> {
    let show = async {
        match wait::until(up_request.context, session, Until::Up, None).await {
            Ok(()) => {}
            Err(CliError::ClosedPipe) => return Err(CliError::ClosedPipe),
            // The supervisor keeps trying, so a failure is shown and does not end the command.
            Err(error) => output::colored_note(&error.render().unwrap_or_default())?,
        }
        state::note_reset(session).await?;
        sharing(session).await?;
        orphans(session).await?;
        tokio::try_join!(
            logs::follow_all(up_request.context, docker, finder.clone(), &up_request.args.services),
            super::events::show_new(up_request.context, session),
        )
    };
    tokio::pin!(show);
    loop {
        tokio::select! {
            // Another process ran `sameport down`, or the reader has closed the pipe.
            shown = &mut show => return shown.map(|_| ()),
            wanted = signals.next() => match wanted {
                Wanted::Reload => {}
                Wanted::End => return Err(CliError::Interrupted),
            },
            wanted = reload.wanted() => if let Err(error) = wanted {
                session.tell(EventKind::WatchUnavailable { error: error.to_string() });
                continue;
            },
        }
        tokio::select! {
            applied = apply_anew(reload, session, docker, up_request) => applied?,
            // Pulling an image can take long.
            () = signals.end() => return Err(CliError::Interrupted),
        }
    }
}

/// The request to apply a changed file. Options of the first `up`, such as `--scale` or `--recreate-pod`, do not apply
/// again: they could undo later requests, or interrupt a pod without confirmation.
fn anew(args: &UpArgs, images: Found, loaded: Loaded) -> Request {
    Request::Apply(Box::new(Apply {
        services: args.services.clone(),
        images: images.ids,
        renew: images.renewed,
        variables: loaded.variables.given,
        folder: Some(loaded.directory),
        ..Apply::all(loaded.project, who())
    }))
}

/// Applies the file as it is now, or reports why it is rejected.
async fn apply_anew(
    reload: &mut Reload<'_>,
    session: &Session,
    docker: &Docker,
    up_request: &UpRequest<'_>,
) -> Result<(), CliError> {
    let applied = async {
        let loaded = reload.load()?;
        let images = pull(docker, &loaded.project, &up_request.args.services, up_request.args.pull).await?;
        session.ask(anew(up_request.args, images, loaded)).await
    };
    match applied.await {
        Ok(()) => {
            reload.taken();
            output::note("Compose file applied")?;
            orphans(session).await
        }
        // The last valid file stays in effect.
        Err(error) => {
            let Some(event) = reload.refused(&error) else { return Ok(()) };
            session.tell(event);
            output::colored_note(&error.render().unwrap_or_default())?;
            output::note("Compose file rejected; nothing changed")
        }
    }
}

/// Stops all replicas and keeps their containers. A second signal kills them.
async fn stop(
    session: &Session,
    docker: &Docker,
    finder: &Finder,
    up_request: &UpRequest<'_>,
    signals: &mut Signals,
) -> Result<(), CliError> {
    // Standard error may be closed.
    let _ = output::note("stopping; Ctrl-C again kills");
    session.ask(Request::Close { grace: up_request.args.timeout }).await?;
    tokio::select! {
        stopped = wait::until(up_request.context, session, Until::Up, None) => match stopped {
            // Another process has removed the project with `sameport down`.
            Err(_) if session.has_ended().await => {}
            stopped => stopped?,
        },
        () = signals.end() => {
            let _ = output::note("killing");
            super::kill::all(docker, &mut finder.clone()).await?;
            tokio::select! {
                stopped = wait::until(up_request.context, session, Until::Up, None) => stopped?,
                () = signals.end() => {}
            }
        }
    }
    Ok(())
}
