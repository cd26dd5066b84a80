//! Running other programs, with errors that say what they said.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs a program to its end, and returns what it printed.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if !output.status.success() {
        bail!("{command:?}: {}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr));
    }
    Ok(text(&output.stdout))
}

/// A program with its arguments, split at blanks, and more that are taken as they are.
pub fn program(words: &str, more: &[&str]) -> Command {
    let mut words = words.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).args(more);
    command
}

/// Runs a program whose arguments have no blanks.
pub fn sh(words: &str) -> Result<String> {
    run(&mut program(words, &[]))
}
