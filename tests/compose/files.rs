//! Which files and variables make a project, and what it is called.

use std::path::{Path, PathBuf};

use sameport::compose::{self, Loaded};

use crate::support::{Folder, file};

const WEB: &str = "services:\n  web:\n    image: nginx:${TAG:-none}\n";

fn names(loaded: &Loaded) -> Vec<String> {
    loaded.files.iter().map(|f| f.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

fn image(folder: &Folder) -> String {
    let loaded = folder.load().unwrap_or_else(|e| panic!("{e}"));
    loaded.project.services.values().next().unwrap().container.image.0.clone()
}

#[test]
fn the_best_name_wins_and_the_other_is_told() {
    let folder = Folder::new(&[("docker-compose.yml", WEB), ("compose.yaml", WEB)]);
    let loaded = folder.load().unwrap();
    assert_eq!(names(&loaded), ["compose.yaml"]);
    assert!(loaded.warnings[0].message.contains("and not"), "{:?}", loaded.warnings);
}

#[test]
fn an_override_file_is_merged_over_it() {
    let folder = Folder::new(&[
        ("docker-compose.yml", WEB),
        ("docker-compose.override.yml", "services:\n  web:\n    image: caddy\n"),
    ]);
    assert_eq!(names(&folder.load().unwrap()), ["docker-compose.yml", "docker-compose.override.yml"]);
    assert_eq!(image(&folder), "caddy");
}

#[test]
fn a_file_of_a_parent_is_found_with_its_variables() {
    let mut folder = Folder::new(&[("compose.yml", WEB), (".env", "TAG=parent"), ("src/deep/x", "")]);
    folder.options.current_dir = folder.home().join("src/deep");
    assert_eq!(image(&folder), "nginx:parent");
    assert_eq!(folder.load().unwrap().project.name.as_str(), "shop");
}

#[test]
fn named_files_are_merged_in_their_order() {
    let mut folder = Folder::new(&[
        ("compose.yaml", "services:\n  web: {image: unused}\n"),
        ("a.yaml", "services:\n  web: {image: a, user: a}\n"),
        ("sub/b.yaml", "services:\n  web: {image: b, volumes: [\"./data:/data\"]}\n"),
    ]);
    folder.options.files = vec!["a.yaml".into(), "sub/b.yaml".into()];
    let loaded = folder.load().unwrap();
    let web = &loaded.project.services.values().next().unwrap().container;
    assert_eq!((web.image.0.as_str(), web.user.as_deref()), ("b", Some("a")));
    // Paths start at the folder of the first file.
    assert!(loaded.rendered.contains(&format!("{}:/data", folder.home().join("data").display())));
    folder.options.files.clear();
    let folder = folder.with(&[("COMPOSE_FILE", "a.yaml|sub/b.yaml"), ("COMPOSE_PATH_SEPARATOR", "|")]);
    assert_eq!(folder.load().unwrap().project, loaded.project);
}

#[test]
fn the_process_wins_over_env_files_and_later_ones_over_earlier_ones() {
    let mut folder = Folder::new(&[
        ("compose.yaml", WEB),
        (".env", "TAG=dotenv"),
        ("a.env", "TAG=a\nOTHER=$TAG"),
        ("b.env", "TAG=b-$OTHER"),
    ]);
    assert_eq!(image(&folder), "nginx:dotenv");
    folder.options.env_files = vec!["a.env".into(), "b.env".into()];
    assert_eq!(image(&folder), "nginx:b-a");
    let mut folder = folder.with(&[("TAG", "process")]);
    assert_eq!(image(&folder), "nginx:process");
    folder.options.env_files.clear();
    folder.options.environment.clear();
    assert_eq!(image(&folder.with(&[("COMPOSE_DISABLE_ENV_FILE", "1")])), "nginx:none");
}

#[test]
fn the_name_comes_from_the_nearest_place() {
    let name = |folder: &Folder| compose::project_name(&folder.options).unwrap().to_string();
    let plain = file(WEB);
    assert_eq!(name(&plain), "shop");
    let mut folder = file(&format!("name: named-${{TAG:-x}}\n{WEB}"));
    assert_eq!(name(&folder), "named-x");
    std::fs::write(folder.home().join(".env"), "COMPOSE_PROJECT_NAME=dotenv\n").unwrap();
    assert_eq!(name(&folder), "dotenv");
    folder = folder.with(&[("COMPOSE_PROJECT_NAME", "process")]);
    assert_eq!(name(&folder), "process");
    folder.options.project_name = Some("option".into());
    assert_eq!(name(&folder), "option");
    assert_eq!(folder.load().unwrap().project.name.as_str(), "option");
}

#[test]
fn a_given_name_needs_no_file() {
    let mut folder = Folder::new(&[]);
    folder.options.project_name = Some("gone".into());
    assert_eq!(compose::project_name(&folder.options).unwrap().as_str(), "gone");
    folder.options.project_name = None;
    assert!(compose::project_name(&folder.options).is_err());
}

#[test]
fn profiles_turn_services_on() {
    let text =
        "services:\n  a: {image: a}\n  b: {image: a, profiles: [x, y]}\n  c: {image: a, profiles: [z]}\n";
    for (profiles, variable, expected) in [
        (&[][..], "", "a"),
        (&["y"], "", "a b"),
        (&[], "x,z", "a b c"),
        (&["*"], "", "a b c"),
        (&["none"], "", "a"),
    ] {
        let mut folder = file(text).with(&[("COMPOSE_PROFILES", variable)]);
        folder.options.profiles = profiles.iter().map(|p| (*p).to_owned()).collect();
        let loaded = folder.load().unwrap();
        let on: Vec<_> = loaded.project.services.keys().map(|name| name.as_str()).collect();
        assert_eq!(on.join(" "), expected, "{profiles:?} {variable}");
    }
}

#[test]
fn paths_start_at_the_project_directory_and_at_home() {
    let mut folder =
        file("services:\n  web: {image: a, volumes: [\"./a:/a\", \"~/b:/b\", \"../c:/c\", \"/d:/d\"]}\n")
            .with(&[("HOME", "/home/ann")]);
    folder.options.files = vec![folder.home().join("compose.yaml")];
    folder.options.project_directory = Some(PathBuf::from("/srv/site"));
    let loaded = folder.load().unwrap();
    let mounts =
        serde_json::to_value(&loaded.project.services.values().next().unwrap().container.mounts).unwrap();
    let paths: Vec<_> =
        mounts.as_array().unwrap().iter().map(|m| m["source"]["bind"]["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/srv/site/a", "/home/ann/b", "/srv/c", "/d"]);
    assert_eq!(loaded.project.name.as_str(), "site");
    assert!(Path::new(&loaded.files[0]).is_absolute());
}

#[test]
fn a_variable_without_a_value_is_taken_from_outside() {
    let folder = Folder::new(&[
        (
            "compose.yaml",
            "services:\n  web:\n    image: a\n    env_file: [a.env]\n    environment: [FROM_PROCESS, FROM_DOTENV, NOWHERE, BOTH=own]\n",
        ),
        (".env", "FROM_DOTENV=2\n"),
        ("a.env", "BOTH=file\nFILE=3\nNOWHERE=4\n"),
    ]);
    let loaded = folder.with(&[("FROM_PROCESS", "1")]).load().unwrap();
    let environment = &loaded.project.services.values().next().unwrap().container.environment;
    let all: Vec<_> =
        environment.iter().map(|(k, v)| format!("{k}={}", v.as_deref().unwrap_or("(unset)"))).collect();
    assert_eq!(all, ["BOTH=own", "FILE=3", "FROM_DOTENV=2", "FROM_PROCESS=1", "NOWHERE=(unset)"]);
}

/// Reads the project, makes a file of it another one, and tells whether that is known to matter.
fn matters(files: &[(&str, &str)], changed: &str, text: &str) -> bool {
    let folder = Folder::new(files);
    let read = compose::read(&folder.options);
    assert!(!read.files.have_changed(), "{changed}");
    std::fs::write(folder.home().join(changed), text).unwrap();
    read.files.have_changed()
}

#[test]
fn every_file_that_decides_is_known_also_those_that_are_not_there_and_when_loading_fails() {
    let service = "services:\n  web:\n    image: nginx\n    env_file: [{ path: app.env, required: false }]\n";
    let invalid = "services:\n  web:\n    image: nginx\n    env_file: app.env\n    scale: many\n";
    for (files, changed, expected) in [
        (&[("compose.yaml", WEB)][..], "compose.yaml", true),
        (&[("compose.yaml", WEB)], ".env", true),
        (&[("compose.yaml", WEB)], "compose.override.yaml", true),
        (&[("compose.yml", WEB)], "compose.yaml", true),
        (&[("compose.yaml", WEB), (".env", "TAG=1")], ".env", true),
        (&[("compose.yaml", service)], "app.env", true),
        (&[("compose.yaml", service), ("app.env", "A=1")], "app.env", true),
        (&[("compose.yaml", WEB)], "app.env", false),
        (&[], "compose.yaml", true),
        (&[("compose.yaml", "services: [")], "compose.yaml", true),
        (&[("compose.yaml", WEB), (".env", "TAG='")], ".env", true),
        (&[("compose.yaml", invalid), ("app.env", "A=1")], "app.env", true),
        (&[("compose.yaml", invalid)], "app.env", true),
    ] {
        assert_eq!(matters(files, changed, "B: 2"), expected, "{files:?} {changed}");
    }
}

#[test]
fn a_fingerprint_says_which_files_were_there_and_what_was_in_them() {
    let folder = Folder::new(&[("compose.yaml", WEB), ("deep/x", "")]);
    let fingerprint = |folder: &Folder| compose::read(&folder.options).files.fingerprint();
    let before = fingerprint(&folder);
    let mut deep = Folder::new(&[]);
    deep.options.current_dir = folder.home().join("deep");
    assert_eq!(fingerprint(&deep), before, "however they were found");
    std::fs::write(folder.home().join(".env"), "").unwrap();
    assert_ne!(fingerprint(&folder), before);
}
