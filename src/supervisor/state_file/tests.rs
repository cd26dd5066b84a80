use std::{collections::BTreeMap, fs};

use jiff::Timestamp;

use super::{
    Damage, FileError, Loaded, Scale, State, StateError, StateFile,
    form::{self, Unreadable},
    samples::everything,
};
use crate::{
    engine::{ContainerId, EngineIdentity},
    plan::{ExclusivePort, Failure, FailureReason, StoppedOutside, versions::Ended},
    spec::Protocol,
};

/// A state from before versioning.
const LAYOUT_0: &str = include_str!("layout_0.json");

fn json(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap()
}

fn engine(address: &str, id: &str) -> EngineIdentity {
    EngineIdentity { address: address.to_owned(), id: Some(id.to_owned()) }
}

fn in_folder() -> (tempfile::TempDir, StateFile) {
    let folder = tempfile::tempdir().unwrap();
    let file = StateFile::at(folder.path().join("shop.json"));
    (folder, file)
}

#[test]
fn an_unversioned_file_is_read() {
    assert_eq!(form::read(LAYOUT_0.as_bytes()).unwrap(), everything());
}

#[test]
fn the_written_form_has_the_keys_of_version_0_and_a_version() {
    let mut written = json(&form::write(&everything()).unwrap());
    assert_eq!(written["version"].take(), 1);
    written.as_object_mut().unwrap().remove("version");
    assert_eq!(written, json(LAYOUT_0.as_bytes()));
}

#[test]
fn the_exclusive_port_of_a_failure_is_stored_and_otherwise_omitted() {
    let mut state = everything();
    let ended = state.versions.values_mut().find_map(|versions| match &mut versions.last {
        Some(Ended {
            failed: Some((_, Failure { reason: FailureReason::Ended { last_termination }, .. })),
            ..
        }) => Some(last_termination),
        _ => None,
    });
    ended.unwrap().exclusive_port = Some(ExclusivePort { port: 30_001, protocol: Protocol::Tcp });
    let written = form::write(&state).unwrap();
    let compact = json(&written).to_string();
    assert_eq!(
        compact.matches(r#""exclusive_port":{"port":30001,"protocol":"tcp"}"#).count(),
        1,
        "{compact}"
    );
    assert_eq!(compact.matches("exclusive_port").count(), 1, "{compact}");
    assert_eq!(form::read(&written).unwrap(), state);
}

#[test]
fn what_is_written_is_read_back() {
    let id = |id: &str| ContainerId(id.to_owned());
    let (started_at, at) = (Timestamp::UNIX_EPOCH, Timestamp::MAX);
    let with_stops = State {
        ending: BTreeMap::from([(id("1f"), started_at)]),
        stopped_outside: BTreeMap::from([(id("2f"), StoppedOutside { started_at, at })]),
        renew_volumes: [("web".parse().unwrap(), crate::spec::Slot::new(2).unwrap())].into(),
        engine: Some(engine("tcp://10.0.0.7:2376", "B")),
        ..State::default()
    };
    for state in [State::default(), everything(), with_stops] {
        assert_eq!(form::read(&form::write(&state).unwrap()).unwrap(), state);
    }
}

#[test]
fn unknown_keys_are_ignored() {
    let mut written = json(&form::write(&everything()).unwrap());
    written["new"] = serde_json::json!({ "key": [1] });
    written["scale"]["web"]["new"] = true.into();
    written["versions"]["web"]["revisions"][0]["service"]["container"]["new"] = 1.into();
    assert_eq!(form::read(written.to_string().as_bytes()).unwrap(), everything());
}

#[test]
fn a_newer_version_is_recognized_by_its_number_only() {
    for (text, version) in [
        (r#"{"version": 2}"#, 2),
        (r#"{"scale": [], "version": 3, "stopped": 1}"#, 3),
        (r#"{"version": 18446744073709551615}"#, u64::MAX),
    ] {
        assert_eq!(form::read(text.as_bytes()), Err(Unreadable::Newer(version)), "{text}");
    }
}

#[test]
fn an_impossible_state_is_damaged() {
    let valid = form::write(&State::default()).unwrap();
    let valid = String::from_utf8(valid).unwrap();
    let with = |from: &str, to: &str| {
        assert!(valid.contains(from), "{valid}");
        valid.replace(from, to)
    };
    for (text, told) in [
        (String::new(), "it is empty"),
        (" \n".to_owned(), "it is empty"),
        ("\0\0\0\0".to_owned(), "it is not JSON"),
        ("{".to_owned(), "it ends too early"),
        ("shop".to_owned(), "it is not JSON"),
        (format!("{valid}{valid}"), "it is not JSON"),
        ("null".to_owned(), "it does not hold a state"),
        ("7".to_owned(), "it does not hold a state"),
        ("{}".to_owned(), "it does not hold a state"),
        (with(r#""version": 1"#, r#""version": -1"#), "it does not hold a state"),
        (with(r#""version": 1"#, r#""version": "1""#), "it does not hold a state"),
        (with(r#""scale": {}"#, r#""scale": []"#), "it does not hold a state"),
        (with(r#""scale": {}"#, r#""scale": {"web": {"file": 2}}"#), "it does not hold a state"),
        (
            with(r#""scale": {}"#, r#""scale": {"web": {"file": 2, "replicas": 4294967296}}"#),
            "it does not hold",
        ),
        (with(r#""scale": {}"#, r#""scale": {"-": {"file": 2, "replicas": 4}}"#), "cannot be a service name"),
        (with(r#""weights": {}"#, r#""weights": {"web": {"0": 4}}"#), "0 is not a replica number"),
        (with(r#""stopped": []"#, r#""stopped": ["a b"]"#), "cannot be a service name"),
    ] {
        let Err(Unreadable::Damaged(error)) = form::read(text.as_bytes()) else { panic!("{text}") };
        assert!(error.contains(told), "{text}: {error}");
    }
}

#[test]
fn a_truncated_file_is_damaged() {
    let whole = form::write(&everything()).unwrap();
    // Each attempt takes as long as parsing the whole file, so test only some positions.
    for end in (0..whole.len()).rev().step_by(101) {
        let found = form::read(&whole[..end]);
        assert!(matches!(found, Err(Unreadable::Damaged(_))), "{end}: {found:?}");
    }
}

#[test]
fn a_saved_state_is_loaded_until_it_is_cleared() {
    let (_folder, file) = in_folder();
    assert_eq!(file.load().unwrap(), Loaded::default());
    let state = everything();
    file.save(&state).unwrap();
    assert_eq!(file.load().unwrap(), Loaded { state, damage: None });
    file.clear().unwrap();
    file.clear().unwrap();
    assert_eq!(file.load().unwrap(), Loaded::default());
}

#[test]
fn a_damaged_file_is_reported_and_kept_until_it_is_moved_aside() {
    let (folder, file) = in_folder();
    let (path, bad) = (folder.path().join("shop.json"), folder.path().join("shop.json.bad"));
    fs::write(&bad, "older").unwrap();
    fs::write(&path, "{").unwrap();
    let Loaded { state, damage: Some(damage) } = file.load().unwrap() else { panic!() };
    assert_eq!(state, State::default());
    assert_eq!(damage, Damage { path: path.clone(), error: damage.error.clone() });
    assert!(damage.to_string().contains("shop.json is damaged: it ends too early"), "{damage}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "{");
    assert_eq!(file.put_aside().unwrap(), Some(bad.clone()));
    assert_eq!(fs::read_to_string(&bad).unwrap(), "{");
    assert!(!path.exists());
}

#[test]
fn a_newer_file_is_an_error_with_help_and_is_not_changed() {
    let (folder, file) = in_folder();
    let path = folder.path().join("shop.json");
    fs::write(&path, r#"{"version": 2}"#).unwrap();
    let error = file.load().unwrap_err();
    assert!(matches!(error, StateError::Newer { version: 2, .. }), "{error:?}");
    let told = error.to_string();
    assert!(told.contains("shop.json has version 2, and this sameport reads versions up to 1"), "{told}");
    assert!(error.help().contains("shop.json.v2"), "{}", error.help());
    assert_eq!(fs::read_to_string(&path).unwrap(), r#"{"version": 2}"#);
}

#[test]
fn the_state_of_a_project_on_another_engine_is_refused_and_not_changed() {
    let (folder, file) = in_folder();
    let (here, there) = (engine("unix:///run/docker.sock", "A"), engine("tcp://10.0.0.7:2376", "B"));
    let kept = State { stopped: ["web".parse().unwrap()].into(), ..State::default() };
    let path = folder.path().join("shop.json");
    file.save(&kept).unwrap();
    // Files of earlier releases do not name an engine.
    let loaded = file.clone().on(here.clone()).load().unwrap().state;
    assert_eq!(loaded, State { engine: Some(here.clone()), ..kept });
    file.save(&loaded).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(file.load().unwrap().state, loaded, "who only looks need not know the engine");
    assert_eq!(file.clone().on(engine("tcp://here:2376", "A")).load().unwrap().state.stopped, loaded.stopped);
    let error = file.on(there).load().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the state file {} is of a project on another engine, unix:///run/docker.sock; this command is for \
             tcp://10.0.0.7:2376",
            path.display()
        )
    );
    assert!(error.help().contains("DOCKER_HOST=unix:///run/docker.sock"), "{}", error.help());
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_path_that_is_not_a_file_is_an_error_that_names_it() {
    let (folder, file) = in_folder();
    fs::create_dir(folder.path().join("shop.json")).unwrap();
    let error = file.load().unwrap_err();
    assert!(matches!(error, StateError::File(FileError { .. })), "{error:?}");
    assert!(error.to_string().contains("shop.json: Is a directory"), "{error}");
    file.save(&State {
        scale: [("web".parse().unwrap(), Scale { file: 1, replicas: 2 })].into(),
        ..State::default()
    })
    .unwrap_err();
}
