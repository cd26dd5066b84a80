//! Too little memory, too many lines, a busy processor, too few files; settings that somebody changes by hand.

use std::{fs, process::Command, thread};

use nix::sys::signal::Signal;

use super::{
    super::{
        cost::Cost::{InHand, Nothing},
        scene::signal,
    },
    Fault,
    Replaces::{Nobody, Victims},
    fault,
};

/// Takes all memory that it can get.
const GLUTTON: &str = "busybox awk 'BEGIN { s = \"0123456789abcdef\"; while (1) s = s s }'";

pub const FAULTS: &[Fault] = &[
    fault("a replica killed for its memory", InHand, Victims, 30, |scene| {
        let (_, container) = scene.victim();
        // The kernel chooses it before the one that takes the memory.
        fs::write(format!("/proc/{}/oom_score_adj", scene.project.docker.pid(&container)), "1000").unwrap();
        // It ends with the container.
        let _ = scene.project.docker.try_run(&["exec", &container, "sh", "-c", GLUTTON]);
    }),
    fault("another process in a replica killed for its memory", Nothing, Nobody, 30, |scene| {
        let (_, container) = scene.some_replica();
        let line = format!("echo 1000 >/proc/self/oom_score_adj; exec {GLUTTON}");
        let ended = scene.project.docker.try_run(&["exec", &container, "sh", "-c", &line]);
        assert!(ended.is_err(), "{ended:?}");
    }),
    fault("a flood of log lines from a replica", Nothing, Nobody, 30, |scene| {
        let (_, container) = scene.some_replica();
        let line = "busybox yes 'a line that nobody reads' | busybox head -n 50000 >/proc/1/fd/2";
        scene.project.docker.run(&["exec", &container, "sh", "-c", line]);
    }),
    fault("a busy loop in a replica for up to 2 s", Nothing, Nobody, 20, |scene| {
        let (_, container) = scene.some_replica();
        let seconds = format!("{}", 1 + scene.rng.u32(..2));
        let line = "while :; do :; done";
        let ended = scene
            .project
            .docker
            .try_run(&["exec", &container, "busybox", "timeout", &seconds, "sh", "-c", line]);
        assert!(ended.is_err(), "{ended:?}");
    }),
    fault("`docker update` of a replica's memory", Nothing, Nobody, 45, |scene| {
        let (_, container) = scene.some_replica();
        scene.project.docker.run(&["update", "--memory", "48m", "--memory-swap", "96m", &container]);
    }),
    fault("reload of the program in a replica", InHand, Nobody, 20, |scene| {
        let (_, container) = scene.victim();
        signal(scene.project.docker.pid(&container), Signal::SIGHUP);
    }),
    fault("`docker rename` of a replica", Nothing, Nobody, 20, |scene| {
        let (_, container) = scene.some_replica();
        scene.project.docker.run(&["rename", &container, &format!("{container}-x")]);
    }),
    fault("the supervisor's limit of open files lowered for up to 2 s", Nothing, Nobody, 30, |scene| {
        let supervisor = scene.project.supervisor().unwrap().to_string();
        let limit = |args: &[&str]| {
            let output = Command::new("prlimit").args(["--pid", &supervisor]).args(args).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let before = limit(&["--nofile", "--noheadings", "--output=SOFT"]);
        limit(&["--nofile=40:"]);
        thread::sleep(scene.up_to(2000));
        limit(&[&format!("--nofile={before}:")]);
    }),
];
