//! Who does not belong among the replicas.

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
};

use super::{
    pod::Pod,
    server::{PORT, answers, http, python},
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
    let mut stranger = Command::new("nsenter")
        .arg(netns)
        .arg(inside.get_program())
        .args(inside.get_args())
        .env("REPLICA", "stranger")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let seen = wait::until("the stranger is reported", || {
        let report = pod.report();
        report.strangers.iter().next().cloned().ok_or(format!("{report:#?}"))
    });
    let answered = answers(&pod, 50);
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert_eq!((seen.port, seen.pid), (8080, Some(stranger.id())));
    assert!(seen.command.starts_with("python3"), "{seen:?}");
    assert_eq!(answered.keys().collect::<Vec<_>>(), ["1"], "{answered:?}");
    wait::until("it is forgotten", || {
        let report = pod.report();
        check(report.strangers.is_empty(), report)
    });
}

/// The same server as another user: what the kernel says of it is told with both users.
#[test]
fn another_user_cannot_share_and_both_are_named() {
    let mut pod = Pod::new();
    pod.start(1, &mut http());
    pod.listening(1, PORT);
    pod.start(
        2,
        &mut python(
            "
import os, socket, time
os.setuid(1234)
listener = socket.socket()
try: listener.bind(('', 8080))
except OSError as error: print(error)
time.sleep(600)
",
        ),
    );
    let other = wait::until("the other user is told", || {
        let report = pod.report();
        report.other_users.get(&8080).copied().ok_or(format!("{report:#?}"))
    });
    assert_eq!((other.user, other.owner), (1234, 0));
    assert_eq!(answers(&pod, 20).len(), 1);
}

/// With nobody left of the old user, the port passes to the new one, and nobody is refused meanwhile.
#[test]
fn a_port_passes_to_another_user_once_the_last_of_the_old_ones_is_gone() {
    let mut pod = Pod::new();
    pod.start(1, &mut http());
    pod.listening(1, PORT);
    pod.remove(1);
    let mut waiting = pod.connect(super::server::shared()).unwrap();
    let mut command = http();
    let text = command.get_args().nth(1).unwrap().to_str().unwrap().to_owned();
    let with_retry = format!(
        "import encodings.idna, http.server, os, signal, threading, time\nos.setuid(1234)\ncode = compile({text:?}, 'server', 'exec')\nwhile True:\n  try: exec(code)\n  except OSError: time.sleep(0.1)\n"
    );
    command = python(&with_retry);
    pod.start(2, &mut command);
    assert_eq!(super::server::ask(&mut waiting).unwrap(), "2");
    let users: BTreeSet<_> = pod.report().replicas.values().filter_map(|replica| replica.user).collect();
    assert_eq!(users, BTreeSet::from([1234]));
}
