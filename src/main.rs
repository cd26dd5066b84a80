//! The command line.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    match sameport::kernel::feature_probe::asks_itself() {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
        None => cli::main(),
    }
}
