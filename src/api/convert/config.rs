//! The resolved Compose file as JSON, with secret values hidden.

use serde_json::Value;

use super::Environment;

/// The replacement for a hidden value.
pub const HIDDEN: &str = "***";

/// Returns the resolved file. Hides the values of environments, build arguments, and inline configs and secrets, unless
/// `environment` is `Shown`.
#[must_use]
pub fn config(mut file: Value, environment: Environment) -> Value {
    if environment == Environment::Shown {
        return file;
    }
    if let Some(services) = file.get_mut("services").and_then(Value::as_object_mut) {
        services.values_mut().for_each(hide_environments);
    }
    for key in ["configs", "secrets"] {
        let entries = file.get_mut(key).and_then(Value::as_object_mut);
        for content in
            entries.into_iter().flat_map(|map| map.values_mut()).filter_map(|e| e.get_mut("content"))
        {
            hide(content);
        }
    }
    file
}

/// Hides the values of each `environment` and of the build's `args`, at any depth, because hooks and jobs have
/// environments as well.
fn hide_environments(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match key.as_str() {
                    "environment" => hide_values(value),
                    "build" => {
                        if let Some(args) = value.get_mut("args") {
                            hide_values(args);
                        }
                    }
                    // Keys of these maps are chosen by the user, so `environment` and `build` have no meaning there.
                    "labels" | "annotations" | "extra_hosts" | "sysctls" => {}
                    _ => hide_environments(value),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(hide_environments),
        _ => {}
    }
}

/// Hides the values of `NAME: value` and `- NAME=value`.
fn hide_values(value: &mut Value) {
    match value {
        Value::Object(map) => map.values_mut().for_each(hide),
        Value::Array(list) => {
            for item in list {
                if let Some((name, _)) = item.as_str().and_then(|text| text.split_once('=')) {
                    *item = Value::String(format!("{name}={HIDDEN}"));
                }
            }
        }
        _ => {}
    }
}

/// Leaves a variable without a value as it is.
fn hide(value: &mut Value) {
    if !value.is_null() {
        *value = Value::String(HIDDEN.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_value_of_an_environment_is_shown() {
        let file = json!({
            "name": "shop",
            "services": { "web": {
                "image": "web:1",
                "environment": { "PASSWORD": "hunter2", "FROM_SHELL": null },
                "build": { "context": ".", "args": ["TOKEN=hunter2", "BARE"] },
                "post_start": [{ "command": ["true"], "environment": { "KEY": "hunter2" } }],
                "x-sameport": { "pre_deploy": { "command": ["true"], "environment": ["KEY=hunter2"] } },
                "labels": { "environment": "staging" },
            } },
            "configs": { "motd": { "content": "hunter2" } },
            "secrets": { "db": { "environment": "DB_PASSWORD" } },
        });
        let told = config(file.clone(), Environment::Hidden);
        assert!(!told.to_string().contains("hunter2"), "{told}");
        assert_eq!(told["services"]["web"]["environment"], json!({ "PASSWORD": HIDDEN, "FROM_SHELL": null }));
        assert_eq!(told["services"]["web"]["build"]["args"], json!(["TOKEN=***", "BARE"]));
        assert_eq!(told["services"]["web"]["labels"]["environment"], "staging");
        assert_eq!(told["secrets"]["db"]["environment"], "DB_PASSWORD", "it is a name");
        assert_eq!(config(file.clone(), Environment::Shown), file);
    }
}
