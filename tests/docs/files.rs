//! What the documents show of files: Compose files load, and paths of the source exist.

use std::fs;

use sameport::compose::{Options, load};

use super::pages::{self, root};

/// A block that begins with this comment is a whole file.
const WHOLE: &str = "# compose.yaml\n";
/// A block that begins with this key belongs below a service.
const EXTENSION: &str = "    x-sameport:\n";

#[test]
fn every_compose_file_of_the_documents_loads_without_a_warning() {
    let (mut whole, mut extensions) = (0, 0);
    for page in pages::all() {
        for block in page.blocks("yaml") {
            let text = if block.starts_with(WHOLE) {
                whole += 1;
                block.to_owned()
            } else if block.starts_with(EXTENSION) {
                extensions += 1;
                format!("services:\n  web:\n    image: shop:1.4\n    ports: [\"80:8080\"]\n{block}\n")
            } else {
                continue;
            };
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("compose.yaml"), format!("name: shop\n{text}")).unwrap();
            let options = Options { current_dir: folder.path().to_owned(), ..Options::default() };
            let file =
                load(&options).unwrap_or_else(|error| panic!("{}:\n{text}\n{error}", page.path.display()));
            assert!(file.warnings.is_empty(), "{}:\n{text}\n{:?}", page.path.display(), file.warnings);
        }
    }
    assert!(whole >= 5 && extensions >= 3, "only {whole} files and {extensions} extensions were found");
}

/// A contributor finds what CONTRIBUTING names.
#[test]
fn every_path_that_contributing_names_exists() {
    let text = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let mut checked = 0;
    for code in text.split('`').skip(1).step_by(2) {
        if !code.starts_with("src/") && !code.starts_with("tests/") || code.contains(' ') {
            continue;
        }
        for path in expanded(code) {
            checked += 1;
            assert!(root().join(&path).exists(), "CONTRIBUTING.md names {path}, which is not there");
        }
    }
    assert!(checked > 20, "only {checked} paths were found");
}

/// `src/{a,b}.rs` is two paths.
fn expanded(path: &str) -> Vec<String> {
    let Some((before, rest)) = path.split_once('{') else { return vec![path.to_owned()] };
    let (names, after) = rest.split_once('}').unwrap();
    names.split(',').map(|name| format!("{before}{name}{after}")).collect()
}
