//! Variables of the Compose file that are missing where a supervisor reads it.

use sameport::{compose::Variables, supervisor::State};

use super::error::CliError;

/// Refuses a file in which a variable has no value that whoever applied the file last had in the environment: it would mean
/// another version, which nobody asked for. A value that was in a file and is not any more was taken away by somebody. A supervisor that cron, a service manager or another shell began has other variables
/// than the shell of `sameport up`.
///
/// # Errors
/// With the names of the variables.
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

/// The variables that whoever applied the file last had in the environment, that the file names, and that have no value here.
pub fn missing<'a>(state: &'a State, variables: &'a Variables) -> Vec<&'a str> {
    variables.unset.intersection(&state.variables).map(String::as_str).collect()
}

/// Names of variables in a sentence.
pub fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
