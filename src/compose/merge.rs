//! Merges several files by Compose's rules: mappings merge, most lists are appended without duplicates, commands are
//! replaced.
//!
//! See the [Compose Specification](https://github.com/compose-spec/compose-spec/blob/main/13-merge.md).

use std::collections::HashMap;

use super::{
    convert::volumes,
    node::{Directive, Entry, Map, Node, Scalar, Value},
    report::{Problem, Report},
};

/// Converts each value to its long form, so that files merge by key: short lists become mappings, and old names of keys
/// become current ones.
pub(super) fn normalise(document: &mut Node, report: &Report) {
    for service in children(document, "services") {
        with(service, "x-sameport", |node| rename(node, "before", "pre_deploy", report));
        for key in ["environment", "labels", "annotations", "sysctls"] {
            with(service, key, |node| pairs(node, report));
        }
        with(service, "depends_on", |node| {
            names(node, || {
                let condition = ("condition".to_owned(), "service_started");
                Some(condition)
            });
        });
        with(service, "networks", |node| names(node, || None));
        for node in commands(service) {
            with(node, "environment", |node| pairs(node, report));
        }
        if let Some(deploy) = child(service, "deploy") {
            with(deploy, "labels", |node| pairs(node, report));
        }
    }
    for kind in ["networks", "volumes"] {
        for entry in children(document, kind) {
            with(entry, "labels", |node| pairs(node, report));
        }
    }
}

fn child<'a>(node: &'a mut Node, key: &str) -> Option<&'a mut Node> {
    match &mut node.value {
        Value::Map(map) => map.get_mut(key).map(|entry| &mut entry.node),
        _ => None,
    }
}

fn children<'a>(node: &'a mut Node, key: &str) -> impl Iterator<Item = &'a mut Node> {
    let map = child(node, key).and_then(|node| match &mut node.value {
        Value::Map(map) => Some(map),
        _ => None,
    });
    map.into_iter().flat_map(|map| map.values_mut().map(|entry| &mut entry.node))
}

/// The additional commands of a service: its hooks and its pre-deploy job.
pub(super) fn commands(service: &mut Node) -> Vec<&mut Node> {
    let Value::Map(map) = &mut service.value else { return Vec::new() };
    let mut found = Vec::new();
    for (key, entry) in map {
        match key.as_str() {
            "post_start" | "pre_stop" => {
                if let Value::List(hooks) = &mut entry.node.value {
                    found.extend(hooks);
                }
            }
            "x-sameport" => found.extend(child(&mut entry.node, "pre_deploy")),
            _ => {}
        }
    }
    found
}

fn with(node: &mut Node, key: &str, change: impl FnOnce(&mut Node)) {
    if let Some(node) = child(node, key) {
        change(node);
    }
}

/// Renames a key to its current name. It is an error if both names are set.
fn rename(node: &mut Node, old: &str, new: &str, report: &Report) {
    let Value::Map(map) = &mut node.value else { return };
    let Some(place) = map.get_index_of(old) else { return };
    let entry = map.shift_remove(old);
    let Some(entry) = entry else { return };
    match map.get(new) {
        None => drop(map.shift_insert(place, new.to_owned(), entry)),
        Some(named) => report.push(
            Problem::error(entry.key, format!("`{old}` is the old name of `{new}`, which is here as well"))
                .related(named.key, format!("`{new}` is here"))
                .help(format!("remove `{old}`")),
        ),
    }
}

/// Converts `[A=1, B]` to `{A: 1, B: null}`. Other values are unchanged; their types are checked later.
fn pairs(node: &mut Node, report: &Report) {
    let Value::List(list) = &node.value else { return };
    let mut map = Map::new();
    for item in list {
        let Some(text) = item.as_scalar().map(|s| s.text.as_str()) else { return };
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Node::text(value, item.at)),
            None => (text, null(item)),
        };
        let entry = Entry { key: item.at, node: value };
        if let Some(first) = map.insert(name.to_owned(), entry) {
            report.push(
                Problem::warning(item.at, format!("`{name}` is here twice: the last one counts"))
                    .related(first.key, "first here")
                    .help("remove one of them"),
            );
        }
    }
    node.value = Value::Map(map);
}

/// Converts `[a, b]` to `{a: …, b: …}`, each with the entry that `inner` returns.
fn names(node: &mut Node, inner: impl Fn() -> Option<(String, &'static str)>) {
    let Value::List(list) = &node.value else { return };
    let mut map = Map::new();
    for item in list {
        let Some(scalar) = item.as_scalar() else { return };
        let value = match inner() {
            Some((key, text)) => {
                let entry = Entry { key: item.at, node: Node::text(text, item.at) };
                Node::map(Map::from_iter([(key, entry)]), item.at)
            }
            None => null(item),
        };
        map.insert(scalar.text.clone(), Entry { key: item.at, node: value });
    }
    node.value = Value::Map(map);
}

fn null(item: &Node) -> Node {
    let scalar = Scalar { text: String::new(), style: super::node::Style::Plain };
    Node::new(Value::Scalar(scalar), item.at)
}

/// How a later value is combined with an earlier one.
enum Rule {
    /// The later value replaces the earlier one.
    Replace,
    /// Mappings merge, lists are appended, and other values are replaced.
    Merge,
    /// Lists are appended. An item replaces an earlier one of the same name.
    Unique(fn(&Node) -> Option<String>),
}

fn rule(path: &[&str]) -> Rule {
    match path {
        ["services", _, "command" | "entrypoint"]
        | ["services", _, "healthcheck", "test"]
        | ["services", _, "x-sameport", "pre_deploy", "command"] => Rule::Replace,
        ["services", _, "volumes"] => Rule::Unique(volumes::target_of),
        ["services", _, "devices" | "tmpfs"] => Rule::Unique(volumes::target_of),
        ["services", _, "env_file"] => Rule::Unique(|node| by(node, "path")),
        _ => Rule::Merge,
    }
}

fn by(node: &Node, key: &str) -> Option<String> {
    let scalar = node.as_scalar().or_else(|| node.get(key)?.as_scalar());
    scalar.map(|s| s.text.clone())
}

/// Merges the later tree over the earlier one.
pub(super) fn merge(base: Node, over: Node) -> Node {
    merge_at(base, over, &mut Vec::new())
}

fn merge_at(base: Node, over: Node, path: &mut Vec<String>) -> Node {
    if over.directive == Some(Directive::Override) {
        return Node { directive: None, ..over };
    }
    if over.directive == Some(Directive::Reset) {
        return over;
    }
    let parts: Vec<&str> = path.iter().map(String::as_str).collect();
    let rule = rule(&parts);
    let replaced_driver = matches!(parts[..], ["services", _, "logging"])
        && by_key(&base, "driver") != by_key(&over, "driver")
        && over.get("driver").is_some();
    if matches!(rule, Rule::Replace) || replaced_driver {
        return over;
    }
    let is_variable = matches!(
        parts[..],
        ["services", _, "environment", _] | ["services", _, "x-sameport", "pre_deploy", "environment", _]
    );
    match (base.value, over.value) {
        (Value::Map(earlier), Value::Map(later)) => {
            Node { value: Value::Map(merge_maps(earlier, later, path)), at: over.at, directive: None }
        }
        (earlier, Value::Scalar(scalar)) if !is_variable && scalar.kind() == super::node::Kind::Null => {
            Node { value: earlier, at: base.at, directive: None }
        }
        (Value::List(earlier), Value::List(later)) => lists(earlier, later, over.at, &rule),
        // A single text such as `dns: 1.1.1.1` is a list of one item.
        (Value::List(earlier), Value::Scalar(one)) => {
            lists(earlier, vec![Node::new(Value::Scalar(one), over.at)], over.at, &rule)
        }
        (Value::Scalar(one), Value::List(later)) if one.kind() != super::node::Kind::Null => {
            lists(vec![Node::new(Value::Scalar(one), base.at)], later, over.at, &rule)
        }
        (_, value) => Node { value, at: over.at, directive: None },
    }
}

fn by_key(node: &Node, key: &str) -> Option<String> {
    node.get(key)?.as_scalar().map(|s| s.text.clone())
}

fn merge_maps(mut earlier: Map, later: Map, path: &mut Vec<String>) -> Map {
    for (key, entry) in later {
        let merged = match earlier.get_mut(&key) {
            None => Entry { key: entry.key, node: entry.node },
            Some(base) => {
                path.push(key.clone());
                let base = Node {
                    value: std::mem::replace(&mut base.node.value, Value::List(Vec::new())),
                    ..base.node
                };
                let node = merge_at(base, entry.node, path);
                path.pop();
                Entry { key: entry.key, node }
            }
        };
        earlier.insert(key, merged);
    }
    earlier
}

fn lists(earlier: Vec<Node>, later: Vec<Node>, at: super::source::At, rule: &Rule) -> Node {
    let name: fn(&Node) -> Option<String> = match rule {
        Rule::Unique(name) => *name,
        Rule::Merge | Rule::Replace => |node| node.as_scalar().map(|s| s.text.clone()),
    };
    let mut seen = HashMap::new();
    let mut all: Vec<Node> = Vec::new();
    for node in earlier.into_iter().chain(later) {
        match name(&node).map(|name| (seen.get(&name).copied(), name)) {
            Some((Some(place), _)) => all[place] = node,
            Some((None, name)) => {
                seen.insert(name, all.len());
                all.push(node);
            }
            None => all.push(node),
        }
    }
    Node::new(Value::List(all), at)
}

/// Removes the values that are marked `!reset`.
pub(super) fn prune(node: &mut Node) {
    match &mut node.value {
        Value::Map(map) => {
            map.retain(|_, entry| entry.node.directive != Some(Directive::Reset));
            map.values_mut().for_each(|entry| prune(&mut entry.node));
        }
        Value::List(list) => {
            list.retain(|item| item.directive != Some(Directive::Reset));
            list.iter_mut().for_each(prune);
        }
        Value::Scalar(_) => {}
    }
    node.directive = None;
}
