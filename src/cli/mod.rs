//! The command line: one file a command. It prints and carries, and decides nothing.

mod args;
mod background;
mod boot;
mod completion;
mod config;
mod confirm;
mod context;
mod curl;
mod demo;
mod doctor;
mod down;
mod dry_run;
mod error;
mod events;
mod exec;
mod kill;
mod layout;
mod listeners;
mod logs;
mod ls;
mod other_engine;
mod output;
mod project_status;
mod projects;
mod ps;
mod pull;
mod reload;
mod replicas;
mod rollout;
mod selector;
mod service;
mod session;
mod shared_data;
mod signals;
mod state;
mod status;
mod supervise;
mod takeover;
mod traffic;
mod up;
mod usage;
mod variables;
mod version;
mod wait;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use context::{Context, Global};
use error::CliError;
use output::format::Format;
use rustix::process::{Resource, getrlimit, setrlimit};
use sameport::kernel::{self, rights};

/// Runs N replicas of a container image behind one port, with no proxy.
#[derive(Parser, Debug)]
#[command(name = "sameport", version, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Example:\n  sameport up --scale web=4     run the Compose file here, four replicas of `web`"
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Create and update services to match the Compose file, and keep them running
    Up(up::UpArgs),
    /// Stop and remove all that `up` made, and nothing else
    Down(down::DownArgs),
    /// List projects on this engine
    Ls(ls::LsArgs),
    /// List replicas and their status
    Ps(ps::PsArgs),
    /// Show the status of the whole project
    Status(status::StatusArgs),
    /// What replicas write
    Logs(logs::LogsArgs),
    /// What happens: starts, ends, failures
    Events(events::EventsArgs),
    /// Run another number of replicas, until the file says something new
    Scale(service::ScaleArgs),
    /// Replace the processes of replicas, one at a time
    Restart(service::RestartArgs),
    /// Stop services and keep their containers
    Stop(service::StopArgs),
    /// Run stopped services again
    Start(service::StartArgs),
    /// Bring a service to another version without dropping a request, and back
    Rollout(rollout::RolloutArgs),
    /// Send a signal to a replica; what ends is replaced
    Kill(kill::KillArgs),
    /// Give replicas more or fewer of the new connections
    Weight(traffic::WeightArgs),
    /// Give a replica no new connections, and let it finish those that it has
    Drain(traffic::DrainArgs),
    /// Send one HTTP request to exactly one replica
    Curl(curl::CurlArgs),
    /// Run a command in a replica
    Exec(exec::ExecArgs),
    /// Print the resolved file
    Config(config::ConfigArgs),
    /// What this host can do, what is missing, and how to get it
    Doctor(doctor::DoctorArgs),
    /// Show the whole thing, on an engine with no image and no registry
    Demo(demo::DemoArgs),
    /// Start the project at boot, by a systemd unit
    Enable(boot::EnableArgs),
    /// Do not start the project at boot; what runs goes on
    Disable(boot::DisableArgs),
    /// Supervise in the foreground, for systemd (Type=notify)
    Supervise(supervise::SuperviseArgs),
    /// Print a script that completes commands in a shell
    Completion(completion::CompletionArgs),
    /// Print the versions of sameport and of the engine
    Version(version::VersionArgs),
    /// The server in the demo's replicas
    #[command(hide = true)]
    DemoServer(demo::ServerArgs),
}

impl Command {
    /// Whether it prints data, for which `--format` says how.
    fn has_data(&self) -> bool {
        !matches!(
            self,
            Self::Exec(_) | Self::Curl(_) | Self::Completion(_) | Self::Supervise(_) | Self::DemoServer(_)
        )
    }

    /// Whether what it changes, if anything, can be told without doing it.
    fn has_plan(&self) -> bool {
        !matches!(self, Self::Exec(_) | Self::Demo(_) | Self::Supervise(_) | Self::DemoServer(_))
    }
}

/// Lets this process have as many files open as it may: systemd and most logins begin with 1,024, which a project with many
/// ports needs. It has no program that would be slower, or wrong, with more.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// Runs the command that the arguments of this process ask for.
pub fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    if is_plugin(&args) {
        if args.get(1).is_some_and(|arg| arg == "docker-cli-plugin-metadata") {
            return finish(version::plugin_metadata(), &Format::Text);
        }
        // Docker calls `docker-sameport sameport …`.
        if args.get(1).is_some_and(|arg| arg == "sameport") {
            args.remove(1);
        }
    }
    let matches = match Cli::command().try_get_matches_from(&args) {
        Ok(matches) => matches,
        Err(error) => match usage::explain(&error, &args) {
            Some(error) => return finish(Err(error), &Format::Text),
            None => error.exit(),
        },
    };
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    cli.global.choose_colors();
    let format = cli.global.format.clone();
    kernel::save_memory();
    raise_open_files();
    // Before there are other threads.
    if let Err(error) = rights::confine() {
        return finish(Err(CliError::failed(error.to_string(), None)), &format);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return finish(Err(CliError::io("cannot start")(error)), &format),
    };
    let code = finish(runtime.block_on(run(cli)), &format);
    // A thread that waits on standard input would keep us here for ever.
    runtime.shutdown_background();
    code
}

fn is_plugin(args: &[OsString]) -> bool {
    let name = args.first().map(std::path::Path::new).and_then(std::path::Path::file_stem);
    name.is_some_and(|name| name == "docker-sameport")
}

fn finish(result: Result<(), CliError>, format: &Format) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let message = match format {
        Format::Json => error.report().and_then(|report| serde_json::to_string(&report).ok()),
        _ => error.render(),
    };
    if let Some(message) = message {
        // Nobody is left to be told where even this fails.
        let _ = output::line_to(&mut anstream::stderr(), &message);
    }
    ExitCode::from(error.exit_code())
}

async fn run(cli: Cli) -> Result<(), CliError> {
    // In a replica there is neither a file nor a folder to use.
    if let Command::DemoServer(args) = cli.command {
        return demo::serve(args).await;
    }
    if cli.global.dry_run && !cli.command.has_plan() {
        return Err(CliError::Usage {
            message: "`--dry-run` has no meaning here".to_owned(),
            help: "it shows what `up`, `down`, `scale`, `restart`, `stop`, `start`, `rollout`, `kill`, `weight` and `drain` \
                   would do"
                .to_owned(),
        });
    }
    if !cli.global.format.is_text() && !cli.command.has_data() {
        return Err(CliError::Usage {
            message: "`--format` has no meaning here".to_owned(),
            help: "this command has no data of its own to format; `supervise --json` prints its log as JSON"
                .to_owned(),
        });
    }
    let context = Context::new(cli.global)?;
    match dispatch(&context, cli.command).await {
        Err(CliError::Load(error)) if error.is_missing() => {
            Err(projects::name_them(&context, error).await.into())
        }
        done => done,
    }
}

async fn dispatch(context: &Context, command: Command) -> Result<(), CliError> {
    match command {
        // It has served by now.
        Command::DemoServer(_) => Ok(()),
        Command::Up(args) => up::run(context, args).await,
        Command::Down(args) => down::run(context, args).await,
        Command::Ls(args) => ls::run(context, args).await,
        Command::Ps(args) => ps::run(context, args).await,
        Command::Status(args) => status::run(context, args).await,
        Command::Logs(args) => logs::run(context, args).await,
        Command::Events(args) => events::run(context, args).await,
        Command::Scale(args) => service::scale(context, args).await,
        Command::Restart(args) => service::restart(context, args).await,
        Command::Stop(args) => service::stop(context, args).await,
        Command::Start(args) => service::start(context, args).await,
        Command::Rollout(args) => rollout::run(context, args).await,
        Command::Kill(args) => kill::run(context, args).await,
        Command::Weight(args) => traffic::weight(context, args).await,
        Command::Drain(args) => traffic::drain(context, args).await,
        Command::Curl(args) => curl::run(context, args).await,
        Command::Exec(args) => exec::run(context, args).await,
        Command::Config(args) => config::run(context, args),
        Command::Doctor(args) => doctor::run(context, args).await,
        Command::Demo(args) => demo::run(context, args).await,
        Command::Enable(args) => boot::enable(context, args).await,
        Command::Disable(args) => boot::disable(context, args).await,
        Command::Supervise(args) => supervise::run(context, args).await,
        Command::Completion(args) => completion::run(&args),
        Command::Version(args) => version::run(context, args).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_make_sense() {
        Cli::command().debug_assert();
    }
}
