//! What holds the replicas' network dies, or is taken off it.

use std::thread;

use nix::sys::signal::Signal;

use super::{
    super::{
        cost::Cost::{Nothing, Outage},
        scene::{Scene, signal},
    },
    Fault,
    Replaces::{Nobody, Victims},
    fault,
};

pub const FAULTS: &[Fault] = &[
    fault("SIGKILL to the sandbox", Outage(15), Victims, 40, |scene| {
        scene.pod_changes();
        signal(scene.project.docker.pid(&scene.container("web-sandbox")), Signal::SIGKILL);
    }),
    fault("`docker stop` of the sandbox", Outage(15), Victims, 40, |scene| docker(scene, &["stop"])),
    fault("`docker restart` of the sandbox", Outage(15), Victims, 40, |scene| docker(scene, &["restart"])),
    fault("`docker rm -f` of the sandbox", Outage(15), Victims, 40, |scene| docker(scene, &["rm", "-f"])),
    fault("SIGKILL to sandbox and supervisor, then `up -d`", Outage(20), Victims, 40, |scene| {
        scene.pod_changes();
        signal(scene.project.docker.pid(&scene.container("web-sandbox")), Signal::SIGKILL);
        scene.project.kill_supervisor();
        scene.up();
    }),
    fault("SIGKILL to the sandbox of the other service", Nothing, Victims, 40, |scene| {
        scene.victims = ["store-sandbox", "store-1", "store-2"].map(|name| scene.container(name)).to_vec();
        signal(scene.project.docker.pid(&scene.container("store-sandbox")), Signal::SIGKILL);
    }),
    fault("`docker network disconnect`", Outage(10), Nobody, 30, |scene| network(scene, "disconnect")),
    fault("`docker network disconnect` and `connect`", Outage(10), Nobody, 30, |scene| {
        network(scene, "disconnect");
        thread::sleep(scene.up_to(500));
        // The supervisor may have been faster.
        let (network, sandbox) = (network_name(scene), scene.container("web-sandbox"));
        let _ = scene.project.docker.try_run(&["network", "connect", &network, &sandbox]);
    }),
    fault("`docker rename` of the sandbox", Nothing, Nobody, 20, |scene| {
        let sandbox = scene.container("web-sandbox");
        scene.project.docker.run(&["rename", &sandbox, &format!("{sandbox}-x")]);
    }),
];

fn docker(scene: &mut Scene, command: &[&str]) {
    scene.pod_changes();
    scene.project.docker.run(&[command, &[&scene.container("web-sandbox")]].concat());
}

fn network_name(scene: &Scene) -> String {
    format!("{}_default", scene.project.name)
}

fn network(scene: &Scene, command: &str) {
    scene.project.docker.run(&["network", command, &network_name(scene), &scene.container("web-sandbox")]);
}
