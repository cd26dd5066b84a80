//! The command line: one module per command. A command parses its arguments, sends a request and prints the reply; the
//! library decides what happens.

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
mod man;
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

/// Run N replicas of a container image behind one port, without a proxy
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
    /// Stop and remove everything that `up` created, and nothing else
    Down(down::DownArgs),
    /// List projects on this engine
    Ls(ls::LsArgs),
    /// List replicas and their status
    Ps(ps::PsArgs),
    /// Show the status of the whole project
    Status(status::StatusArgs),
    /// Show the output of replicas
    Logs(logs::LogsArgs),
    /// Stream events: starts, exits, failures
    Events(events::EventsArgs),
    /// Change the number of replicas
    Scale(service::ScaleArgs),
    /// Restart replicas, one at a time
    Restart(service::RestartArgs),
    /// Stop services without removing their containers
    Stop(service::StopArgs),
    /// Start stopped services
    Start(service::StartArgs),
    /// Change the version of a service without dropping a request, and go back
    Rollout(rollout::RolloutArgs),
    /// Send a signal to replicas; replicas that exit are replaced
    Kill(kill::KillArgs),
    /// Change the share of new connections that replicas get
    Weight(traffic::WeightArgs),
    /// Take a replica out of rotation; it finishes its connections
    Drain(traffic::DrainArgs),
    /// Send an HTTP request to one particular replica
    Curl(curl::CurlArgs),
    /// Run a command in a replica
    Exec(exec::ExecArgs),
    /// Check the Compose file and print it as it is understood
    Config(config::ConfigArgs),
    /// Check what this host supports, and how to get what is missing
    Doctor(doctor::DoctorArgs),
    /// Run a demo; needs no image and no registry
    Demo(demo::DemoArgs),
    /// Start the project at boot with a systemd unit
    Enable(boot::EnableArgs),
    /// Stop starting the project at boot; replicas keep running
    Disable(boot::DisableArgs),
    /// Run the supervisor in the foreground, for systemd (Type=notify)
    Supervise(supervise::SuperviseArgs),
    /// Print a completion script for a shell
    Completion(completion::CompletionArgs),
    /// Show the versions of sameport and of the engine
    Version(version::VersionArgs),
    /// Write manual pages into a folder, for packages
    #[command(hide = true)]
    Man(man::ManArgs),
    /// Serve as a replica of the demo
    #[command(hide = true)]
    DemoServer(demo::ServerArgs),
}

impl Command {
    /// Whether the command prints data that `--format` applies to.
    fn has_data(&self) -> bool {
        !matches!(
            self,
            Self::Exec(_)
                | Self::Curl(_)
                | Self::Completion(_)
                | Self::Supervise(_)
                | Self::Man(_)
                | Self::DemoServer(_)
        )
    }

    /// Whether `--dry-run` can show what the command would do. True for commands that change nothing.
    fn has_plan(&self) -> bool {
        !matches!(self, Self::Exec(_) | Self::Demo(_) | Self::Supervise(_) | Self::DemoServer(_))
    }
}

/// Raises the soft limit of open files to the hard limit. systemd and most logins set a soft limit of 1024, too few for
/// a project with many ports. Nothing in this process depends on a low limit.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// Runs the command of this process's arguments.
pub fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    if is_plugin(&args) {
        if args.get(1).is_some_and(|arg| arg == "docker-cli-plugin-metadata") {
            return finish(version::plugin_metadata(), &Format::Text);
        }
        // Docker calls its plugins as `docker-sameport sameport …`.
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
    // Capabilities belong to a thread: other threads must not exist yet.
    if let Err(error) = rights::confine() {
        return finish(Err(CliError::failed(error.to_string(), None)), &format);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return finish(Err(CliError::io("cannot start")(error)), &format),
    };
    let code = finish(runtime.block_on(run(cli)), &format);
    // A thread that is blocked on standard input would never end.
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
        // If standard error fails, too, there is nowhere left to report to.
        let _ = output::line_to(&mut anstream::stderr(), &message);
    }
    ExitCode::from(error.exit_code())
}

async fn run(cli: Cli) -> Result<(), CliError> {
    // In a replica of the demo there is no project, and no home directory.
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
        // `run` handles it before there is a context.
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
        Command::Man(args) => man::run(&args),
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
