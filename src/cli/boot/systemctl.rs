//! Calls to `systemctl`.

use std::{process::Stdio, time::Duration};

use sameport::systemd::Manager;
use tokio::process::Command;

use crate::cli::error::CliError;

/// Limit for one call. Starting a unit takes until its supervisor answers.
const TIMEOUT: Duration = Duration::from_secs(90);

/// Runs `systemctl` with these arguments.
///
/// # Errors
/// If the call fails, with what it writes to standard error, or takes more than 90 s.
pub async fn run(manager: Manager, arguments: &[&str]) -> Result<(), CliError> {
    let mut command = Command::new("systemctl");
    if manager == Manager::User {
        command.arg("--user");
        // Without it, as after `su`, `systemctl --user` does not find the user's instance.
        if std::env::var_os("XDG_RUNTIME_DIR").is_none_or(|folder| folder.is_empty()) {
            command.env("XDG_RUNTIME_DIR", format!("/run/user/{}", nix::unistd::geteuid()));
        }
    }
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let line = match manager {
        Manager::System => format!("systemctl {}", arguments.join(" ")),
        Manager::User => format!("systemctl --user {}", arguments.join(" ")),
    };
    let Ok(output) = tokio::time::timeout(TIMEOUT, command.output()).await else {
        let message = format!("`{line}` did not end within {} s", TIMEOUT.as_secs());
        return Err(CliError::failed(message, Some("`systemctl status` tells what it waits for")));
    };
    let output = output.map_err(CliError::io(format!("cannot run `{line}`")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(CliError::failed(format!("`{line}` failed ({}): {}", output.status, said.trim()), None))
}
