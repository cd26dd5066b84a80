//! Variables of the Compose file that are missing in the environment of a supervisor.

use sameport::{compose::Variables, supervisor::State};

use super::error::CliError;

/// Checks that all variables are set that came from the environment when the file was last applied. Without one, the
/// file would silently mean another version: a supervisor started by cron, a service manager or another shell has other
/// variables than the shell of `sameport up`. A variable that came from an env file may be missing, since it was
/// removed on purpose.
///
/// # Errors
/// If variables are missing, with their names.
pub fn check(state: &State, variables: &Variables) -> Result<(), CliError> {
    let missing = missing(state, variables);
    if missing.is_empty() {
        return Ok(());
    }
    let (noun, verb) = if missing.len() == 1 { ("variable", "is") } else { ("variables", "are") };
    Err(CliError::failed(
        format!(
            "{noun} {} {verb} not set for this supervisor, and had a value from the environment when the file was last applied; the running \
             version stays",
            list(&missing)
        ),
        Some(
            "set it in `.env` or where the supervisor is started (`sameport enable` does that for systemd); if it is to be \
             without a value, `sameport up -d` applies the file so",
        ),
    ))
}

/// Variables that the file uses, that came from the environment when the file was last applied, and that have no value
/// here.
pub fn missing<'a>(state: &'a State, variables: &'a Variables) -> Vec<&'a str> {
    variables.unset.intersection(&state.variables).map(String::as_str).collect()
}

/// Formats names of variables for a sentence.
pub fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
