//! Selects the services to run: those without profiles, and those with an enabled profile.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    fields::texts,
    node::{Node, Value},
    report::Report,
};

/// Removes services that no enabled profile selects. Returns their names and profiles.
pub(super) fn turn_off(
    document: &mut Node,
    on: &BTreeSet<String>,
    report: &Report,
) -> BTreeMap<String, Vec<String>> {
    let mut off = BTreeMap::new();
    let Value::Map(top) = &mut document.value else { return off };
    let Some(Value::Map(services)) = top.get_mut("services").map(|entry| &mut entry.node.value) else {
        return off;
    };
    services.retain(|name, entry| {
        let Some(node) = entry.node.get("profiles") else { return true };
        let profiles: Vec<String> =
            texts(node, "profiles", report).into_iter().map(|(text, _)| text).collect();
        let runs =
            profiles.is_empty() || on.contains("*") || profiles.iter().any(|profile| on.contains(profile));
        if !runs {
            off.insert(name.clone(), profiles);
        }
        runs
    });
    off
}
