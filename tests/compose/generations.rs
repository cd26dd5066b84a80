//! The hashes of whole files, as running containers carry them in their labels: none may ever change.

use std::{fmt::Write as _, path::PathBuf};

use sameport::compose::{self, Options};

const FILES: [&str; 3] = ["plain", "shop", "hooks"];

/// Each service with the hash of its version and that of what it declares, and each pod with its own.
fn hashes(file: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/compose/files/generations");
    let options = Options {
        files: vec![folder.join(format!("{file}.yaml"))],
        // Paths of the file are the same wherever the test runs.
        project_directory: Some(PathBuf::from("/srv/shop")),
        current_dir: folder,
        ..Options::default()
    };
    let project = compose::load(&options).unwrap_or_else(|error| panic!("{error}")).project;
    let mut shown = String::new();
    for (name, service) in &project.services {
        writeln!(shown, "{} {} {file}: service {name}", service.generation(), service.declared()).unwrap();
    }
    for (name, pod) in &project.pods {
        writeln!(shown, "{} {file}: pod {name}", pod.generation()).unwrap();
    }
    shown
}

#[test]
fn the_versions_of_a_file_are_the_same_in_each_release() {
    let recorded = include_str!("files/generations/hashes.txt");
    assert_eq!(FILES.map(hashes).concat(), recorded);
}
