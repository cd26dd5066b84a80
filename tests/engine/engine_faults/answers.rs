//! Answers of the engine come late, in part, wrong, or not at all.

use std::{path::Path, thread, time::Duration};

use sameport::engine::docker::Surroundings;

use super::{
    super::support::{
        project::{Project, web},
        relay::{Fault, Relay},
    },
    Trial, Way,
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
    let mut trial = Trial::begin(&project, Way::on_host(&project));
    relay.set(Fault::Late(Duration::from_secs(3)));
    trial.kill_replica();
    trial.tells("engine_unreachable");
    trial.shows_silence();
    trial.others_live();
    relay.set(Fault::None);
    trial.tells("engine_reachable");
    trial.ends_well();
}

fn answers_fail(fault: Fault) {
    let (relay, project) = up();
    let mut trial = Trial::begin(&project, Way::on_host(&project));
    relay.set(fault);
    relay.break_off();
    trial.tells("engine_unreachable");
    trial.shows_silence();
    trial.kill_replica();
    // Long enough for some looks in vain.
    thread::sleep(Duration::from_secs(2));
    trial.others_live();
    relay.set(Fault::None);
    trial.tells("engine_reachable");
    trial.ends_well();
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
    let mut trial = Trial::begin(&project, Way::on_host(&project));
    relay.set(Fault::EmptyList);
    trial.kill_replica();
    trial.tells("containers_unlisted");
    trial.others_live();
    relay.set(Fault::None);
    trial.ends_well();
}

#[test]
fn lists_of_containers_lack_one_that_runs() {
    let (relay, project) = up();
    let mut trial = Trial::begin(&project, Way::on_host(&project));
    let lacking = project.docker.inspect(&format!("{}-web-1", project.name))["Id"].take();
    relay.set(Fault::ListWithout(lacking.as_str().unwrap().to_owned()));
    trial.kill_replica();
    trial.tells("containers_unlisted");
    trial.others_live();
    relay.set(Fault::None);
    trial.ends_well();
}

#[test]
fn lists_of_containers_lack_the_one_that_dies() {
    let (relay, project) = up();
    let mut trial = Trial::begin(&project, Way::on_host(&project));
    relay.set(Fault::ListWithout(trial.victim.0.clone()));
    trial.kill_replica();
    trial.others_live();
    trial.ends_well();
}
