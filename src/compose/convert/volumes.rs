//! `volumes` and `tmpfs` of a service, and the top-level `volumes`.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{
    fields::{Fields, loose, nearest, wrong_type},
    keys,
    node::{Map, Node, Value},
    report::{Problem, Report},
    source::At,
    units,
};
use crate::spec::{Mount, MountSource, Volume};

/// The parts of `[SOURCE:]TARGET[:MODE]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::compose) struct Short<'a> {
    pub source: Option<&'a str>,
    pub target: &'a str,
    pub mode: Option<&'a str>,
}

/// Splits an entry in short form; `None` if it is not valid.
pub(in crate::compose) fn split(text: &str) -> Option<Short<'_>> {
    let parts: Vec<&str> = text.split(':').collect();
    let short = match parts[..] {
        [target] => Short { source: None, target, mode: None },
        // Only a target must be absolute, so `/data:ro` is a target with a mode.
        [target, mode] if target.starts_with('/') && !mode.starts_with('/') && is_mode(mode) => {
            Short { source: None, target, mode: Some(mode) }
        }
        [source, target] => Short { source: Some(source), target, mode: None },
        [source, target, mode] => Short { source: Some(source), target, mode: Some(mode) },
        _ => return None,
    };
    (short.source != Some("") && !short.target.is_empty()).then_some(short)
}

/// Whether a source is a host path rather than the name of a volume.
pub(in crate::compose) fn is_path(source: &str) -> bool {
    source.starts_with(['/', '.', '~'])
}

/// The path in the container of an entry of `volumes`, `tmpfs` or `devices`, by which entries of several files are
/// matched.
pub(in crate::compose) fn target_of(node: &Node) -> Option<String> {
    let target = match &node.value {
        Value::Scalar(scalar) => split(&scalar.text)?.target.to_owned(),
        _ => loose(node.get("target")?)?.to_owned(),
    };
    Some(target.trim_end_matches('/').to_owned())
}

fn is_mode(mode: &str) -> bool {
    mode.split(',').all(|option| MODES.contains(&option))
}

const MODES: [&str; 15] = [
    "ro",
    "rw",
    "z",
    "Z",
    "nocopy",
    "cached",
    "delegated",
    "consistent",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "private",
    "rprivate",
    "volume-nocopy",
];
const PROPAGATIONS: [(&str, &str); 6] = [
    ("private", "private"),
    ("rprivate", "rprivate"),
    ("rshared", "rshared"),
    ("rslave", "rslave"),
    ("shared", "shared"),
    ("slave", "slave"),
];

/// The top-level volumes, and the keys of those in use.
pub(super) struct Known<'a> {
    pub volumes: &'a BTreeMap<String, Volume>,
    pub used: &'a mut BTreeSet<String>,
}

/// All mounts of a service.
pub(super) fn mounts(service: &Fields<'_>, known: &mut Known<'_>) -> Vec<Mount> {
    let mut mounts = Vec::new();
    let mut taken: BTreeMap<String, At> = BTreeMap::new();
    let mut add = |mount: Option<Mount>, at: At, report: &Report| {
        let Some(mount) = mount else { return };
        if !mount.target.starts_with('/') {
            let message = format!("`{}` cannot be the target of a volume", mount.target);
            report.push(Problem::error(at, message).help("write an absolute path of the container"));
            return;
        }
        let target = mount.target.trim_end_matches('/').to_owned();
        if let Some(first) = taken.insert(target, at) {
            let message = format!("two volumes are mounted at `{}`", mount.target);
            report.push(
                Problem::error(at, message)
                    .related(first, "the first one")
                    .help("mount one of them elsewhere"),
            );
        }
        mounts.push(mount);
    };
    match service.get("volumes").map(|node| (node, &node.value)) {
        Some((_, Value::List(list))) => {
            for item in list {
                let mount = match &item.value {
                    Value::Scalar(scalar) => short(&scalar.text, item.at, known, service.report),
                    _ => long(item, known, service.report),
                };
                add(mount, item.at, service.report);
            }
        }
        Some((node, _)) => {
            let help = "write one `- SOURCE:TARGET` a line";
            service.report.push(wrong_type(node, "volumes", "a list").help(help));
        }
        None => {}
    }
    for (text, at) in service.list("tmpfs") {
        add(tmpfs(&text, at, service.report), at, service.report);
    }
    mounts
}

fn short(text: &str, at: At, known: &mut Known<'_>, report: &Report) -> Option<Mount> {
    let Some(Short { source, target, mode }) = split(text) else {
        report.push(
            Problem::error(at, format!("`{text}` is not a volume"))
                .help("write `NAME:/path`, `./folder:/path`, each with `:ro` if you like, or the long form"),
        );
        return None;
    };
    let options: Vec<&str> = mode.into_iter().flat_map(|mode| mode.split(',')).collect();
    if let Some(bad) = options.iter().find(|option| !MODES.contains(option)) {
        let help = match nearest(bad, MODES.into_iter()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("write some of: {}", MODES.join(", ")),
        };
        report.push(Problem::error(at, format!("`{bad}` is not an option of a volume")).help(help));
        return None;
    }
    let source = match source {
        None => MountSource::Anonymous,
        Some(path) if is_path(path) => MountSource::Bind {
            path: path.to_owned(),
            create: true,
            propagation: PROPAGATIONS.iter().find(|(p, _)| options.contains(p)).map(|&(_, p)| p.to_owned()),
            selinux: options.iter().find(|o| o.eq_ignore_ascii_case("z")).map(|&o| o.to_owned()),
        },
        Some(key) => MountSource::Volume {
            name: named(key, at, known, report)?,
            no_copy: options.iter().any(|o| o.ends_with("nocopy")),
            subpath: None,
        },
    };
    Some(Mount { target: target.to_owned(), source, read_only: options.contains(&"ro") })
}

/// The name of a volume on the engine.
fn named(key: &str, at: At, known: &mut Known<'_>, report: &Report) -> Option<String> {
    let Some(volume) = known.volumes.get(key) else {
        let help = match report.nearest(key, known.volumes.keys().map(String::as_str)) {
            Some(name) => format!("did you mean `{name}`? A path starts with `./` or `/`"),
            None => format!("add `{key}:` under the top-level `volumes:`, or write `./{key}` for a folder"),
        };
        report.push(Problem::error(at, format!("volume `{key}` is not defined")).help(help));
        return None;
    };
    known.used.insert(key.to_owned());
    Some(volume.name.clone())
}

#[derive(Clone, Copy)]
enum Type {
    Bind,
    Volume,
    Tmpfs,
}

fn long(item: &Node, known: &mut Known<'_>, report: &Report) -> Option<Mount> {
    let fields = Fields::of(item, "an entry of `volumes`", report)?;
    keys::check(item, "an entry of `volumes`", keys::MOUNT, report);
    let Some(kind) = fields.get("type") else {
        let problem = Problem::error(item.at, "this volume has no `type`");
        report.push(problem.help("add `type: bind`, `type: volume` or `type: tmpfs`"));
        return None;
    };
    if let Some(other @ ("npipe" | "cluster" | "image")) = loose(kind) {
        let problem = Problem::error(kind.at, format!("volumes of type `{other}` are not supported"));
        report.push(problem.help("use `bind`, `volume` or `tmpfs`"));
        return None;
    }
    let kind =
        fields.choice("type", &[("bind", Type::Bind), ("volume", Type::Volume), ("tmpfs", Type::Tmpfs)])?;
    for (key, of) in [("bind", "`bind`"), ("volume", "`volume`"), ("tmpfs", "`tmpfs`")] {
        if let Some(node) = fields.get(key) {
            let table = match key {
                "bind" => keys::MOUNT_BIND,
                "volume" => keys::MOUNT_VOLUME,
                _ => keys::MOUNT_TMPFS,
            };
            Fields::of(node, key, report)?;
            keys::check(node, of, table, report);
        }
    }
    let Some(target) = fields.get("target").and_then(|_| fields.text("target")) else {
        report.push(Problem::error(item.at, "this volume has no `target`").help("add `target: /path`"));
        return None;
    };
    let source = match kind {
        Type::Bind => bind(&fields)?,
        Type::Volume => volume(&fields, known)?,
        Type::Tmpfs => tmpfs_of(&fields),
    };
    Some(Mount { target, source, read_only: fields.boolean("read_only").unwrap_or(false) })
}

fn inner<'a>(fields: &Fields<'a>, key: &str, empty: &'a Node) -> Fields<'a> {
    Fields { node: fields.get(key).unwrap_or(empty), report: fields.report }
}

fn bind(fields: &Fields<'_>) -> Option<MountSource> {
    let Some(path) = fields.get("source").and_then(|_| fields.text("source")) else {
        let problem = Problem::error(fields.node.at, "this bind mount has no `source`");
        fields.report.push(problem.help("add `source: ./folder`"));
        return None;
    };
    let empty = Node::map(Map::new(), fields.node.at);
    let options = inner(fields, "bind", &empty);
    Some(MountSource::Bind {
        path,
        create: options.boolean("create_host_path").unwrap_or(false),
        propagation: options.choice("propagation", &PROPAGATIONS).map(str::to_owned),
        selinux: options.choice("selinux", &[("z", "z"), ("Z", "Z")]).map(str::to_owned),
    })
}

fn volume(fields: &Fields<'_>, known: &mut Known<'_>) -> Option<MountSource> {
    let Some(source) = fields.get("source") else { return Some(MountSource::Anonymous) };
    let key = fields.text("source")?;
    let empty = Node::map(Map::new(), fields.node.at);
    let options = inner(fields, "volume", &empty);
    Some(MountSource::Volume {
        name: named(&key, source.at, known, fields.report)?,
        no_copy: options.boolean("nocopy").unwrap_or(false),
        subpath: options.text("subpath"),
    })
}

fn tmpfs_of(fields: &Fields<'_>) -> MountSource {
    let empty = Node::map(Map::new(), fields.node.at);
    let options = inner(fields, "tmpfs", &empty);
    MountSource::Tmpfs {
        size: options.bytes("size").filter(|&size| size > 0),
        mode: options.parsed("mode", "permission bits", "write them in octal, such as `0755`", units::mode),
        options: Vec::new(),
    }
}

/// Parses an entry of `tmpfs`: `PATH[:OPTION,…]`.
fn tmpfs(text: &str, at: At, report: &Report) -> Option<Mount> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let (mut size, mut mode, mut other) = (None, None, Vec::new());
    for option in options.split(',').filter(|o| !o.is_empty()) {
        let known = match option.split_once('=') {
            Some(("size", value)) => units::bytes(value).map(|bytes| size = Some(bytes)),
            Some(("mode", value)) => units::mode(value).map(|bits| mode = Some(bits)),
            _ => {
                other.push(option.to_owned());
                Some(())
            }
        };
        if known.is_none() {
            let problem = Problem::error(at, format!("`{option}` is not an option of a tmpfs"));
            report.push(problem.help("write `size=64m`, `mode=1777`"));
            return None;
        }
    }
    let read_only = other.iter().any(|o| o == "ro");
    other.retain(|o| o != "ro" && o != "rw");
    Some(Mount {
        target: target.to_owned(),
        source: MountSource::Tmpfs { size, mode, options: other },
        read_only,
    })
}

/// The top-level `volumes`.
pub(super) fn top(document: &Fields<'_>) -> BTreeMap<String, Volume> {
    let report = document.report;
    let Some(all) = document.get("volumes").and_then(|node| Fields::of(node, "volumes", report)) else {
        return BTreeMap::new();
    };
    let mut volumes = BTreeMap::new();
    for (key, entry) in all.node.as_map().into_iter().flatten() {
        let Some(fields) = Fields::of(&entry.node, key, report) else { continue };
        keys::check(&entry.node, "a volume", keys::VOLUME, report);
        let volume = Volume {
            name: fields.text("name").unwrap_or_else(|| key.clone()),
            external: fields.boolean("external").unwrap_or(false),
            driver: fields.text("driver"),
            driver_opts: fields.full_table("driver_opts"),
            labels: fields.full_table("labels"),
        };
        if volume.external {
            super::networks::check_external(&fields, &["driver", "driver_opts", "labels"]);
        }
        volumes.insert(key.clone(), volume);
    }
    volumes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_entries_are_split() {
        for (text, expected) in [
            ("/data", Some((None, "/data", None))),
            ("data:/data", Some((Some("data"), "/data", None))),
            ("./a:/b:ro", Some((Some("./a"), "/b", Some("ro")))),
            ("/a:/b", Some((Some("/a"), "/b", None))),
            ("/data:ro", Some((None, "/data", Some("ro")))),
            ("data-{{.Slot}}:/data", Some((Some("data-{{.Slot}}"), "/data", None))),
            (":/b", None),
            ("", None),
            ("a:b:c:d", None),
        ] {
            let short = split(text).map(|s| (s.source, s.target, s.mode));
            assert_eq!(short, expected, "{text}");
        }
    }
}
