//! What others make on the same engine.

use std::thread;

use super::{
    super::{
        cost::Cost::{Nothing, Outage},
        scene::Scene,
        support::{
            docker,
            wait::{self, check},
        },
    },
    Fault,
    Replaces::Nobody,
    fault,
};

pub const FAULTS: &[Fault] = &[
    fault("a container of somebody else with the labels of a replica", Nothing, Nobody, 45, |scene| {
        let (_, container) = scene.some_replica();
        let found = scene.project.docker.inspect(&container)["Config"].take();
        let labels = found["Labels"].as_object().unwrap().iter();
        let labels: Vec<_> =
            labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap())).collect();
        let labels: Vec<_> = labels.iter().flat_map(|label| ["--label", label]).collect();
        let (name, image) = (format!("{}-foreign", scene.project.name), scene.project.image("NGINX"));
        let run = [&["run", "-d", "--name", &name], &labels[..], &[&image, "sleep", "1000"]].concat();
        let id = scene.project.docker.run(&run);
        is_told(scene, &name);
        let state = scene.project.docker.inspect(&id)["State"].take();
        assert_eq!(state["Running"], true, "{state}");
        scene.project.docker.run(&["rm", "-f", &id]);
    }),
    fault("the sandbox in another network for up to 1 s", Nothing, Nobody, 45, |scene| visits(scene, "_z")),
    // The engine publishes ports through the network whose name comes first, and moves them at once.
    fault("the sandbox in another network that takes its published ports", Outage(10), Nobody, 45, |scene| {
        visits(scene, "-a");
    }),
];

/// Waits until sameport says that it is not its own.
fn is_told(scene: &Scene, name: &str) {
    wait::until("it is told", || {
        let status = scene.project.status();
        check(status.foreign_resources.iter().any(|foreign| foreign.name == name), status.foreign_resources)
    });
}

/// Connects the sandbox to a network whose name ends like that, and takes it off again.
fn visits(scene: &mut Scene, end: &str) {
    let (name, sandbox) = (format!("{}{end}", scene.project.name), scene.container("web-sandbox"));
    // So that it goes with the project.
    let label = docker::of_project(&scene.project.name).replace("label=", "");
    scene.project.docker.run(&["network", "create", "--label", &label, &name]);
    scene.project.docker.run(&["network", "connect", &name, &sandbox]);
    thread::sleep(scene.up_to(1000));
    scene.project.docker.run(&["network", "disconnect", &name, &sandbox]);
    scene.project.docker.run(&["network", "rm", &name]);
}
