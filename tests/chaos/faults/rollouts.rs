//! Versions that come, and do not come.

use std::{collections::BTreeSet, thread};

use super::{
    super::{
        cost::Cost::{InHand, Nothing, Outage},
        engine,
        scene::{Scene, signal},
        support::{project::Foreground, wait},
    },
    Fault,
    Replaces::{Nobody, SomeVictims, Victims},
    fault,
};

pub const FAULTS: &[Fault] = &[
    fault("rollout", Nothing, Victims, 60, |scene| {
        let up = begin(scene);
        done(scene, up);
    }),
    fault("rollout of a version that ends at once", Nothing, Nobody, 60, |scene| {
        scene.write_unwanted("    command: [sh, -c, exit 3]");
        let up = scene.project.try_run(&["up", "-d", "--wait"]);
        assert_eq!(up.code, Some(1), "{up:#?}");
        scene.write();
        scene.project.run(&["up", "-d"]);
    }),
    fault("rollout given up by `rollout abort`", Nothing, SomeVictims, 60, |scene| {
        scene.all_change();
        scene.write_unwanted("");
        let mut up = scene.project.start(&["up", "-d", "--wait"]);
        thread::sleep(scene.up_to(2500));
        // It may not have begun yet, or be done already.
        let _ = scene.project.try_run(&["rollout", "abort", "web"]);
        assert!(up.exit_code().is_some());
        scene.write();
        scene.project.run(&["up", "-d", "--wait"]);
    }),
    fault("rollout, SIGKILL to the supervisor meanwhile, then `up -d`", Nothing, Victims, 60, |scene| {
        let up = begin(scene);
        thread::sleep(scene.up_to(2500));
        scene.project.kill_supervisor();
        drop(up);
        scene.up();
    }),
    fault("rollout, a new replica killed meanwhile", InHand, Victims, 60, |scene| {
        scene.all_at_risk();
        let up = begin(scene);
        let new = newcomer(scene);
        thread::sleep(scene.up_to(500));
        // It may have another name by now, and be ready.
        if let Some(found) = scene.project.docker.find(&new) {
            let pid = i32::try_from(found["State"]["Pid"].as_i64().unwrap()).unwrap();
            if pid > 0 {
                signal(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
        drop(up);
        again(scene);
    }),
    fault("rollout, `docker rm -f` of an old replica meanwhile", InHand, Victims, 60, |scene| {
        (1..=scene.replicas).for_each(|slot| scene.loses(slot));
        scene.victims.clear();
        let old = scene.before[&scene.web(scene.replicas)].process.0.clone();
        let up = begin(scene);
        newcomer(scene);
        // Its turn may have come.
        let _ = scene.project.docker.try_run(&["rm", "-f", &old]);
        drop(up);
        again(scene);
    }),
    fault("rollout and `scale` at once", Nothing, SomeVictims, 60, |scene| {
        let up = begin(scene);
        let count = if scene.replicas == 4 { 2 } else { scene.replicas + 1 };
        scene.project.run(&["scale", &format!("web={count}")]);
        drop(up);
        scene.replicas = count;
        again(scene);
    }),
    fault("rollout, SIGKILL to the sandbox meanwhile", Outage(20), Victims, 60, |scene| {
        let up = begin(scene);
        scene.pod_changes();
        thread::sleep(scene.up_to(1500));
        signal(scene.project.docker.pid(&scene.container("web-sandbox")), nix::sys::signal::Signal::SIGKILL);
        drop(up);
        again(scene);
    }),
];

/// Begins a rollout to the next release.
fn begin(scene: &mut Scene) -> Foreground {
    scene.all_change();
    scene.write_next();
    scene.project.start(&["up", "-d", "--wait"])
}

fn done(scene: &Scene, mut up: Foreground) {
    assert_eq!(up.exit_code(), Some(0), "{} {}", scene.release, up.printed());
}

/// Asks for the file once more: a version that failed by the fault is not tried again by itself.
fn again(scene: &Scene) {
    scene.project.try_run(&["up", "-d", "--wait"]);
    scene.project.run(&["up", "-d"]);
}

/// Waits for a container that was not there before, and returns its id.
fn newcomer(scene: &Scene) -> String {
    let known: BTreeSet<_> = scene.before.values().map(|container| container.process.0.clone()).collect();
    wait::until("a new replica is there", || {
        let now = engine::containers(&scene.project)?;
        let new = now.values().find(|c| !known.contains(&c.process.0) && c.state == "running");
        new.map(|container| container.process.0.clone()).ok_or_else(|| format!("{now:#?}"))
    })
}
