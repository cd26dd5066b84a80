//! What users do, at once and one after the other.

use std::thread;

use nix::sys::signal::Signal;

use super::{
    super::{
        cost::Cost::{InHand, Nothing, Outage},
        scene::{Scene, signal},
        support::docker,
    },
    Fault,
    Replaces::{Nobody, SomeVictims, Victims},
    fault,
};

pub const FAULTS: &[Fault] = &[
    fault("`up -d` again", Nothing, Nobody, 20, Scene::up_again),
    fault("`scale` to another number", Nothing, Nobody, 40, |scene| {
        scene.replicas = another(scene, scene.replicas);
        scale(scene, scene.replicas);
    }),
    fault("`scale` up and down again", Nothing, Nobody, 60, |scene| {
        scale(scene, scene.replicas + 2);
        scale(scene, scene.replicas);
    }),
    fault("two `scale` at once", Nothing, Nobody, 60, |scene| {
        let (one, other) = (another(scene, scene.replicas), another(scene, scene.replicas));
        let commands = [one, other].map(|count| scene.project.start(&["scale", &format!("web={count}")]));
        // The last one to be heard counts, whichever that is; each of them may be told that it was not its own.
        commands.into_iter().for_each(|mut command| assert!(command.exit_code().is_some()));
        let found = scene.project.replicas("web").len();
        assert!([one, other].contains(&u32::try_from(found).unwrap()), "{found} after {one} and {other}");
        scene.replicas = u32::try_from(found).unwrap();
    }),
    fault("`restart` of a service", Nothing, Victims, 60, |scene| {
        scene.all_change();
        scene.project.run(&["restart", "web"]);
    }),
    fault("`restart` of a replica", Nothing, Victims, 30, |scene| {
        let (slot, container) = scene.some_replica();
        scene.victims.push(container);
        scene.project.run(&["restart", &format!("web-{slot}")]);
    }),
    fault("`restart` and `up -d` at once", Nothing, Victims, 60, |scene| {
        scene.all_change();
        let commands = [&["restart", "web"][..], &["up", "-d"]].map(|args| scene.project.start(args));
        for mut command in commands {
            assert_eq!(command.exit_code(), Some(0), "{}", command.printed());
        }
    }),
    fault("`stop` and `start` of a service", Outage(30), Victims, 60, |scene| {
        scene.pod_changes();
        scene.project.run(&["stop", "web"]);
        scene.project.run(&["start", "web"]);
    }),
    fault("`drain` of a replica, then SIGKILL to it", InHand, Victims, 30, |scene| {
        let (slot, container) = scene.some_replica();
        scene.project.run(&["drain", &format!("web-{slot}")]);
        scene.loses_kept(slot);
        signal(scene.project.docker.pid(&container), Signal::SIGKILL);
        scene.project.run(&["weight", &format!("web-{slot}=100")]);
    }),
    fault("`sameport kill` of a replica", InHand, Victims, 20, |scene| {
        let (slot, _) = scene.victim();
        scene.project.run(&["kill", &format!("web-{slot}")]);
    }),
    fault("SIGKILL to a replica, then `docker container prune`", InHand, Victims, 20, |scene| {
        let (_, container) = scene.victim();
        signal(scene.project.docker.pid(&container), Signal::SIGKILL);
        let filter = docker::of_project(&scene.project.name);
        scene.project.docker.run(&["container", "prune", "-f", "--filter", &filter]);
    }),
    fault("an interrupted `restart` of a service", Nothing, SomeVictims, 60, |scene| {
        scene.all_change();
        let mut command = scene.project.start(&["restart", "web"]);
        thread::sleep(scene.up_to(1500));
        if command.is_running() {
            command.signal(Signal::SIGINT);
        }
        assert!(command.exit_code().is_some(), "{}", command.printed());
    }),
];

impl Scene {
    fn up_again(&mut self) {
        self.up();
    }
}

/// Another number of replicas than that.
fn another(scene: &mut Scene, than: u32) -> u32 {
    let others: Vec<_> = (2..=4).filter(|count| *count != than).collect();
    others[scene.rng.usize(..others.len())]
}

fn scale(scene: &Scene, replicas: u32) {
    scene.project.run(&["scale", &format!("web={replicas}")]);
}
