//! What `up -d` and `up --wait` take for a success, and what they say when it is none.

use super::support::project::Project;

#[test]
fn the_time_limit_says_who_does_not_listen() {
    let project = Project::new(
        "services:\n  web:\n    image: ${NGINX}\n    command: [sleep, \"1000\"]\n    ports: [\"${PORT}:8080\"]\n    \
         stop_grace_period: 0s\n",
    );
    let told = project.try_run(&["up", "--wait", "--wait-timeout", "3s"]);
    assert_eq!(told.code, Some(1), "{told:#?}");
    let wanted = "error: not done within 3s; waited for:\n    web-1 does not listen on port 8080\n";
    assert!(told.stderr.contains(wanted), "{told:#?}");
}

/// A server that waits for its port for as long as another one has it, in pods of which the kernel does not share the ports.
fn slow_to_stop(replicas: u32) -> String {
    format!(
        r#"
services:
  web:
    image: ${{PYTHON}}
    command:
      - python3
      - -c
      - |
        import socket, time
        while True:
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("", 8080))
                break
            except OSError:
                time.sleep(0.2)
        s.listen()
        while True:
            s.accept()[0].close()
    ports: ["${{PORT}}:8080"]
    stop_signal: SIGKILL
    scale: {replicas}
    x-sameport: {{ sharing: application }}
"#
    )
}

#[test]
fn a_replica_that_cannot_have_its_port_is_no_success_without_the_kernel_either() {
    let project = Project::new(&slow_to_stop(1));
    project.run(&["up", "--wait"]);
    project.write(&slow_to_stop(3));
    let told = project.try_run(&["up", "--wait", "--wait-timeout", "6s"]);
    assert_eq!(told.code, Some(1), "{told:#?}");
    assert!(told.stderr.contains("\n    1 of 3 replicas of web listen on port 8080\n"), "{told:#?}");
}

#[test]
fn who_has_ended_in_failure_for_good_is_exit_code_1_of_up() {
    let project = Project::new(
        "services:\n  web:\n    image: ${NGINX}\n    command: [sh, -c, \"echo boom; exit 3\"]\n    restart: \"no\"\n  \
         job:\n    image: ${NGINX}\n    command: [\"true\"]\n    restart: \"no\"\n",
    );
    let told = project.try_run(&["up", "-d"]);
    assert_eq!(told.code, Some(1), "{told:#?}");
    assert!(told.stderr.contains("error: web-1 failed: exit code 3"), "{told:#?}");
    assert!(told.stderr.contains("boom"), "{told:#?}");
    // Who has done his work has not failed.
    project.run(&["up", "-d", "job"]);
}
