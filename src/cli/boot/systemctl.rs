//! Calls of `systemctl`.

use std::{process::Stdio, time::Duration};

use sameport::systemd::Manager;
use tokio::process::Command;

use crate::cli::error::CliError;

/// How long a call may take: a unit is started once its supervisor answers.
const PATIENCE: Duration = Duration::from_secs(90);

/// Has a systemd do something.
///
/// # Errors
/// With what it says, when it does not.
pub async fn run(manager: Manager, arguments: &[&str]) -> Result<(), CliError> {
    let mut command = Command::new("systemctl");
    if manager == Manager::User {
        command.arg("--user");
        // Without it the user's systemd is not found, as after `su`.
        if std::env::var_os("XDG_RUNTIME_DIR").is_none_or(|folder| folder.is_empty()) {
            command.env("XDG_RUNTIME_DIR", format!("/run/user/{}", nix::unistd::geteuid()));
        }
    }
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let line = match manager {
        Manager::System => format!("systemctl {}", arguments.join(" ")),
        Manager::User => format!("systemctl --user {}", arguments.join(" ")),
    };
    let Ok(output) = tokio::time::timeout(PATIENCE, command.output()).await else {
        let message = format!("`{line}` did not end within {} s", PATIENCE.as_secs());
        return Err(CliError::failed(message, Some("`systemctl status` tells what it waits for")));
    };
    let output = output.map_err(CliError::io(format!("cannot run `{line}`")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(CliError::failed(format!("`{line}` failed ({}): {}", output.status, said.trim()), None))
}
