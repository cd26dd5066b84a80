//! The same file makes the same generations as it did: another one would replace every replica.

use std::collections::BTreeMap;

use sameport::{
    plan::versions::Versions,
    spec::{Project, Service, ServiceName},
};

use super::fixtures::{generation as label, project, state};

/// What the file has, with the images that its tags meant then.
fn with_images(project: &Project, state: &str) -> BTreeMap<String, Service> {
    let versions = state_versions(state);
    let of = |(name, service): (&ServiceName, &Service)| {
        let (name, mut service) = (name.to_string(), service.clone());
        let then: &Service = &versions[&name];
        service.container.image_id.clone_from(&then.container.image_id);
        if let (Some(canary), Some(then)) = (&mut service.canary, &then.canary) {
            canary.image_id.clone_from(&then.image_id);
        }
        (name, service)
    };
    project.services.iter().map(of).collect()
}

/// The last version of each service that a state remembers.
fn state_versions(name: &str) -> BTreeMap<String, Service> {
    let last = |versions: &Versions| *versions.revisions.last().unwrap().service.clone();
    state(name).versions.iter().map(|(name, versions)| (name.to_string(), last(versions))).collect()
}

#[test]
fn services_of_a_rich_file_have_the_generations_that_they_had() {
    let file = with_images(&project("rich.yaml", &[]), "rich");
    let remembered = state_versions("rich");
    for (service, container) in [
        ("web", "rich-web-1"),
        ("db", "rich-db-1"),
        ("exporter", "rich-exporter-1"),
        ("migrate", "rich-migrate-1"),
        ("gossip", "rich-gossip"),
    ] {
        assert_eq!(file[service].generation(), label(container), "{service}, of the file");
        assert_eq!(remembered[service].generation(), label(container), "{service}, of the state");
        assert_eq!(file[service], remembered[service], "{service}");
    }
}

#[test]
fn pods_have_the_generations_that_they_had() {
    for (file, pod, container) in [
        ("rich.yaml", "web", "rich-web-sandbox"),
        ("rich.yaml", "db", "rich-db-sandbox"),
        ("upgrade.yaml", "web", "upgrade/web-sandbox"),
    ] {
        let project = project(file, &[]);
        let (_, pod) = project.pods.iter().find(|(name, _)| name.to_string() == pod).unwrap();
        assert_eq!(pod.generation(), label(container), "{container}");
    }
}

#[test]
fn versions_in_the_making_have_the_generations_that_they_had() {
    let underway = state_versions("rollout-underway");
    assert_eq!(underway["web"].generation(), label("surge"));
    let interrupted = state("job-interrupted");
    let second = &interrupted.versions[&"web".parse().unwrap()].revisions[1].service;
    assert_eq!(second.generation(), label("job"));
}

#[test]
fn each_file_is_still_the_version_that_was_applied_last() {
    for (file, variables, state) in [
        ("upgrade.yaml", &[][..], "upgrade"),
        ("traffic.yaml", &[], "stopped"),
        ("rollout.yaml", &[("RELEASE", "2")], "rollout-done"),
        ("rollout.yaml", &[("RELEASE", "3"), ("MONITOR", "5s")], "rollout-underway"),
        ("jobs.yaml", &[], "job-done"),
    ] {
        assert_eq!(with_images(&project(file, variables), state), state_versions(state), "{file}");
    }
}
