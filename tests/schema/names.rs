//! One thing has one name, in every document.

use std::collections::{BTreeMap, BTreeSet};

use sameport::api::schema::documents;
use serde_json::Value;

/// Names that are not the field's, and what the field says. None of them may come back as a key or a value.
const PRIVATE: [(&str, &str); 29] = [
    ("troubles", "errors"),
    ("illness", "unhealthy_reason"),
    ("autopsy", "last_termination"),
    ("strangers", "foreign_listeners"),
    ("stranger", "foreign_listener"),
    ("successor", "replacement"),
    ("settled", "idle"),
    ("current", "up_to_date"),
    ("open", "ready"),
    ("most", "capacity"),
    ("live", "connections"),
    ("total", "connections_total"),
    ("queue", "queued"),
    ("other_users", "user_conflicts"),
    ("other_user", "user_conflict"),
    ("proof", "summary"),
    ("began", "started_at"),
    ("begun", "started"),
    ("underway", "in_progress"),
    ("back", "rollback"),
    ("whole", "new_replicas"),
    ("of", "total"),
    ("not_applied", "rejected"),
    ("cannot_steer", "steering_unavailable"),
    ("left_in_kernel", "kernel_state_left"),
    ("engine_back", "engine_reachable"),
    ("engine_lost", "engine_unreachable"),
    ("verb", "action"),
    ("tries", "attempts"),
];

/// Keys and values that stand for a private name elsewhere and are the right word here, by document or type.
const RIGHT_HERE: [(&str, &str); 3] =
    // How many slots a rollout has; the step that is in force; events as they happen.
    [("Rollout", "total"), ("Steps", "current"), ("line", "live")];

/// All names in a schema: keys of objects, and words that a value can be.
fn names(schema: &Value, of: &str, found: &mut BTreeSet<(String, String)>) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("properties", Value::Object(properties)) => {
                        found.extend(properties.keys().map(|key| (of.to_owned(), key.clone())));
                        properties.values().for_each(|schema| names(schema, of, found));
                    }
                    ("$defs", Value::Object(types)) => {
                        types.iter().for_each(|(name, schema)| names(schema, name, found));
                    }
                    ("const", Value::String(word)) => drop(found.insert((of.to_owned(), word.clone()))),
                    ("enum", Value::Array(words)) => {
                        let words = words.iter().filter_map(Value::as_str);
                        found.extend(words.map(|word| (of.to_owned(), word.to_owned())));
                    }
                    (_, value) => names(value, of, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|schema| names(schema, of, found)),
        _ => {}
    }
}

fn all() -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for document in documents() {
        names(&document.schema.to_value(), document.name, &mut found);
    }
    found
}

#[test]
fn all_are_in_snake_case() {
    for (of, name) in all() {
        let is_snake =
            name.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_');
        assert!(is_snake, "{of}: {name}");
    }
}

#[test]
fn none_is_a_private_one() {
    for (of, name) in all() {
        let is_right = RIGHT_HERE.contains(&(of.as_str(), name.as_str()));
        if let Some((_, standard)) = PRIVATE.iter().find(|(private, _)| *private == name && !is_right) {
            panic!("{of} has `{name}`, which is called `{standard}`");
        }
    }
}

#[test]
fn one_key_has_one_meaning_wherever_it_stands() {
    // What a key holds, by key: two documents must not use one name for a text here and a number there.
    let mut kinds: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for document in documents() {
        let schema = document.schema.to_value();
        let types = schema.get("$defs").cloned().unwrap_or_default();
        collect(&schema, &types, &mut kinds);
    }
    for (key, kinds) in kinds {
        assert!(kinds.len() == 1, "`{key}` is of several kinds: {kinds:#?}");
    }
}

fn collect(schema: &Value, types: &Value, kinds: &mut BTreeMap<String, BTreeSet<String>>) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                if let ("properties", Value::Object(properties)) = (key.as_str(), value) {
                    for (key, schema) in properties {
                        kinds.entry(key.clone()).or_default().insert(kind(schema, types));
                    }
                }
                collect(value, types, kinds);
            }
        }
        Value::Array(list) => list.iter().for_each(|schema| collect(schema, types, kinds)),
        _ => {}
    }
}

/// What a value is, whether or not it can be absent: a kind of JSON, or the name of an object's type.
fn kind(schema: &Value, types: &Value) -> String {
    if let Some(choices) = schema.get("anyOf").and_then(Value::as_array) {
        return choices
            .iter()
            .map(|choice| kind(choice, types))
            .find(|kind| kind != "null")
            .unwrap_or_default();
    }
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let name = reference.rsplit('/').next().unwrap();
        let own = kind(&types[name], types);
        return if own == "object" { name.to_owned() } else { own };
    }
    let listed = |key: &str| schema.get(key).and_then(Value::as_array);
    match (schema.get("type"), listed("oneOf")) {
        (Some(Value::String(kind)), _) => kind.clone(),
        (Some(Value::Array(kinds)), _) => {
            kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("null").to_owned()
        }
        (_, Some(choices)) => choices.first().map_or_else(String::new, |choice| kind(choice, types)),
        _ if schema.get("const").is_some() => "string".to_owned(),
        _ => "anything".to_owned(),
    }
}
