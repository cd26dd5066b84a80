//! Answers of the engine come late, in part, wrong, or not at all.

use std::{path::Path, thread, time::Duration};

use sameport::engine::docker::Surroundings;

use super::{
    super::support::{
        project::{Project, web},
        relay::{Fault, Relay},
    },
    FeatureProbe, Way,
};

/// A relay to this host's engine, and three replicas whose supervisor knows only that.
fn up() -> (Relay, Project) {
    let endpoint = Surroundings::from_env().endpoint().unwrap();
    let relay = Relay::to(Path::new(endpoint.host.strip_prefix("unix://").unwrap()));
    let project = Project::new(&web(3)).by(&relay.socket());
    project.run(&["up", "-d", "--wait"]);
    (relay, project)
}

#[test]
fn answers_are_late_by_seconds() {
    let (relay, project) = up();
    let mut feature_probe = FeatureProbe::begin(&project, Way::on_host(&project));
    relay.set(Fault::Late(Duration::from_secs(3)));
    feature_probe.kill_replica();
    feature_probe.tells("engine_unreachable");
    feature_probe.shows_silence();
    feature_probe.others_live();
    relay.set(Fault::None);
    feature_probe.tells("engine_reachable");
    feature_probe.ends_well();
}

fn answers_fail(fault: Fault) {
    let (relay, project) = up();
    let mut feature_probe = FeatureProbe::begin(&project, Way::on_host(&project));
    relay.set(fault);
    relay.break_off();
    feature_probe.tells("engine_unreachable");
    feature_probe.shows_silence();
    feature_probe.kill_replica();
    // Long enough for some looks in vain.
    thread::sleep(Duration::from_secs(2));
    feature_probe.others_live();
    relay.set(Fault::None);
    feature_probe.tells("engine_reachable");
    feature_probe.ends_well();
}

#[test]
fn answers_are_broken_off_in_the_middle() {
    answers_fail(Fault::BrokenOff);
}

#[test]
fn answers_are_errors_of_the_server() {
    answers_fail(Fault::Error);
}

#[test]
fn lists_of_containers_are_empty() {
    let (relay, project) = up();
    let mut feature_probe = FeatureProbe::begin(&project, Way::on_host(&project));
    relay.set(Fault::EmptyList);
    feature_probe.kill_replica();
    feature_probe.tells("containers_unlisted");
    feature_probe.others_live();
    relay.set(Fault::None);
    feature_probe.ends_well();
}

#[test]
fn lists_of_containers_lack_one_that_runs() {
    let (relay, project) = up();
    let mut feature_probe = FeatureProbe::begin(&project, Way::on_host(&project));
    let lacking = project.docker.inspect(&format!("{}-web-1", project.name))["Id"].take();
    relay.set(Fault::ListWithout(lacking.as_str().unwrap().to_owned()));
    feature_probe.kill_replica();
    feature_probe.tells("containers_unlisted");
    feature_probe.others_live();
    relay.set(Fault::None);
    feature_probe.ends_well();
}

#[test]
fn lists_of_containers_lack_the_one_that_dies() {
    let (relay, project) = up();
    let mut feature_probe = FeatureProbe::begin(&project, Way::on_host(&project));
    relay.set(Fault::ListWithout(feature_probe.victim.0.clone()));
    feature_probe.kill_replica();
    feature_probe.others_live();
    feature_probe.ends_well();
}
