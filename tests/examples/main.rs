//! The example files: each loads as it is, with nothing to warn about.

use std::{fs, path::Path};

use sameport::compose::{Options, load};

#[test]
fn every_example_loads_without_a_warning() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut loaded = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let example = entry.unwrap().path();
        if !example.join("compose.yaml").exists() {
            continue;
        }
        let options = Options { current_dir: example.clone(), ..Options::default() };
        let file = load(&options).unwrap_or_else(|error| panic!("{}: {error}", example.display()));
        assert!(file.warnings.is_empty(), "{}: {:?}", example.display(), file.warnings);
        loaded.push(example);
    }
    assert!(loaded.len() >= 8, "only these were found: {loaded:?}");
}
