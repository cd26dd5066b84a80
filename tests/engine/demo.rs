//! `sameport demo` of a program that is linked with libraries, as `cargo install` builds it. `./demo` builds a static one.

use std::process::Command;

use crate::support::docker::Docker;

#[test]
fn a_program_with_libraries_runs_the_demo() {
    let output = Command::new(env!("CARGO_BIN_EXE_sameport"))
        .args(["demo", "--requests", "200", "--rate", "100"])
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(shown.contains(" answered, 0 failed."), "{shown}");
    let image = shown.lines().find_map(|line| line.trim().strip_prefix("image")).unwrap();
    let image = image.split_whitespace().next().unwrap();
    assert!(image.starts_with("localhost/sameport-demo:"), "{shown}");
    assert!(Docker::default().try_run(&["image", "inspect", image]).is_err(), "{image} is left behind");
}
