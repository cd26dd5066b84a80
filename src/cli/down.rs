//! `sameport down`.

use std::{fs, io, time::Duration};

use clap::Args;
use sameport::{
    kernel::Pins,
    spec::{Project, ProjectName},
    supervisor::{Request, StateError, lock::Lock, paths::Paths},
};

use super::{
    args::time,
    boot,
    context::Context,
    dry_run,
    error::CliError,
    output,
    session::Session,
    signals::Signals,
    state,
    takeover::{self, Replace},
    wait::{self, Until},
};

/// Arguments of `sameport down`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sameport down                 stop and remove all that `up` made here
  sameport -p shop down -v      by the project's name, and the data in its volumes, too
  sameport -p shop down -v --purge     and the supervisor's log: nothing of the project is left")]
pub struct DownArgs {
    /// Also remove named volumes and the data in them
    #[arg(short, long)]
    volumes: bool,
    /// Also remove the supervisor's log and copies of damaged state files
    #[arg(long)]
    purge: bool,
    /// Stop timeout; overrides the file
    #[arg(short, long, value_name = "TIME", value_parser = time)]
    timeout: Option<Duration>,
    /// Accepted for compatibility; `down` always removes the whole project
    #[arg(long, hide = true)]
    remove_orphans: bool,
}

/// Runs `sameport down`.
pub async fn run(context: &Context, mut args: DownArgs) -> Result<(), CliError> {
    // The engine's labels say what to remove; the file only adds the stop timeouts.
    let (name, loaded) = context.load_if_possible()?;
    // The log and the state file belong to the project on the other engine.
    args.purge = args.purge && !is_of_other_engine(context, &name).await;
    let request = Request::Down { volumes: args.volumes, grace: args.timeout };
    if context.is_dry_run() {
        if args.purge {
            would_purge(context, &name)?;
        }
        let file = loaded.map(|loaded| loaded.project);
        return match dry_run::show(context, &name, file.clone(), request.clone()).await {
            Err(CliError::State(error)) if is_not_needed(&error) => {
                tell_of(&error)?;
                dry_run::show(&context.without_state(), &name, file, request).await
            }
            shown => shown,
        };
    }
    takeover::replace(context, &name, Replace::Incompatible).await?;
    let session = open(context, &name, loaded.map(|loaded| loaded.project)).await?;
    let mut signals = Signals::new()?;
    session.ask(request).await?;
    tokio::select! {
        gone = wait::until(context, &session, Until::Gone, None) => gone?,
        // If `down` was a mistake, the rest must stay.
        () = signals.end() => {
            session.cancel_down().await?;
            return Err(CliError::midway(
                "replicas that were not stopped yet keep running, without a supervisor",
                "`sameport up -d` starts a supervisor and what is missing; `sameport down` removes the rest",
            ));
        }
    }
    state::note_reset(&session).await?;
    let locks = session.leave_gone(context, &name).await?;
    boot::after_down(context, &name).await?;
    clear(context, &name, locks, &args)
}

/// Removes the files of a removed project. Its locks are held, so that no supervisor starts meanwhile.
fn clear(
    context: &Context,
    name: &ProjectName,
    locks: Option<Vec<Lock>>,
    args: &DownArgs,
) -> Result<(), CliError> {
    let Some(locks) = locks else {
        return match args.purge {
            true => Err(CliError::failed(
                "the project is removed, but not its log: another supervisor has started",
                Some(&format!("`sameport -p {name} down --purge` once more")),
            )),
            false => Ok(()),
        };
    };
    if context.endpoint()?.is_local() {
        clear_kernel(name)?;
    }
    if args.purge {
        purge(&context.paths()?, name)?;
    }
    Ok(locks.into_iter().try_for_each(Lock::remove)?)
}

/// Removes pins that the supervisor could not remove, for example because it had no file descriptors left. The kernel
/// of this host has pins of projects on the local engine only.
fn clear_kernel(name: &ProjectName) -> Result<(), CliError> {
    if !Pins::exist(name) {
        return Ok(());
    }
    // Only a warning: the pins can belong to a project of the same name on another engine.
    Pins::clear(name).or_else(|error| {
        output::note(&format!("warning: something of the project is left in the kernel: {error}"))
    })
}

/// Removes everything that `down` keeps.
fn purge(paths: &Paths, name: &ProjectName) -> Result<(), CliError> {
    for path in paths.kept(name) {
        let removed = match fs::remove_file(&path) {
            // The path of a state file can be an empty directory.
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => fs::remove_dir(&path),
            removed => removed,
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(CliError::io(format!("cannot remove {}", path.display()))(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn would_purge(context: &Context, name: &ProjectName) -> Result<(), CliError> {
    let mut kept = context.paths()?.kept(name);
    kept.retain(|path| path.symlink_metadata().is_ok());
    kept.iter().try_for_each(|path| output::note(&format!("would remove {}", path.display())))
}

/// The supervisor that removes the project. It does not need the stored state, so a damaged one is ignored with a
/// warning.
async fn open(context: &Context, name: &ProjectName, file: Option<Project>) -> Result<Session, CliError> {
    match Session::open(context, name, file.clone()).await {
        Err(CliError::State(error)) if is_not_needed(&error) => {
            tell_of(&error)?;
            Session::open(&context.without_state(), name, file).await
        }
        opened => opened,
    }
}

/// Whether the state file belongs to a project of the same name on another engine. False if the engine does not answer.
async fn is_of_other_engine(context: &Context, name: &ProjectName) -> bool {
    let Ok(docker) = context.engine().await else { return false };
    let settings = context.settings(name, &docker).await;
    settings.is_ok_and(|settings| matches!(settings.state.load(), Err(StateError::OtherEngine { .. })))
}

/// Whether a project can be removed despite this error. A newer release may have created objects that this release does
/// not know.
fn is_not_needed(error: &StateError) -> bool {
    match error {
        StateError::File(_) | StateError::OtherEngine { .. } => true,
        StateError::Newer { .. } => false,
    }
}

fn tell_of(error: &StateError) -> Result<(), CliError> {
    output::note(&format!("warning: {error}; not needed to remove the project, and not changed"))
}
