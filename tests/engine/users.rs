//! Versions that run as different users share their port, also where an image drops root by itself.

use std::{collections::BTreeSet, fs, thread, time::Duration};

use sameport::api::schema::Replica;

use super::support::{load::Load, project::Project};

/// From root to others and back.
const USERS: [u32; 5] = [0, 1000, 101, 1000, 0];
const REPLICAS: usize = 3;
const KEPT: u32 = 200;

/// A service whose replicas answer with their user. `service` is what it has besides.
fn compose(user: u32, service: &str) -> String {
    format!(
        r#"
services:
  web:
    environment: {{ REPLICA: "{user}", LISTEN: "" }}
    ports: ["${{PORT}}:8080"]
    deploy: {{ replicas: {REPLICAS}, update_config: {{ monitor: 1s }} }}
    stop_grace_period: 5s
{service}"#
    )
}

/// The real user of a replica's first process.
fn user(project: &Project, replica: &Replica) -> u32 {
    let pid = project.docker.find(&replica.name).unwrap()["State"]["Pid"].as_u64().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Rolls out as each user in turn. No request fails, on connections that are kept neither, and no replica has crashed.
fn roll_out(users: &[u32], service: impl Fn(u32) -> String) {
    let project = Project::new(&compose(users[0], &service(users[0])));
    project.run(&["up", "-d", "--wait"]);
    let load = Load::start(project.outside(), 100);
    let kept = Load::kept(project.outside(), "/get", KEPT, 200);
    for user_id in &users[1..] {
        thread::sleep(Duration::from_secs(1));
        project.write(&compose(*user_id, &service(*user_id)));
        project.run(&["up", "-d", "--wait"]);
        let replicas = project.replicas("web");
        assert_eq!(
            replicas.iter().map(|replica| user(&project, replica)).collect::<Vec<_>>(),
            [*user_id; REPLICAS]
        );
        for replica in &replicas {
            assert_eq!((replica.exits, &replica.last_termination), (0, &None), "{replica:#?}");
        }
    }
    for report in [load.finish(), kept.finish()] {
        eprintln!("{report}");
        assert!(report.failures.is_empty(), "{report}");
        assert_eq!(report.answers.len(), users.iter().collect::<BTreeSet<_>>().len(), "{report}");
    }
    let pods = project.status().pods;
    assert!(pods.iter().all(|pod| pod.user_conflicts.is_empty() && pod.error.is_none()), "{pods:#?}");
    let log = project.log();
    assert!(!log.contains("ended"), "{log}");
    eprintln!(
        "{}",
        log.lines().filter(|line| line.contains("passes from user")).collect::<Vec<_>>().join("\n")
    );
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn a_version_of_uvicorn_as_another_user_comes_and_nobody_notices() {
    roll_out(&USERS, |user| format!("    image: ${{UVICORN}}\n    user: \"{user}\"\n"));
}

#[test]
fn a_version_of_nginx_as_another_user_comes_and_nobody_notices() {
    roll_out(&[0, 1000, 0], |user| format!("    image: ${{NGINX}}\n    user: \"{user}\"\n"));
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn versions_of_nginx_as_all_users_come_and_nobody_notices() {
    roll_out(&USERS, |user| format!("    image: ${{NGINX}}\n    user: \"{user}\"\n"));
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn a_version_of_gunicorn_as_another_user_comes_and_nobody_notices() {
    roll_out(&USERS, |user| {
        format!(
            r#"    image: ${{GUNICORN}}
    user: "{user}"
    command: [python3, -m, gunicorn, --chdir, /, --bind, "0.0.0.0:8080", --worker-tmp-dir, /dev/shm, --threads, "100", "app:app"]
"#
        )
    });
}

/// The user is not known before the program asks for its port.
fn drops_root(user: u32) -> String {
    format!(
        r#"    image: ${{UVICORN}}
    command:
      - python3
      - -c
      - |
        import os
        os.setgroups([])
        os.setgid({user})
        os.setuid({user})
        os.execvp("python3", "python3 -m uvicorn --app-dir / --no-access-log app:app".split())
"#
    )
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn an_image_that_drops_root_by_itself_gets_its_port_and_has_not_crashed() {
    roll_out(&[0, 1000, 0], drops_root);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn an_image_that_drops_root_to_all_users_gets_its_port_and_has_not_crashed() {
    roll_out(&USERS, drops_root);
}
