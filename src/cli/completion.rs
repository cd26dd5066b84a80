//! `sameport completion`.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, error::CliError};

/// Arguments of `sameport completion`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sameport completion bash > /etc/bash_completion.d/sameport
  sameport completion zsh > \"${fpath[1]}/_sameport\"
  sameport completion fish > ~/.config/fish/completions/sameport.fish")]
pub struct CompletionArgs {
    /// The shell
    shell: Shell,
}

/// Runs `sameport completion`.
pub fn run(args: &CompletionArgs) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sameport", &mut script);
    std::io::stdout().write_all(&script).map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => CliError::ClosedPipe,
        _ => CliError::io("cannot print")(error),
    })
}
