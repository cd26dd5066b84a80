//! `sameport rollout`: changes the version of a service, and controls how that proceeds.

use std::{str::FromStr, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use sameport::{
    api::{
        convert::{self, Environment},
        schema::{self, Pinned, Reason, Revision, RevisionState, RolloutStatus},
    },
    engine::{Engine, docker::Docker},
    plan::versions::{Rejected, Steps, Versions},
    spec::{Image, Project, ServiceName, Share},
    supervisor::{Change, Request, RolloutRequest},
};

use super::{
    args::time,
    context::{Context, who},
    dry_run,
    error::CliError,
    output, project_status,
    pull::{self, Pull},
    session::Session,
    signals::Signals,
    state, wait,
};

/// Arguments of `sameport rollout`.
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  sameport rollout web --image shop:1.5           to another image, one replica after the other
  sameport rollout web                            once more what the file says: also if its tag means another image now
  sameport rollout web --image shop:1.5 --canary 10%
  sameport rollout promote web                    the new version gets everything, or
  sameport rollout abort web                      nothing
  sameport rollout web --image shop:1.5 --steps 10,25,50,100 --every 2m
  sameport rollout web --image shop:1.5 --strategy blue-green
  sameport rollout undo web                       the version before"
)]
pub struct RolloutArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    begin: Begin,
}

/// Options of a new rollout.
#[derive(Args, Debug)]
struct Begin {
    /// Use this image until the file names another one
    #[arg(long)]
    image: Option<String>,
    /// When to pull the image; overrides the file
    #[arg(long, value_enum)]
    pull: Option<Pull>,
    /// Start a canary that gets this share of the connections until `promote` or `abort`
    #[arg(long, value_name = "PERCENT", value_parser = part, conflicts_with_all = ["steps", "strategy"])]
    canary: Option<Share>,
    /// Shift traffic to the new version in steps
    #[arg(long, value_name = "PERCENT,…", conflicts_with = "strategy", requires = "every")]
    steps: Option<Shares>,
    /// How long each step lasts once its replicas are ready
    #[arg(long, value_name = "TIME", value_parser = time, requires = "steps")]
    every: Option<Duration>,
    /// How the new replicas replace the old ones
    #[arg(long, value_enum)]
    strategy: Option<Strategy>,
    /// Return at once, without waiting for the end of the rollout
    #[arg(short, long)]
    detach: bool,
    /// The service
    #[arg(required = true)]
    service: Option<ServiceName>,
}

/// How to replace the old replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Strategy {
    /// Slot after slot, as `deploy.update_config` says
    Rolling,
    /// Start all new replicas, then switch all connections to them at once
    BlueGreen,
}

/// Commands that control a rollout.
#[derive(Subcommand, Debug)]
enum Verb {
    /// Show the progress of a rollout
    Status(Which),
    /// Pause: replace no more replicas for now
    Pause(Which),
    /// Resume a paused rollout
    Resume(Which),
    /// Undo: go back to the last version that has served
    Undo(Undo),
    /// Promote a canary: give the new version all connections
    Promote(Which),
    /// Abort: remove the new replicas
    Abort(Which),
    /// List the versions of a service
    History(History),
}

#[derive(Args, Debug)]
struct History {
    /// Also print the values of the environment, which may contain passwords
    #[arg(long)]
    show_env: bool,
    /// The service
    service: ServiceName,
}

#[derive(Args, Debug)]
struct Which {
    /// The service
    service: ServiceName,
}

#[derive(Args, Debug)]
struct Undo {
    /// Go to the version of this number, even if it failed; see `sameport rollout history`
    #[arg(long, value_name = "N")]
    to: Option<u32>,
    /// Return at once, without waiting for the end of the rollout
    #[arg(short, long)]
    detach: bool,
    /// The service
    service: ServiceName,
}

/// Percentages in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shares(Vec<Share>);

impl FromStr for Shares {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shares = text.split(',').map(percent).collect::<Result<Vec<_>, _>>()?;
        if shares.is_sorted() {
            Ok(Self(shares))
        } else {
            Err("each step has to be more than the one before".to_owned())
        }
    }
}

fn percent(text: &str) -> Result<Share, String> {
    Share::from_percent(text).ok_or_else(|| format!("`{text}` is no percentage: write one such as 10%"))
}

/// A share above 0 %: without connections, a canary shows nothing.
fn part(text: &str) -> Result<Share, String> {
    match percent(text)? {
        Share::NONE => Err(format!("`{text}` gives the new version nothing: write a part such as 10%")),
        share => Ok(share),
    }
}

/// Runs `sameport rollout`.
pub async fn run(context: &Context, args: RolloutArgs) -> Result<(), CliError> {
    match args.verb {
        None => begin(context, args.begin).await,
        Some(Verb::Status(which)) => status(context, &which.service).await,
        Some(Verb::History(args)) => history(context, &args).await,
        Some(Verb::Pause(which)) => change(context, which.service, Change::Pause, After::Return).await,
        Some(Verb::Resume(which)) => change(context, which.service, Change::Resume, After::Wait).await,
        Some(Verb::Promote(which)) => change(context, which.service, Change::Promote, After::Wait).await,
        Some(Verb::Abort(which)) => change(context, which.service, Change::Abort, After::Wait).await,
        Some(Verb::Undo(Undo { to, detach, service })) => {
            let after = if detach { After::Return } else { After::Wait };
            change(context, service, Change::Undo { to }, after).await
        }
    }
}

/// What to do after the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Return,
    Wait,
}

async fn begin(context: &Context, args: Begin) -> Result<(), CliError> {
    let Some(name) = args.service else {
        return Err(CliError::Usage {
            message: "no service is named".to_owned(),
            help: "write `sameport rollout SERVICE`".to_owned(),
        });
    };
    if args.image.as_ref().is_some_and(|image| image.trim().is_empty()) {
        return Err(CliError::Usage {
            message: "the image after `--image` is empty".to_owned(),
            help: format!(
                "write one, such as `sameport rollout {name} --image shop:1.5`; without `--image` it is the file's"
            ),
        });
    }
    let project = context.load()?.project;
    let Some(service) = project.services.get(&name) else {
        return Err(CliError::Usage {
            message: format!("there is no service `{name}`"),
            help: "`sameport config --services` names those of the file".to_owned(),
        });
    };
    let docker = context.engine().await?;
    let image = args.image.map(Image);
    let wanted = image.clone().unwrap_or_else(|| service.container.image.clone());
    let image_id = match context.is_dry_run() {
        true => docker.image(&wanted).await?.map(|info| info.id),
        false => fetch(&docker, service, &wanted, args.pull).await?,
    };
    let steps = match (args.canary, args.steps, args.strategy) {
        (Some(share), ..) => Some(Steps::of(vec![share], None, false)),
        (None, Some(Shares(shares)), _) => Some(Steps::of(shares, args.every, false)),
        (None, None, Some(Strategy::BlueGreen)) => {
            Some(Steps::of(vec![Share::NONE, Share::ALL], Some(service.update.monitor), true))
        }
        (None, None, Some(Strategy::Rolling) | None) => None,
    };
    let after = if args.detach { After::Return } else { After::Wait };
    change(context, name, Change::Start { image, image_id, steps }, after).await
}

async fn fetch(
    docker: &Docker,
    service: &sameport::spec::Service,
    image: &Image,
    pull: Option<Pull>,
) -> Result<Option<String>, CliError> {
    let mut signals = Signals::new()?;
    tokio::select! {
        id = pull::one(docker, service, image, pull) => id,
        () = signals.end() => Err(CliError::Interrupted),
    }
}

async fn change(
    context: &Context,
    service: ServiceName,
    change: Change,
    after: After,
) -> Result<(), CliError> {
    let request = RolloutRequest { service: service.clone(), by: who(), change };
    let request = Request::Rollout(Box::new(request));
    if context.is_dry_run() {
        return dry_run::change(context, request).await;
    }
    let (_, session) = Session::for_change(context).await?;
    let mut signals = Signals::new()?;
    let events = session.events().await?;
    session.ask(request).await?;
    let done = match after {
        // A supervisor in this process would end with it.
        After::Return if matches!(session, Session::Other(_)) => Ok(()),
        After::Return | After::Wait => tokio::select! {
            done = wait::rollout(context, &session, events, &service) => done,
            () = signals.end() => Err(match session.is_own() {
                false => CliError::midway(
                    "the rollout continues",
                    format!(
                        "`sameport rollout status {service}` shows its progress; `sameport rollout abort {service}` goes back"
                    ),
                ),
                true => CliError::midway(
                    "the rollout rests where it is, and no supervisor runs",
                    "`sameport up -d` starts one, which continues it",
                ),
            }),
        },
    };
    let done = state::note_reset(&session).await.and(done);
    session.leave().await.and(done)
}

async fn versions(
    context: &Context,
    service: &ServiceName,
) -> Result<(Versions, Option<schema::Rollout>), CliError> {
    let (name, loaded) = context.load_if_possible()?;
    // Versions are in the state file, with or without a supervisor.
    let mut remembered = state::warn_of_damage(context, &name)?;
    let versions = remembered.versions.remove(service);
    let is_in_file = loaded.as_ref().is_some_and(|loaded| loaded.project.services.contains_key(service));
    if versions.is_none() && !is_in_file {
        return Err(CliError::Usage {
            message: format!("there is no service `{service}`"),
            help: "`sameport config --services` lists the services of the file".to_owned(),
        });
    }
    let versions = versions.unwrap_or_default();
    let status = match Session::running(context, &name).await? {
        Some(session) => session.status().await?,
        None => {
            let file = loaded.map_or_else(|| Project::empty(name), |loaded| loaded.project);
            project_status::look(context, &context.engine().await?, file).await?
        }
    };
    let rollout = status.rollouts.into_iter().find(|rollout| rollout.service == service.as_str());
    Ok((versions, rollout))
}

async fn status(context: &Context, service: &ServiceName) -> Result<(), CliError> {
    let (versions, in_progress) = versions(context, service).await?;
    let status = convert::rollout_status(service, &versions, in_progress);
    match context.data() {
        Some(format) => format.item(&status),
        None => describe(&status, &versions).iter().try_for_each(|line| output::line(line)),
    }
}

/// The versions of a service, in a few lines.
fn describe(status: &RolloutStatus, versions: &Versions) -> Vec<String> {
    let service = &status.service;
    let mut lines = match &status.in_progress {
        Some(rollout) => in_progress(rollout),
        None => vec![match status.stable_version {
            Some(version) => format!("{service} runs version {version}{}", named(status.image.as_ref())),
            None => format!("no version of {service} is known"),
        }],
    };
    match &status.pinned {
        Some(Pinned { trigger: Reason::Failed { failure }, .. }) if status.in_progress.is_none() => {
            lines.push(failed(service, failure, versions.rejected()))
        }
        Some(Pinned { trigger: Reason::Requested, .. }) => lines.push(
            "the file has another version; this one was requested and stays until the file changes"
                .to_owned(),
        ),
        _ => {}
    }
    lines
}

fn failed(service: &str, failure: &schema::Failure, rejected: Option<Rejected<'_>>) -> String {
    let how = format!("failed: {service}-{}: {}", failure.slot, failure.message);
    let Some(rejected) = rejected else { return format!("the version before {how}") };
    let number = rejected.revision.number;
    let what = match rejected.is_of_file {
        true => format!("the file's version ({number})"),
        false => format!("version {number} ({})", rejected.revision.service.container.image),
    };
    format!("{what} {how}; `{}` tries it again", rejected.retry())
}

fn named(image: Option<&String>) -> String {
    image.map(|image| format!(" ({image})")).unwrap_or_default()
}

fn in_progress(rollout: &schema::Rollout) -> Vec<String> {
    let service = &rollout.service;
    let what = if rollout.rollback.is_some() { "rolling back" } else { "rolling out" };
    let mut lines = vec![format!(
        "{service}: {what} from version {}{} to version {}{}: {} of {} done",
        rollout.previous_version,
        named(rollout.previous_image.as_ref()),
        rollout.version,
        named(rollout.image.as_ref()),
        rollout.done,
        rollout.total
    )];
    if let Some(steps) = &rollout.traffic_steps {
        lines.push(format!("the new version gets {} % of the connections", steps.current_percent));
        if steps.interval_seconds.is_none() {
            lines.push(format!("`sameport rollout promote {service}` or `abort` ends that"));
        }
    }
    if let Some(Reason::Failed { failure }) = &rollout.rollback {
        lines.push(format!("version {} failed: {}", rollout.previous_version, failure.message));
    }
    match &rollout.paused {
        None => {}
        Some(Reason::Requested) => lines.push(format!("paused; `sameport rollout resume {service}` continues")),
        Some(Reason::Failed { failure }) => lines.push(format!(
            "paused, because {service}-{} failed: {}; `sameport rollout resume {service}` continues, `undo` goes back",
            failure.slot, failure.message
        )),
    }
    lines
}

async fn history(context: &Context, args: &History) -> Result<(), CliError> {
    let (versions, _) = versions(context, &args.service).await?;
    let environment = if args.show_env { Environment::Shown } else { Environment::Hidden };
    let revisions = convert::revisions(&versions, environment);
    if let Some(format) = context.data() {
        return format.array(&revisions);
    }
    if revisions.is_empty() {
        return output::note(&format!("no version of {} is known", args.service));
    }
    let now = Timestamp::now();
    let mut table = output::table::plain(&["VERSION", "AGE", "BY", "CAUSE", "IMAGE", "GENERATION", "STATE"]);
    for revision in revisions.iter().rev() {
        table.add_row(row(&args.service, revision, now));
    }
    output::line(&table.trim_fmt())?;
    match args.show_env {
        true => revisions.iter().rev().try_for_each(environment_lines),
        false => Ok(()),
    }
}

fn row(service: &ServiceName, revision: &Revision, now: Timestamp) -> Vec<String> {
    vec![
        revision.version.to_string(),
        convert::age(now.duration_since(revision.created_at.0)),
        revision.created_by.clone(),
        revision.cause.clone(),
        revision.image.clone(),
        revision.generation.clone(),
        match (revision.state, &revision.failure) {
            (RevisionState::Stable, _) => "stable".to_owned(),
            (RevisionState::InProgress, _) => "in progress".to_owned(),
            (RevisionState::Previous, Some(failure)) => {
                // A row is one line; all log lines are in the JSON output.
                let message = failure.message.lines().next().unwrap_or_default();
                format!("failed: {}-{}: {message}", service, failure.slot)
            }
            (RevisionState::Previous, None) if revision.served == Some(false) => "not served".to_owned(),
            (RevisionState::Previous, None) => String::new(),
        },
    ]
}

fn environment_lines(revision: &Revision) -> Result<(), CliError> {
    output::line(&format!("\nversion {}:", revision.version))?;
    revision.environment.iter().try_for_each(|(name, value)| match value {
        Some(value) => output::line(&format!("  {name}={value}")),
        None => output::line(&format!("  {name}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_grow() {
        assert_eq!("10,25%,100".parse::<Shares>().map(|shares| shares.0.len()), Ok(3));
        assert!("50,10".parse::<Shares>().is_err());
        assert!("10,x".parse::<Shares>().is_err());
    }
}
