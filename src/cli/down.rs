//! `sameport down`.

use std::time::Duration;

use clap::Args;
use sameport::{
    spec::{Project, ProjectName},
    supervisor::{Request, StateError},
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
  sameport -p shop down -v      by the project's name, and the data in its volumes, too")]
pub struct DownArgs {
    /// Remove named volumes, too: the data in them is gone then
    #[arg(short, long)]
    volumes: bool,
    /// How long a replica may take to end, whatever the file says
    #[arg(short, long, value_name = "TIME", value_parser = time)]
    timeout: Option<Duration>,
    /// Always so: a project goes as a whole
    #[arg(long, hide = true)]
    remove_orphans: bool,
}

/// Runs `sameport down`.
pub async fn run(context: &Context, args: DownArgs) -> Result<(), CliError> {
    // The engine's labels say what there is to remove; the file only adds how long each replica may take.
    let (name, loaded) = context.load_if_possible()?;
    let request = Request::Down { volumes: args.volumes, grace: args.timeout };
    if context.is_dry_run() {
        return dry_run::show(context, &name, loaded.map(|loaded| loaded.project), request).await;
    }
    takeover::replace(context, &name, Replace::Incompatible).await?;
    let session = open(context, &name, loaded.map(|loaded| loaded.project)).await?;
    let mut signals = Signals::new()?;
    session.ask(request).await?;
    tokio::select! {
        gone = wait::until(context, &session, Until::Gone, None) => gone?,
        // Whoever has typed it by mistake wants to save what is left, at once.
        () = signals.end() => {
            session.cancel_down().await?;
            return Err(CliError::midway(
                "what was not told to end yet is left as it is, and no supervisor runs",
                "`sameport up -d` starts a supervisor and what is missing; `sameport down` removes the rest",
            ));
        }
    }
    state::tell_reset(&session).await?;
    session.leave_gone(context, &name).await?;
    boot::after_down(context, &name).await
}

/// The supervisor that ends what is there. What is remembered is not needed for that.
async fn open(context: &Context, name: &ProjectName, file: Option<Project>) -> Result<Session, CliError> {
    match Session::open(context, name, file.clone()).await {
        Err(CliError::State(error @ StateError::File(_))) => {
            output::note(&format!(
                "warning: {error}; it is not needed to remove the project, and is left as it is"
            ))?;
            Session::open(&context.without_state(), name, file).await
        }
        opened => opened,
    }
}
