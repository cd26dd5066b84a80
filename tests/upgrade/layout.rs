//! What this release pins, held against a description: another layout needs another version.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use aya::maps::MapInfo;
use sameport::kernel::capability;
use serde_json::{Value, json};

use super::{fixtures, support::project::Project};

/// As `tests/fixtures/release-0/compose/traffic.yaml`, at any ports.
const PORTS: &str = r#"
services:
  web:
    image: ${NGINX}
    environment: { REPLICA: "{{.Slot}}", LISTEN: "" }
    ports: ["${PORT}:8080"]
    deploy: { replicas: 3 }
  dns:
    image: ${DNSMASQ}
    environment: { REPLICA: "{{.Slot}}" }
    expose: ["5353/udp", "5353"]
    deploy: { replicas: 2 }
"#;

/// What a description of layout 0 or 1 has of each pin, whichever number it has.
fn described(pins: Value) -> BTreeMap<String, Value> {
    let Value::Object(pins) = pins else { panic!("{pins}") };
    let mut pins: BTreeMap<_, _> = pins.into_iter().map(|(name, pin)| (kind_of(&name), pin)).collect();
    pins.values_mut().filter_map(Value::as_object_mut).for_each(|pin| drop(pin.remove("values")));
    pins
}

/// `sameport_flows_1_0` is one of `sameport_flows`, `link_gate_2` one of `link_gate`.
fn kind_of(name: &str) -> String {
    match ["sameport_flows", "link_gate"].into_iter().find(|kind| name.starts_with(kind)) {
        Some(kind) => kind.to_owned(),
        None => name.to_owned(),
    }
}

/// What is pinned in a folder and below it, without numbers in names; of several with one name, what each is.
fn pinned(folder: &Path, below: &str, found: &mut BTreeMap<String, BTreeSet<String>>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        let (name, path) = (entry.file_name().into_string().unwrap(), entry.path());
        let kind = ["pod_", "service_"].into_iter().find(|kind| name.starts_with(kind)).unwrap_or(&name);
        let kind = format!("{below}{kind}");
        if entry.file_type().unwrap().is_dir() {
            pinned(&path, &format!("{kind}/"), found);
            continue;
        }
        let description = match fs::read_link(&path) {
            // Of the others it differs from build to build, or from project to project.
            Ok(target) if name == "layout" => json!({ "kind": "symlink", "to": target }),
            Ok(_) => json!({ "kind": "symlink" }),
            Err(_) if name.starts_with("link_") => json!({ "kind": "link" }),
            Err(_) => {
                let info = MapInfo::from_pin(&path).unwrap();
                json!({
                    "kind": "map", "type": info.map_type().unwrap() as u32, "key": info.key_size(),
                    "value": info.value_size(), "entries": info.max_entries(), "flags": info.map_flags(),
                })
            }
        };
        found.entry(kind).or_default().insert(description.to_string());
    }
}

#[test]
fn this_release_pins_what_its_layout_says() {
    let project = Project::new(PORTS);
    project.run(&["up", "-d", "--wait"]);
    let root = capability::mounted("bpf").unwrap().join("sameport");
    let folder = root.join(&project.name);
    let version = fs::read_link(folder.join("layout")).unwrap().to_str().unwrap().to_owned();
    let mut found = BTreeMap::new();
    pinned(&folder, "project/", &mut found);
    pinned(&root.join(format!("_host_{version}")), "host/", &mut found);
    let parse = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let mut found: BTreeMap<String, Vec<Value>> =
        found.into_iter().map(|(name, all)| (name, all.into_iter().map(parse).collect())).collect();
    // Some kernels take it.
    found.remove("host/link_sameport_compat");
    let path = fixtures::folder().with_file_name(format!("layout-{version}.json"));
    let text = fs::read_to_string(&path).unwrap_or_default();
    let wanted: BTreeMap<String, Vec<Value>> = serde_json::from_str(&text).unwrap_or_default();
    assert!(
        found == wanted,
        "a map or a link has changed: give the layout another version in src/kernel/layout.rs, say there how layout \
         {version} is taken over, and describe the new one beside {}:\n{}",
        path.display(),
        serde_json::to_string_pretty(&found).unwrap()
    );
}

#[test]
fn layout_0_is_layout_1_without_a_mark() {
    let path = fixtures::folder().with_file_name("layout-1.json");
    let mut first: BTreeMap<String, Value> =
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    first.remove("layout").unwrap();
    assert_eq!(described(fixtures::json("pins.json")), first);
}
