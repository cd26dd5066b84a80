//! The supervisor dies, hangs, is told things.

use std::{thread, time::Duration};

use nix::sys::signal::{Signal, kill};

use super::{
    super::{
        cost::Cost::{InHand, Nothing},
        scene::{Scene, signal},
        support::wait::{self, check},
    },
    Fault,
    Replaces::{Nobody, Victims},
    fault,
};

pub const FAULTS: &[Fault] = &[
    fault("SIGKILL to the supervisor, then `up -d`", Nothing, Nobody, 20, |scene| {
        scene.project.kill_supervisor();
        thread::sleep(scene.up_to(1000));
        scene.up();
    }),
    fault("SIGTERM to the supervisor, then `up -d`", Nothing, Nobody, 20, |scene| {
        kill(scene.project.supervisor().unwrap(), Signal::SIGTERM).unwrap();
        wait::until("it ends", || {
            let supervisor = scene.project.supervisor();
            check(supervisor.is_none(), supervisor)
        });
        scene.up();
    }),
    fault("SIGSTOP to the supervisor, SIGCONT within 3 s", Nothing, Nobody, 20, |scene| {
        let supervisor = scene.project.supervisor().unwrap();
        kill(supervisor, Signal::SIGSTOP).unwrap();
        thread::sleep(scene.up_to(3000));
        kill(supervisor, Signal::SIGCONT).unwrap();
    }),
    fault("SIGKILL to supervisor and replica, then `up -d`", InHand, Victims, 20, |scene| {
        let (_, container) = scene.victim();
        let pid = scene.project.docker.pid(&container);
        kill(scene.project.supervisor().unwrap(), Signal::SIGKILL).unwrap();
        signal(pid, Signal::SIGKILL);
        wait::until("the supervisor is gone", || {
            let supervisor = scene.project.supervisor();
            check(supervisor.is_none(), supervisor)
        });
        scene.up();
    }),
    fault("SIGHUP to the supervisor", Nothing, Nobody, 20, hangup),
    fault("SIGHUP to the supervisor with a broken Compose file", Nothing, Nobody, 20, |scene| {
        scene.project.write("services: { web: { image: [] } }");
        hangup(scene);
        thread::sleep(Duration::from_millis(500));
        scene.write();
        hangup(scene);
    }),
    fault("SIGKILL to the supervisor while a replica starts, then `up -d`", InHand, Victims, 20, |scene| {
        let (_, container) = scene.victim();
        signal(scene.project.docker.pid(&container), Signal::SIGKILL);
        thread::sleep(scene.up_to(700));
        scene.project.kill_supervisor();
        scene.up();
    }),
];

fn hangup(scene: &mut Scene) {
    kill(scene.project.supervisor().unwrap(), Signal::SIGHUP).unwrap();
}
