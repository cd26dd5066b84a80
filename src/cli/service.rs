//! `sameport scale`, `restart`, `stop`, `start`.

use std::time::Duration;

use clap::Args;
use sameport::{spec::ServiceName, supervisor::Request};

use super::{
    args::{ScaleArg, time},
    confirm,
    context::Context,
    dry_run,
    error::CliError,
    selector::{self, Written},
    session::Session,
    shared_data,
    signals::Signals,
    state,
    wait::{self, Until},
};

/// Arguments of `sameport scale`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  sameport scale web=4 jobs=2")]
pub struct ScaleArgs {
    /// Do not ask for confirmation, however many replicas are started
    #[arg(short, long)]
    yes: bool,
    /// The number of replicas of each service
    #[arg(required = true, value_name = "SERVICE=N")]
    counts: Vec<ScaleArg>,
}

/// Arguments of `sameport restart`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  sameport restart web      each replica of `web`, one at a time\n  sameport restart web-2    one of them"
)]
pub struct RestartArgs {
    /// Stop timeout; overrides the file
    #[arg(short, long, value_name = "TIME", value_parser = time)]
    timeout: Option<Duration>,
    /// Services or replicas, such as web or web-2; without any, all services
    #[arg(value_name = "SERVICE[-N]")]
    replicas: Vec<Written>,
}

/// Arguments of `sameport stop`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  sameport stop web")]
pub struct StopArgs {
    /// Stop timeout; overrides the file
    #[arg(short, long, value_name = "TIME", value_parser = time)]
    timeout: Option<Duration>,
    /// Services; without any, all
    services: Vec<ServiceName>,
}

/// Arguments of `sameport start`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  sameport start web")]
pub struct StartArgs {
    /// Services; without any, all
    services: Vec<ServiceName>,
}

/// Runs `sameport scale`.
pub async fn scale(context: &Context, args: ScaleArgs) -> Result<(), CliError> {
    let counts = confirm::counts(&args.counts)?;
    if let (false, (_, Some(loaded))) = (args.yes, context.load_if_possible()?) {
        confirm::large(context, &counts, &loaded.project).await?;
        shared_data::check(context, &loaded.project, &counts, args.yes).await?;
    }
    ask(context, Request::Scale(counts)).await
}

/// Runs `sameport restart`.
pub async fn restart(context: &Context, args: RestartArgs) -> Result<(), CliError> {
    let replicas = selector::resolve(context, &args.replicas).await?;
    ask(context, Request::Restart { replicas, grace: args.timeout }).await
}

/// Runs `sameport stop`.
pub async fn stop(context: &Context, args: StopArgs) -> Result<(), CliError> {
    ask(context, Request::Stop { services: args.services, grace: args.timeout }).await
}

/// Runs `sameport start`.
pub async fn start(context: &Context, args: StartArgs) -> Result<(), CliError> {
    ask(context, Request::Start { services: args.services }).await
}

async fn ask(context: &Context, request: Request) -> Result<(), CliError> {
    if context.is_dry_run() {
        return dry_run::change(context, request).await;
    }
    let (_, session) = Session::for_change(context).await?;
    let mut signals = Signals::new()?;
    session.ask(request).await?;
    let done = tokio::select! {
        done = wait::until(context, &session, Until::Up, None) => done,
        () = signals.end() => Err(match session.is_own() {
            false => CliError::midway(
                "the supervisor continues",
                "`sameport ps` shows the progress",
            ),
            true => CliError::midway(
                "nothing is undone, and no supervisor runs",
                "`sameport up -d` starts one",
            ),
        }),
    };
    let done = state::note_reset(&session).await.and(done);
    session.leave().await.and(done)
}
