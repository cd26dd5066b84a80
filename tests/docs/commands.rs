//! The reference of commands is the program's own help.

use std::{fmt::Write, fs, process::Command};

use super::pages::root;

const PAGE: &str = "docs/reference/commands.md";

/// `SAMEPORT_UPDATE_DOCS=1 cargo test --test docs` writes it anew.
#[test]
fn the_reference_of_commands_is_what_help_says() {
    let text = page();
    if std::env::var_os("SAMEPORT_UPDATE_DOCS").is_some() {
        fs::write(root().join(PAGE), &text).unwrap();
    }
    let committed = fs::read_to_string(root().join(PAGE)).unwrap_or_default();
    assert!(committed == text, "{PAGE} differs from the help: SAMEPORT_UPDATE_DOCS=1 cargo test --test docs");
}

fn page() -> String {
    let mut page = "# Commands\n\nThe help of each command, as `sameport COMMAND --help` prints it. \
                    [Exit codes, signals, environment](cli.md) has what all of them share.\n"
        .to_owned();
    add(&mut page, &[]);
    page
}

/// Adds the help of a command, and of all below it.
fn add(page: &mut String, words: &[&str]) {
    let help = help(words);
    let title = ["sameport"].iter().chain(words).copied().collect::<Vec<_>>().join(" ");
    write!(page, "\n## {title}\n\n```text\n{}\n```\n", help.trim_end()).unwrap();
    for name in subcommands(&help) {
        add(page, &[words, &[name]].concat());
    }
}

fn help(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_sameport"))
        .args(words)
        .arg("--help")
        .env_clear()
        .env("COLUMNS", "100")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn subcommands(help: &str) -> Vec<&str> {
    let (_, rest) = help.split_once("Commands:\n").unwrap_or_default();
    rest.lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect()
}
