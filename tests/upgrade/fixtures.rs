//! The files below `tests/fixtures/release-0`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use sameport::{
    compose,
    spec::{Generation, Project},
    supervisor::{State, StateFile},
};
use serde_json::Value;

/// The name of the project that made them.
pub const PROJECT: &str = "sameport-fixture";

/// Where they are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/release-0")
}

/// A file's text.
pub fn text(name: &str) -> String {
    let path = folder().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A file of JSON.
pub fn json(name: &str) -> Value {
    serde_json::from_str(&text(name)).unwrap()
}

/// The generation that a container was labelled with.
pub fn generation(container: &str) -> Generation {
    let labels = &json(&format!("containers/{container}.json"))["Config"]["Labels"];
    Generation::from_label(labels["dev.sameport.generation"].as_str().unwrap())
}

/// A Compose file, for a project of that name.
pub fn load(path: PathBuf, name: &str) -> Project {
    let environment = BTreeMap::from([("COMPOSE_PROJECT_NAME".to_owned(), name.to_owned())]);
    let options = compose::Options { files: vec![path], environment, ..compose::Options::default() };
    compose::load(&options).unwrap_or_else(|error| panic!("{}", error.render(false))).project
}

/// All state files, by name.
pub fn states() -> BTreeMap<String, State> {
    let entries = fs::read_dir(folder().join("states")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .map(|name| name.strip_suffix(".json").unwrap().to_owned())
        .map(|name| (name.clone(), state(&name)))
        .collect()
}

/// A state file, as a supervisor of this release reads it. It reads a copy: what it finds there may not change.
pub fn state(name: &str) -> State {
    let file = format!("{name}.json");
    let folder_of_copy = tempfile::tempdir().unwrap();
    let copy = folder_of_copy.path().join(&file);
    fs::copy(folder().join("states").join(&file), &copy).unwrap();
    let loaded = StateFile::at(copy).load().unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(loaded.damage.map(|damage| damage.to_string()), None, "{name} is taken for damaged");
    loaded.state
}

/// The Compose file of that name, with variables.
pub fn project(file: &str, variables: &[(&str, &str)]) -> Project {
    let mut environment: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    environment.insert("COMPOSE_PROJECT_NAME".to_owned(), PROJECT.to_owned());
    let options = compose::Options {
        files: vec![folder().join("compose").join(file)],
        current_dir: folder(),
        environment,
        ..compose::Options::default()
    };
    compose::load(&options).unwrap_or_else(|error| panic!("{file}: {}", error.render(false))).project
}
