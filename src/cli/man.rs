//! `sameport man`, by which packages get manual pages. It is hidden: users read `--help` and the book.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use super::{Cli, error::CliError};

/// Arguments of `sameport man`.
#[derive(Args, Debug)]
pub struct ManArgs {
    /// An existing folder; each command becomes a page in it
    folder: PathBuf,
}

/// Runs `sameport man`.
pub fn run(args: &ManArgs) -> Result<(), CliError> {
    let written = clap_mangen::generate_to(Cli::command(), &args.folder);
    written.map_err(CliError::io(args.folder.display().to_string()))
}
