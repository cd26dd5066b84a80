//! What this release pins, held against a description: another layout needs another version.

use std::{collections::BTreeMap, fs, path::Path};

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

/// What a description has of each pin, whichever number it has.
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

/// What is pinned in a folder, as `tests/fixtures/make` describes it.
fn pinned(folder: &Path) -> Value {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let describe = |path: &Path, name: &str| {
        if let Ok(target) = fs::read_link(path) {
            return json!({ "kind": "symlink", "to": target });
        }
        if name.starts_with("link_") {
            return json!({ "kind": "link" });
        }
        let info = MapInfo::from_pin(path).unwrap();
        json!({
            "kind": "map", "type": info.map_type().unwrap() as u32, "key": info.key_size(), "value": info.value_size(),
            "entries": info.max_entries(), "flags": info.map_flags(),
        })
    };
    let pins = entries.map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        (name.clone(), describe(&entry.path(), &name))
    });
    Value::Object(pins.collect())
}

#[test]
fn this_release_pins_what_its_layout_says() {
    let project = Project::new(PORTS);
    project.run(&["up", "-d", "--wait"]);
    let folder = capability::mounted("bpf").unwrap().join("sameport").join(&project.name);
    let pinned = described(pinned(&folder));
    let version = pinned["layout"]["to"].as_str().unwrap().to_owned();
    let path = fixtures::folder().with_file_name(format!("layout-{version}.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let wanted: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(
        pinned,
        wanted,
        "a map or a link has changed: give the layout another version in src/kernel/layout.rs, say there how layout \
         {version} is taken over, and describe the new one beside {}",
        path.display()
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
