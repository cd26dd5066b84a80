//! Replicas die, are stopped, hang.

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use super::{
    super::{
        cost::Cost::{InHand, InHandOrLate, Nothing},
        scene::{STORES, Scene, children, parent, signal},
        support::wait::{self, check, slowly},
    },
    Fault,
    Replaces::{Nobody, SomeVictims, Victims},
    fault,
};

pub const FAULTS: &[Fault] = &[
    fault("SIGKILL to a replica", InHand, Victims, 20, |scene| {
        let (_, container) = scene.victim();
        signal(scene.project.docker.pid(&container), Signal::SIGKILL);
    }),
    fault("SIGTERM to a replica", InHand, Victims, 20, |scene| {
        let (_, container) = scene.victim();
        signal(scene.project.docker.pid(&container), Signal::SIGTERM);
    }),
    fault("SIGKILL to a worker process", InHand, Nobody, 20, |scene| worker_dies(scene, Signal::SIGKILL)),
    fault("SIGSEGV to a worker process", InHand, Nobody, 20, |scene| worker_dies(scene, Signal::SIGSEGV)),
    fault("`docker stop` of a replica, `docker start` 2 s later", InHand, Victims, 20, |scene| {
        let (_, container) = scene.victim();
        scene.project.docker.run(&["stop", &container]);
        thread::sleep(slowly(Duration::from_secs(2)));
        scene.project.docker.run(&["start", &container]);
    }),
    fault("`docker kill` of a replica", InHand, Victims, 20, |scene| docker(scene, &["kill"])),
    fault("`docker restart` of a replica", InHand, Victims, 20, |scene| docker(scene, &["restart"])),
    fault("`docker rm -f` of a replica", InHand, Victims, 20, |scene| docker(scene, &["rm", "-f"])),
    fault("`docker pause` of a replica, unpaused after up to 3 s", InHandOrLate, SomeVictims, 60, |scene| {
        let (_, container) = scene.some_replica();
        let begin = Instant::now();
        scene.project.docker.run(&["pause", &container]);
        thread::sleep(scene.up_to(3000));
        scene.project.docker.run(&["unpause", &container]);
        // If a health check begins in it at that moment, the engine answers nobody until the check's time-out, and pauses it
        // until then.
        if begin.elapsed() > slowly(Duration::from_secs(5)) {
            scene.all_at_risk();
            scene.victims.push(container);
        }
    }),
    // One that connections wait for is replaced, as any that takes none.
    fault(
        "`docker pause` of a replica, unpaused once it is out of rotation",
        InHandOrLate,
        SomeVictims,
        60,
        |scene| {
            let (slot, container) = scene.victim();
            scene.project.docker.run(&["pause", &container]);
            out_of_rotation(scene, slot);
            // It may be replaced meanwhile.
            let _ = scene.project.docker.try_run(&["unpause", &container]);
        },
    ),
    fault("SIGSTOP to all processes of a replica", InHand, Victims, 30, |scene| {
        let (_, container) = scene.victim();
        let main = scene.project.docker.pid(&container);
        children(main).into_iter().chain([main]).for_each(|pid| signal(pid, Signal::SIGSTOP));
    }),
    fault("SIGSTOP to all processes of a replica, SIGCONT within 2 s", Nothing, Nobody, 20, |scene| {
        let (_, container) = scene.some_replica();
        let main = scene.project.docker.pid(&container);
        let all: Vec<_> = children(main).into_iter().chain([main]).collect();
        all.iter().for_each(|pid| signal(*pid, Signal::SIGSTOP));
        thread::sleep(scene.up_to(2000));
        all.iter().for_each(|pid| signal(*pid, Signal::SIGCONT));
    }),
    fault("SIGKILL to all replicas at once", InHand, Victims, 30, |scene| {
        (1..=scene.replicas).for_each(|slot| scene.loses(slot));
        scene.all_at_risk();
        let pids: Vec<_> =
            scene.victims.iter().map(|container| scene.project.docker.pid(container)).collect();
        pids.into_iter().for_each(|pid| signal(pid, Signal::SIGKILL));
    }),
    fault("SIGKILL to all replicas but one at once", InHand, Victims, 30, |scene| {
        let (spared, _) = scene.some_replica();
        (1..=scene.replicas).filter(|slot| *slot != spared).for_each(|slot| scene.loses(slot));
        let pids: Vec<_> =
            scene.victims.iter().map(|container| scene.project.docker.pid(container)).collect();
        pids.into_iter().for_each(|pid| signal(pid, Signal::SIGKILL));
    }),
    fault("SIGKILL to the runtime's shim of a replica", InHand, Victims, 30, |scene| {
        let (_, container) = scene.victim();
        let shim = parent(scene.project.docker.pid(&container));
        let command = std::fs::read_to_string(format!("/proc/{shim}/cmdline")).unwrap();
        let id = scene.project.docker.run(&["inspect", "-f", "{{.Id}}", &container]);
        assert!(command.contains("shim") && command.contains(&id), "{command}");
        signal(shim, Signal::SIGKILL);
    }),
    fault("SIGKILL to a replica of the other service", Nothing, Victims, 20, |scene| {
        let slot = scene.rng.u32(1..=STORES);
        let container = scene.container(&format!("store-{slot}"));
        signal(scene.project.docker.pid(&container), Signal::SIGKILL);
        scene.victims.push(container);
    }),
    fault("failing health check of a replica", Nothing, Victims, 30, |scene| {
        let (_, container) = scene.some_replica();
        scene.project.docker.run(&["exec", &container, "touch", "/tmp/ill"]);
        scene.victims.push(container);
    }),
    fault("failing health check of a replica, well again within 2 s", Nothing, SomeVictims, 30, |scene| {
        let (_, container) = scene.some_replica();
        scene.project.docker.run(&["exec", &container, "touch", "/tmp/ill"]);
        thread::sleep(scene.up_to(2000));
        // Its files in memory go with its process, if that is replaced by now.
        let _ = scene.project.docker.try_run(&["exec", &container, "busybox", "rm", "-f", "/tmp/ill"]);
        scene.victims.push(container);
    }),
];

/// The program starts another one; its listener stays.
fn worker_dies(scene: &mut Scene, with: Signal) {
    let (_, container) = scene.victim();
    let main = scene.project.docker.pid(&container);
    let before = children(main);
    before.iter().for_each(|worker| signal(*worker, with));
    wait::until("another worker is there", || {
        let now = children(main);
        check(!now.is_empty() && now.iter().all(|worker| !before.contains(worker)), now)
    });
}

/// A `docker` command with a replica.
fn docker(scene: &mut Scene, command: &[&str]) {
    let (_, container) = scene.victim();
    scene.project.docker.run(&[command, &[&container]].concat());
}

/// Waits until a replica gets no connections.
fn out_of_rotation(scene: &Scene, slot: u32) {
    wait::within(Duration::from_secs(5), "it is out of rotation", || {
        let replicas = scene.project.replicas("web");
        let found = replicas.iter().find(|replica| replica.slot == slot);
        check(found.and_then(|r| r.traffic.as_ref()).is_none_or(|traffic| traffic.weight == 0), found)
    });
}
