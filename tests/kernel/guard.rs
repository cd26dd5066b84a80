//! Who does not belong among the replicas.

use std::process::{Command, Stdio};

use super::{
    pod::Pod,
    server::{PORT, answers, http},
    support::wait::{self, check},
};

#[test]
fn a_socket_that_is_no_replicas_gets_nothing_and_is_reported_with_its_process() {
    let mut pod = Pod::new();
    pod.start(1, &mut http());
    pod.listening(1, PORT);
    // In the pod's network, and in nobody's control group.
    let netns = format!("--net=/proc/{}/ns/net", pod.sandbox());
    let inside = http();
    let mut foreign = Command::new("nsenter")
        .arg(netns)
        .arg(inside.get_program())
        .args(inside.get_args())
        .env("REPLICA", "foreign")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let seen = wait::until("the foreign listener is reported", || {
        let report = pod.report();
        report.foreign_listeners.iter().next().cloned().ok_or(format!("{report:#?}"))
    });
    let answered = answers(&pod, 50);
    foreign.kill().unwrap();
    foreign.wait().unwrap();
    assert_eq!((seen.port, seen.pid), (8080, Some(foreign.id())));
    assert!(seen.command.starts_with("python3"), "{seen:?}");
    assert_eq!(answered.keys().collect::<Vec<_>>(), ["1"], "{answered:?}");
    wait::until("it is forgotten", || {
        let report = pod.report();
        check(report.foreign_listeners.is_empty(), report)
    });
}
