//! Help texts.

use insta::assert_snapshot;

use crate::support::Home;

const COMMANDS: [&str; 25] = [
    "up",
    "down",
    "ls",
    "ps",
    "status",
    "logs",
    "events",
    "scale",
    "restart",
    "stop",
    "start",
    "rollout",
    "kill",
    "weight",
    "drain",
    "curl",
    "exec",
    "config",
    "doctor",
    "demo",
    "enable",
    "disable",
    "supervise",
    "completion",
    "version",
];

#[test]
fn the_program_lists_its_commands() {
    assert_snapshot!(Home::empty().transcript("--help"));
}

#[test]
fn every_command_explains_its_arguments() {
    let home = Home::empty();
    for command in COMMANDS {
        assert_snapshot!(format!("help_{command}"), home.transcript(&format!("{command} -h")));
    }
}

#[test]
fn every_command_shows_an_example() {
    let home = Home::empty();
    for command in COMMANDS {
        let help = home.transcript(&format!("{command} --help"));
        assert!(help.contains(&format!("  sameport {command}")) || help.contains("  sameport -"), "{help}");
        assert!(help.contains("Example"), "{help}");
    }
}

#[test]
fn no_command_is_left_out_here() {
    let help = Home::empty().transcript("--help");
    let (_, rest) = help.split_once("Commands:\n").unwrap();
    let listed: Vec<_> = rest
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert_eq!(listed, COMMANDS);
}

#[test]
fn completions_name_the_commands_in_every_shell() {
    let home = Home::empty();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = home.sameport(&format!("completion {shell}")).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && script.contains("supervise"), "{shell}: {script}");
    }
}
