//! Makes a merged file independent of its location: `env_file` becomes `environment`, relative paths become absolute,
//! and networks and volumes get their names.

use std::{collections::BTreeMap, path::Path};

use super::{
    convert::volumes,
    diagnostic::LoadError,
    env_file::{self, Format},
    fields::{Fields, wrong_type},
    find::{self, Accepts, Found},
    keys, merge,
    node::{Entry, Map, Node, Scalar, Style, Value},
    report::{Problem, Report},
    source::At,
};
use crate::spec::ProjectName;

/// Resolves a file in place.
pub(super) fn resolve(
    document: &mut Node,
    name: &ProjectName,
    found: &Found,
    report: &Report,
) -> Result<(), LoadError> {
    let at = document.at;
    let Value::Map(top) = &mut document.value else { return Ok(()) };
    let key = top.get("name").map_or(at, |entry| entry.key);
    let entry = Entry { key, node: Node::text(name.as_str(), key) };
    top.shift_remove("name");
    top.shift_insert(0, "name".to_owned(), entry);
    if let Some(Value::Map(services)) = top.get_mut("services").map(|entry| &mut entry.node.value) {
        for entry in services.values_mut() {
            for command in merge::commands(&mut entry.node) {
                fill_in(command, found, report);
            }
            let Value::Map(service) = &mut entry.node.value else { continue };
            environment(service, found, report)?;
            paths(service, found, report);
        }
    }
    resources(top, "networks", name, at);
    resources(top, "volumes", name, at);
    Ok(())
}

/// Merges the variables of `env_file` below those of `environment`, and sets variables without a value.
fn environment(service: &mut Map, found: &Found, report: &Report) -> Result<(), LoadError> {
    let mut merged = Map::new();
    if let Some(entry) = service.shift_remove("env_file") {
        let files: &[Node] = match &entry.node.value {
            Value::List(list) => list,
            _ if entry.node.is_null() => &[],
            _ => std::slice::from_ref(&entry.node),
        };
        let mut read = BTreeMap::new();
        for file in files {
            read_env_file(file, found, &mut read, report)?;
        }
        for (name, (value, at)) in read {
            merged.insert(name, Entry { key: at, node: Node::text(value, at) });
        }
    }
    let Some(given) = service.get_mut("environment") else {
        if let Some(first) = merged.values().next() {
            let (key, node) = (first.key, Node::map(Map::new(), first.key));
            service.insert(
                "environment".to_owned(),
                Entry { key, node: Node { value: Value::Map(merged), ..node } },
            );
        }
        return Ok(());
    };
    if given.node.is_null() {
        given.node.value = Value::Map(Map::new());
    }
    let Value::Map(variables) = &mut given.node.value else { return Ok(()) };
    for (name, mut entry) in std::mem::take(variables) {
        if entry.node.is_null()
            && let Some(value) = report.variable(&name, found.environment.get(&name))
        {
            entry.node.value = Value::Scalar(Scalar::text(value));
        }
        merged.insert(name, entry);
    }
    *variables = merged;
    Ok(())
}

/// Sets variables without a value in the `environment` of a hook or job.
fn fill_in(command: &mut Node, found: &Found, report: &Report) {
    let Value::Map(map) = &mut command.value else { return };
    let Some(Value::Map(variables)) = map.get_mut("environment").map(|entry| &mut entry.node.value) else {
        return;
    };
    for (name, entry) in variables {
        if entry.node.is_null()
            && let Some(value) = report.variable(name, found.environment.get(name))
        {
            entry.node.value = Value::Scalar(Scalar::text(value));
        }
    }
}

fn read_env_file(
    item: &Node,
    found: &Found,
    read: &mut BTreeMap<String, (String, At)>,
    report: &Report,
) -> Result<(), LoadError> {
    let (path, required, format) = match &item.value {
        Value::Scalar(scalar) => (Some(scalar.text.clone()), true, Format::Compose),
        Value::Map(_) => {
            keys::check(item, "an entry of `env_file`", keys::ENV_FILE, report);
            let fields = Fields { node: item, report };
            if fields.get("path").is_none() {
                report.push(
                    Problem::error(item.at, "an entry of `env_file` has no `path`").help("add `path: FILE`"),
                );
            }
            let format = fields.choice("format", &[("raw", Format::Raw), ("dotenv", Format::Compose)]);
            (
                fields.text("path"),
                fields.boolean("required").unwrap_or(true),
                format.unwrap_or(Format::Compose),
            )
        }
        Value::List(_) => {
            report.push(wrong_type(item, "env_file", "the path of a file"));
            (None, false, Format::Compose)
        }
    };
    let Some(path) = path else { return Ok(()) };
    let file = find::absolute(&found.directory, &home(Path::new(&path), found, report));
    if !report.is_file(&file) {
        if required {
            report.push(
                Problem::error(item.at, format!("there is no env file {}", file.display()))
                    .help("make it, or write `- path: FILE` with `required: false` below it"),
            );
        }
        return Ok(());
    }
    let (source, at) = find::open(&file, Accepts::Streams, report)?;
    let lookup = |name: &str| {
        let here = || read.get(name).map(|(value, _): &(String, At)| value.clone());
        report.variable(name, found.environment.get(name).cloned().or_else(here))
    };
    let values = env_file::read(&source, at, format, &lookup, report);
    read.extend(values.into_iter().map(|(name, value)| (name, (value, item.at))));
    Ok(())
}

/// Makes the host paths of bind mounts absolute.
fn paths(service: &mut Map, found: &Found, report: &Report) {
    let Some(Value::List(mounts)) = service.get_mut("volumes").map(|entry| &mut entry.node.value) else {
        return;
    };
    for mount in mounts {
        match &mut mount.value {
            Value::Scalar(scalar) => {
                let Some(short) = volumes::split(&scalar.text) else { continue };
                let Some(source) = short.source.filter(|source| volumes::is_path(source)) else { continue };
                let source = host_path(source, found, report);
                let mode = short.mode.map(|mode| format!(":{mode}")).unwrap_or_default();
                scalar.text = format!("{source}:{}{mode}", short.target);
            }
            Value::Map(map) => {
                let text = |map: &Map, key: &str| Some(map.get(key)?.node.as_scalar()?.text.clone());
                if text(map, "type").as_deref() == Some("bind")
                    && let Some(source) = text(map, "source")
                    && let Some(entry) = map.get_mut("source")
                {
                    entry.node.value = Value::Scalar(Scalar::text(host_path(&source, found, report)));
                }
            }
            Value::List(_) => {}
        }
    }
}

fn host_path(path: &str, found: &Found, report: &Report) -> String {
    find::absolute(&found.directory, &home(Path::new(path), found, report)).to_string_lossy().into_owned()
}

/// Expands `~` to the home directory of the user.
fn home(path: &Path, found: &Found, report: &Report) -> std::path::PathBuf {
    let Ok(rest) = path.strip_prefix("~") else { return path.to_owned() };
    match report.variable("HOME", found.environment.get("HOME")) {
        Some(home) => Path::new(home).join(rest),
        None => path.to_owned(),
    }
}

/// Sets the name on the engine of each network or volume.
fn resources(top: &mut Map, kind: &str, project: &ProjectName, at: At) {
    if kind == "networks" {
        let entry =
            top.entry(kind.to_owned()).or_insert_with(|| Entry { key: at, node: Node::map(Map::new(), at) });
        if entry.node.is_null() {
            entry.node.value = Value::Map(Map::new());
        }
        if let Value::Map(networks) = &mut entry.node.value
            && !networks.contains_key("default")
        {
            networks.insert("default".to_owned(), Entry { key: at, node: Node::map(Map::new(), at) });
        }
    }
    let Some(Value::Map(map)) = top.get_mut(kind).map(|entry| &mut entry.node.value) else { return };
    for (key, entry) in map {
        if entry.node.is_null() {
            entry.node.value = Value::Map(Map::new());
        }
        let Value::Map(resource) = &mut entry.node.value else { continue };
        let old = match resource.get("external").map(|e| &e.node) {
            // The form of Compose file version 2: `external: {name: x}`.
            Some(node) if node.as_map().is_some() => {
                let name = node.get("name").cloned();
                let at = node.at;
                let yes = Scalar { text: "true".into(), style: Style::Plain };
                resource.insert(
                    "external".to_owned(),
                    Entry { key: at, node: Node::new(Value::Scalar(yes), at) },
                );
                name
            }
            _ => None,
        };
        let external = resource
            .get("external")
            .and_then(|e| e.node.as_scalar())
            .is_some_and(|s| matches!(s.text.to_ascii_lowercase().as_str(), "true" | "yes" | "on"));
        if resource.get("name").is_none_or(|e| e.node.is_null()) {
            let name = if external { key.clone() } else { format!("{project}_{key}") };
            let node = old.unwrap_or_else(|| Node::text(name, entry.key));
            resource.insert("name".to_owned(), Entry { key: entry.key, node });
        }
    }
}
