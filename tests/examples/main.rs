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

/// What the README shows under `x-sameport` can be written so.
#[test]
fn every_extension_of_the_readme_loads_without_a_warning() {
    let readme = include_str!("../../README.md");
    let blocks = readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("\n```"));
    let mut loaded = 0;
    for (block, _) in blocks.filter(|(block, _)| block.starts_with("    x-sameport:\n")) {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "name: shop\nservices:\n  web:\n    image: shop:1.4\n    ports: [\"80:8080\"]\n{block}\n"
        );
        fs::write(folder.path().join("compose.yaml"), text).unwrap();
        let options = Options { current_dir: folder.path().to_owned(), ..Options::default() };
        let file = load(&options).unwrap_or_else(|error| panic!("{block}\n{error}"));
        assert!(file.warnings.is_empty(), "{block}\n{:?}", file.warnings);
        loaded += 1;
    }
    assert!(loaded >= 3, "only {loaded} were found");
}
