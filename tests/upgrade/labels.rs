//! Containers that older releases made are known for what they are, by their labels and names.

use std::{collections::BTreeMap, fs};

use sameport::{
    engine::{Labels, Role},
    spec::{ServiceName, Slot},
};
use serde_json::Value;

use super::fixtures::{PROJECT, folder, json, project, state};

fn labels(container: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(container["Config"]["Labels"].clone()).unwrap()
}

fn read(container: &str) -> Labels {
    Labels::from_map(&labels(&json(&format!("containers/{container}.json")))).unwrap()
}

#[test]
fn all_of_them_are_ours() {
    let mut count = 0;
    for place in ["", "upgrade"] {
        for entry in fs::read_dir(folder().join("containers").join(place)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            if path.is_dir() || ["networks", "volumes"].contains(&name) {
                continue;
            }
            let container: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            let labels =
                Labels::from_map(&labels(&container)).unwrap_or_else(|| panic!("{}", path.display()));
            assert_eq!(labels.project.to_string(), PROJECT);
            count += 1;
        }
    }
    assert_eq!(count, 13);
}

#[test]
fn networks_and_volumes_carry_the_projects_label() {
    for file in ["networks", "volumes", "upgrade/networks", "upgrade/volumes"] {
        for thing in json(&format!("containers/{file}.json")).as_array().unwrap() {
            assert_eq!(thing["Labels"][Labels::PROJECT], PROJECT, "{thing}");
        }
    }
}

#[test]
fn each_has_its_role() {
    let replica = |service: &str, slot| {
        let service: ServiceName = service.parse().unwrap();
        Role::Replica { service, slot: Slot::new(slot).unwrap() }
    };
    for (container, pod, role) in [
        ("rich-web-sandbox", "web", Role::Sandbox),
        ("rich-web-1", "web", replica("web", 1)),
        ("rich-db-1", "db", replica("db", 1)),
        ("rich-exporter-1", "db", replica("exporter", 1)),
        ("rich-gossip", "gossip", replica("gossip", 1)),
        ("surge", "web", replica("web", 1)),
        ("job", "web", Role::PreDeploy { service: "web".parse().unwrap() }),
    ] {
        let labels = read(container);
        assert_eq!(labels.role, role, "{container}");
        assert_eq!(labels.pod.to_string(), pod, "{container}");
    }
}

#[test]
fn they_have_the_names_that_this_release_gives() {
    let (upgrade, rich) = (project("upgrade.yaml", &[]), project("rich.yaml", &[]));
    let slot = Slot::new(1).unwrap();
    let name =
        |container: &str| json(&format!("containers/{container}.json"))["Name"].as_str().unwrap().to_owned();
    let service = |name: &str| &rich.services[&name.parse::<ServiceName>().unwrap()];
    for (container, wanted) in [
        ("upgrade/web-1", upgrade.replica_name(service("web"), slot)),
        ("surge", upgrade.replacement_name(service("web"), slot)),
        ("rich-gossip", rich.replica_name(service("gossip"), slot)),
    ] {
        assert_eq!(name(container), wanted, "{container}");
    }
}

#[test]
fn hooks_are_those_of_the_version() {
    let container = json("containers/rich-web-1.json");
    let hooks = Labels::hooks(&labels(&container)[Labels::HOOKS]);
    let state = state("rich");
    let service = &state.versions[&"web".parse().unwrap()].revisions[0].service;
    assert_eq!((hooks.post_start.len(), hooks.pre_stop.len()), (1, 1));
    // A label has them as they are for this replica.
    assert_eq!(hooks.pre_stop, service.hooks.pre_stop);
    assert_eq!(hooks.post_start[0].command, service.hooks.post_start[0].command);
}
