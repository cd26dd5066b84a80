//! sameport as a plugin of the `docker` command.

use std::{os::unix::fs::symlink, process::Output};

use assert_cmd::cargo::cargo_bin;
use insta::assert_snapshot;

use crate::support::Home;

fn plugin(home: &Home, args: &[&str]) -> Output {
    let program = home.path().join("docker-sameport");
    if !program.exists() {
        symlink(cargo_bin("sameport"), &program).unwrap();
    }
    home.program(&program).args(args).output().unwrap()
}

#[test]
fn docker_is_told_what_the_plugin_is() {
    let home = Home::empty();
    let output = plugin(&home, &["docker-cli-plugin-metadata"]);
    assert!(output.status.success());
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(metadata["SchemaVersion"], "0.1.0");
    assert_eq!(metadata["Version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn docker_passes_the_plugins_name_first() {
    let home = Home::with("services:\n  web:\n    image: localhost/web\n");
    let output = plugin(&home, &["sameport", "config", "--services"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "web\n");
}

#[test]
fn under_its_own_name_those_words_mean_nothing() {
    let home = Home::empty();
    assert_snapshot!(home.transcript("docker-cli-plugin-metadata"));
}
