//! Compose files, and variables in them.

use std::{collections::BTreeMap, fs, path::Path};

use sameport::compose::{self, Loaded, Options};
use tempfile::TempDir;

/// A folder of this thread, which is used again and again: `cargo fuzz` runs each target in one thread.
fn in_folder<T>(act: impl FnOnce(&Path) -> T) -> T {
    thread_local! {
        static FOLDER: TempDir = tempfile::tempdir().expect("a folder for temporary files");
    }
    FOLDER.with(|folder| act(folder.path()))
}

fn load(folder: &Path, file: &str, text: &[u8], environment: &BTreeMap<String, String>) -> Option<Loaded> {
    fs::write(folder.join(file), text).expect("a file can be written");
    let options = Options {
        files: vec![folder.join(file)],
        current_dir: folder.to_owned(),
        environment: environment.clone(),
        ..Options::default()
    };
    match compose::load(&options) {
        Ok(loaded) => {
            loaded.warnings.iter().for_each(|warning| assert!(!warning.render(true).is_empty()));
            Some(loaded)
        }
        Err(error) => {
            assert!(!error.render(true).is_empty());
            None
        }
    }
}

/// A file that loads is rendered to one that loads to the same project, without any variable.
fn load_twice(text: &[u8], environment: &BTreeMap<String, String>) {
    in_folder(|folder| {
        let Some(loaded) = load(folder, "compose.yaml", text, environment) else { return };
        let again = load(folder, "rendered.yaml", loaded.rendered.as_bytes(), &BTreeMap::new());
        let again = again.unwrap_or_else(|| panic!("what is rendered cannot be read:\n{}", loaded.rendered));
        assert_eq!(again.project, loaded.project, "{}", loaded.rendered);
    });
}

/// A Compose file, with one variable set.
pub fn compose_file(data: &[u8]) {
    load_twice(data, &BTreeMap::from([("A".to_owned(), "1".to_owned())]));
}

/// A value with variables, and after the first zero byte the file that sets them.
pub fn interpolation(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (value, variables) = (String::from_utf8_lossy(&data[..end]), data.get(end + 1..).unwrap_or_default());
    let value = serde_json::to_string(&value).expect("a text can be JSON");
    let file = format!(
        "services:\n  web:\n    image: app\n    command: [{value}]\n    environment:\n      VALUE: {value}\n    env_file: [web.env]\n"
    );
    in_folder(|folder| {
        for name in [".env", "web.env"] {
            fs::write(folder.join(name), variables).expect("a file can be written");
        }
    });
    load_twice(file.as_bytes(), &BTreeMap::from([("HOME".to_owned(), "/$HOME".to_owned())]));
}
