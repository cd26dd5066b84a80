//! `sameport exec`.

use std::io::{self, IsTerminal, Write};

use clap::Args;
use futures_util::{StreamExt, stream::BoxStream};
use rustix::termios::{self, OptionalActions, Termios};
use sameport::engine::{
    EngineError, ExecOptions,
    docker::{ExecControl, ExecOutput, ExecSession},
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    signal::unix::{SignalKind, signal},
};

use super::{
    context::Context,
    error::CliError,
    replicas::Finder,
    selector::{self, Written},
    signals::Signals,
};

/// Arguments of `sameport exec`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sameport exec web -- sh                  a shell in the first replica of `web` that runs
  sameport exec -T web-2 -- env > env.txt  without a terminal")]
pub struct ExecArgs {
    /// Do not allocate a terminal
    #[arg(short = 'T', long)]
    no_tty: bool,
    /// Accepted for compatibility; standard input is always open
    #[arg(short, long, hide = true)]
    interactive: bool,
    /// Run as this user
    #[arg(short, long)]
    user: Option<String>,
    /// Run in this directory
    #[arg(short, long, value_name = "FOLDER")]
    workdir: Option<String>,
    /// Set an environment variable; without a value, use the one from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Run with all capabilities
    #[arg(long)]
    privileged: bool,
    /// The replica; of a service, the first one that runs
    #[arg(value_name = "SERVICE[-N]")]
    replica: Written,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// The variable as given, or with its value in this environment. Without a value, it does not appear on a command line
/// that other users can read.
fn assignment(variable: String, here: impl Fn(&str) -> Option<String>) -> Option<String> {
    if variable.contains('=') {
        return Some(variable);
    }
    here(&variable).map(|value| format!("{variable}={value}"))
}

/// Runs `sameport exec`.
pub async fn run(context: &Context, args: ExecArgs) -> Result<(), CliError> {
    let mut finder = Finder::new(context)?;
    let docker = context.engine().await?;
    let replica =
        finder.first_running(&docker, &selector::resolve_one(context, &args.replica).await?).await?;
    let tty = !args.no_tty && io::stdin().is_terminal() && io::stdout().is_terminal();
    let options = ExecOptions {
        command: args.command,
        environment: args
            .env
            .into_iter()
            .filter_map(|variable| assignment(variable, |name| std::env::var(name).ok()))
            .collect(),
        user: args.user,
        working_dir: args.workdir,
        tty,
        stdin: true,
        privileged: args.privileged,
        limit: None,
    };
    let ExecSession { control, input, output } = docker.exec(&replica.id, options).await?;
    if tty {
        with_terminal(&control, input, output).await?;
    } else {
        converse(input, output).await?;
    }
    match u8::try_from(control.exit_code().await?).unwrap_or(1) {
        0 => Ok(()),
        code => Err(CliError::Exit(code)),
    }
}

type Input = std::pin::Pin<Box<dyn AsyncWrite + Send>>;
type Output = BoxStream<'static, Result<ExecOutput, EngineError>>;

/// Standard input in raw mode: every key goes to the command. Dropping it restores the previous mode.
struct RawTerminal(Termios);

impl RawTerminal {
    fn new() -> Result<Self, CliError> {
        let fail = |error: rustix::io::Errno| CliError::io("cannot use the terminal")(error.into());
        let before = termios::tcgetattr(io::stdin()).map_err(fail)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw).map_err(fail)?;
        Ok(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // There is no way left to report an error.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}

async fn with_terminal(control: &ExecControl, input: Input, output: Output) -> Result<(), CliError> {
    let mut resized = signal(SignalKind::window_change()).map_err(CliError::io("cannot heed signals"))?;
    let mut ends = Signals::new()?;
    let _raw = RawTerminal::new()?;
    let talk = converse(input, output);
    tokio::pin!(talk);
    loop {
        if let Ok(size) = termios::tcgetwinsize(io::stdout())
            && let Err(error) = control.resize(size.ws_col, size.ws_row).await
        {
            // A wrong size only spoils the layout.
            tracing::debug!(%error, "the terminal's size is not taken");
        }
        tokio::select! {
            done = &mut talk => return done,
            _ = resized.recv() => {}
            // Ctrl-C is sent to the command as a key. This is SIGTERM, or a closed terminal.
            () = ends.end() => return Err(CliError::Interrupted),
        }
    }
}

/// Copies standard input to the command and the command's output to this process, until the command ends.
async fn converse(mut input: Input, mut output: Output) -> Result<(), CliError> {
    let typing = tokio::spawn(async move {
        let (mut stdin, mut buffer) = (tokio::io::stdin(), vec![0; 8192]);
        while let Ok(read @ 1..) = stdin.read(&mut buffer).await {
            let Some(typed) = buffer.get(..read) else { break };
            if input.write_all(typed).await.is_err() || input.flush().await.is_err() {
                break;
            }
        }
        // The end of standard input ends that of the command, too.
        let _ = input.shutdown().await;
    });
    let mut result = Ok(());
    while let Some(piece) = output.next().await {
        let written = match piece? {
            ExecOutput::Stdout(bytes) => print(&mut io::stdout(), &bytes),
            ExecOutput::Stderr(bytes) => print(&mut io::stderr(), &bytes),
        };
        if written.is_err() {
            result = Err(CliError::ClosedPipe);
            break;
        }
    }
    typing.abort();
    result
}

fn print(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_without_a_value_has_the_one_that_it_has_here() {
        let here = |name: &str| (name == "KEY").then(|| "a=b".to_owned());
        for (given, wanted) in [
            ("A=1", Some("A=1")),
            ("KEY=2", Some("KEY=2")),
            ("A=", Some("A=")),
            ("KEY", Some("KEY=a=b")),
            ("GONE", None),
        ] {
            assert_eq!(assignment(given.to_owned(), here).as_deref(), wanted, "{given}");
        }
    }
}
