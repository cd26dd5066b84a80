//! Somebody takes a pod's connections away by hand, and it gets them back.

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use super::support::{
    project::Project,
    wait::{self, check},
};

#[test]
fn a_pod_that_is_taken_off_its_network_is_connected_again_and_no_replica_ends() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    project.serves(2);
    let (sandbox, network) = (format!("{}-web-sandbox", project.name), format!("{}_default", project.name));
    let before = project.processes();
    project.docker.run(&["network", "disconnect", &network, &sandbox]);
    wait::until("the pod is connected again", || {
        let networks = networks(&project, &sandbox);
        let aliases = networks[&network]["Aliases"].clone();
        check(aliases.as_array().is_some_and(|aliases| aliases.contains(&"web".into())), networks)
    });
    project.serves(2);
    assert_eq!(project.processes(), before, "nothing was replaced for it");
    // Whoever connects it by hand forgets its names, more than once.
    for _ in 0..3 {
        let supervisor = project.supervisor().unwrap();
        // It is not to be faster.
        kill(supervisor, Signal::SIGSTOP).unwrap();
        project.docker.run(&["network", "disconnect", &network, &sandbox]);
        project.docker.run(&["network", "connect", &network, &sandbox]);
        kill(supervisor, Signal::SIGCONT).unwrap();
        wait::until("the pod has its names again", || {
            let networks = networks(&project, &sandbox);
            let aliases = networks[&network]["Aliases"].clone();
            check(aliases.as_array().is_some_and(|aliases| aliases.contains(&"web".into())), networks)
        });
        project.serves(2);
    }
    assert_eq!(project.processes(), before, "nothing was replaced for it");
    let status = project.status();
    assert!(status.converged, "{status:#?}");
}

#[test]
fn a_network_that_somebody_adds_to_a_pod_stays() {
    let project = Project::web(1);
    project.run(&["up", "-d", "--wait"]);
    let sandbox = format!("{}-web-sandbox", project.name);
    let own = networks(&project, &sandbox);
    project.docker.run(&["network", "connect", "bridge", &sandbox]);
    wait::until("the supervisor has looked", || {
        let status = project.status();
        check(status.converged, status)
    });
    project.serves(1);
    let now = networks(&project, &sandbox);
    assert!(now["bridge"].is_object() && own.as_object().unwrap().len() == 1, "{now}");
}

#[test]
fn a_container_that_somebody_renames_gets_its_name_back() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    let before = project.processes();
    for name in ["web-sandbox", "web-2"] {
        let name = format!("{}-{name}", project.name);
        let id = project.docker.inspect(&name)["Id"].clone();
        project.docker.run(&["rename", &name, &format!("{name}-renamed")]);
        wait::until("it has its name again", || {
            let found = project.docker.find(&name).map(|found| found["Id"].clone());
            check(found.as_ref() == Some(&id), found)
        });
    }
    project.serves(2);
    assert_eq!(project.processes(), before, "nothing was replaced for it");
}

fn networks(project: &Project, container: &str) -> Value {
    project.docker.inspect(container)["NetworkSettings"]["Networks"].take()
}
