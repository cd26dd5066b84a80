//! Help for arguments that are valid elsewhere: commands of Docker Compose that sameport does not have, misplaced
//! options, and swapped words.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::error::CliError;

/// Commands of Docker Compose, and what to use instead.
const COMPOSE: [(&str, &str); 24] = [
    ("attach", "`sameport logs -f web-1` shows what a replica writes"),
    ("build", "`docker build -t NAME .` builds an image; name it with `image` in the Compose file"),
    ("commit", "`docker commit CONTAINER` does that; `sameport ps` shows containers"),
    ("convert", "`sameport config` prints the resolved file"),
    ("cp", "`docker cp` copies files; `sameport ps` shows the names of containers"),
    ("create", "`sameport up --scale web=0` creates a service without replicas"),
    ("export", "`docker export CONTAINER` does that; `sameport ps` shows containers"),
    (
        "images",
        "`sameport config` shows the images of the file, `sameport rollout history web` those of its versions",
    ),
    ("pause", "`docker pause CONTAINER` pauses a replica, which takes it out of rotation"),
    ("port", "`sameport ps` shows published ports"),
    ("publish", "Docker Compose publishes the file; it stays valid there"),
    ("pull", "`sameport up --pull always` pulls images and applies what has changed"),
    ("push", "`docker push IMAGE` pushes an image"),
    ("rm", "`sameport down` removes stopped services; `sameport scale web=0` removes the replicas of one"),
    ("rollback", "`sameport rollout undo web` goes back to the last version that has served"),
    ("run", "`docker run` runs a command once; `sameport exec web-1 -- COMMAND` runs it in a replica"),
    ("stats", "`docker stats` shows what containers use; `sameport ps` shows connections"),
    ("top", "`docker top CONTAINER` shows the processes of a replica; `sameport ps` shows containers"),
    ("unpause", "`docker unpause CONTAINER` does that; the replica is back in rotation afterwards"),
    (
        "update",
        "`sameport up` applies a changed file; `sameport rollout web --image IMAGE` changes the image",
    ),
    ("deploy", "`sameport up -d` applies the file; `sameport rollout web --image IMAGE` changes the image"),
    ("volumes", "`docker volume ls` lists volumes"),
    (
        "wait",
        "`sameport up --wait` waits until all replicas are ready; `sameport events` shows when one exits",
    ),
    ("watch", "`sameport up --watch` applies the Compose file when it changes"),
];

/// The subcommands of `rollout`.
const ROLLOUT_COMMANDS: [&str; 7] = ["status", "pause", "resume", "undo", "promote", "abort", "history"];

/// The error for such arguments; `None` if clap's own error is better.
pub fn explain(error: &clap::Error, args: &[OsString]) -> Option<CliError> {
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    let usage = |message: String, help: String| Some(CliError::Usage { message, help });
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let name = word(ContextKind::InvalidSubcommand)?;
            let (_, instead) = COMPOSE.iter().find(|(command, _)| *command == name)?;
            usage(format!("sameport has no command `{name}`"), (*instead).to_owned())
        }
        ErrorKind::UnknownArgument => {
            let option = word(ContextKind::InvalidArg)?;
            let is_file = option == "--file" || option.starts_with("-f");
            // After `logs`, `-f` means `--follow`, so `--file` is only allowed before the command.
            is_file.then(|| {
                let message = format!("`{option}` stands before the command");
                CliError::Usage { message, help: "write `sameport -f FILE COMMAND`".to_owned() }
            })
        }
        // For `rollout SERVICE status`, clap reports a conflict of the positional argument.
        ErrorKind::ArgumentConflict | ErrorKind::InvalidValue => {
            let words: Vec<_> = args.iter().filter_map(|arg| arg.to_str()).collect();
            let at = words.iter().position(|word| *word == "rollout")?;
            let [first, second, ..] = words.get(at + 1..)? else { return None };
            let help = |name, service| format!("did you mean `sameport rollout {name} {service}`?");
            if let Some(name) = ROLLOUT_COMMANDS.iter().find(|name| *name == second) {
                return usage(format!("`{name}` stands before the service"), help(name, first));
            }
            let name = ROLLOUT_COMMANDS.iter().find(|name| is_close(name, first))?;
            usage(format!("`rollout` has no command `{first}`"), help(name, second))
        }
        _ => None,
    }
}

/// Whether the words differ by the order of letters, or by one letter that is added, missing or changed.
fn is_close(name: &str, typed: &str) -> bool {
    let sorted = |word: &str| {
        let mut letters: Vec<_> = word.chars().collect();
        letters.sort_unstable();
        letters
    };
    if sorted(name) == sorted(typed) {
        return true;
    }
    let (name, typed): (Vec<_>, Vec<_>) = (name.chars().collect(), typed.chars().collect());
    let prefix = name.iter().zip(&typed).take_while(|(a, b)| a == b).count();
    let suffix =
        |a: &[char], b: &[char]| a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    let rest = suffix(&name[prefix..], &typed[prefix..]);
    (name.len() - prefix - rest).max(typed.len() - prefix - rest) <= 1
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn hints_name_no_existing_command() {
        for command in Cli::command().get_subcommands() {
            assert!(COMPOSE.iter().all(|(name, _)| *name != command.get_name()), "{}", command.get_name());
        }
    }

    #[test]
    fn a_word_is_close_with_one_typo() {
        for typed in ["stauts", "statu", "statuss", "statis", "status"] {
            assert!(is_close("status", typed), "{typed}");
        }
        for typed in ["web", "stop", "state"] {
            assert!(!is_close("status", typed), "{typed}");
        }
    }
}
