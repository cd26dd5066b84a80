//! What becomes of processes that end by themselves, and what a user sees of it.

use sameport::api::schema::{Replica, ReplicaState};

use super::support::{
    project::Project,
    wait::{self, check},
};

fn service(body: &str) -> Project {
    Project::new(&format!("services:\n  app:\n    image: ${{NGINX}}\n    stop_grace_period: 0s\n{body}"))
}

/// The only replica, once it is in the state that is waited for.
fn replica(project: &Project, what: &str, holds: impl Fn(&Replica) -> bool) -> Replica {
    wait::until(what, || {
        let mut replicas = project.replicas("app");
        match replicas.pop() {
            Some(replica) if holds(&replica) => Ok(replica),
            other => Err(format!("{other:#?}")),
        }
    })
}

#[test]
fn a_job_with_restart_no_is_done_once() {
    let project = service("    restart: \"no\"\n    command: [\"sh\", \"-c\", \"echo ran\"]\n");
    project.run(&["up", "-d"]);
    replica(&project, "the job is done", |r| r.state == ReplicaState::Completed);
    let logs = project.docker.run(&["logs", &format!("{}-app-1", project.name)]);
    assert_eq!(logs, "ran");
}

#[test]
fn on_failure_gives_up_after_its_tries() {
    let project = service("    restart: on-failure:2\n    command: [\"sh\", \"-c\", \"echo try; exit 9\"]\n");
    project.try_run(&["up", "-d"]);
    let given_up = replica(&project, "it is given up", |r| matches!(r.state, ReplicaState::Failed { .. }));
    assert!(matches!(&given_up.state, ReplicaState::Failed { exit } if exit.exit_code == 9), "{given_up:#?}");
    let logs = project.docker.run(&["logs", &format!("{}-app-1", project.name)]);
    assert_eq!(logs.lines().count(), 3, "the first start and two tries:\n{logs}");
    // It is started once more when somebody asks for it by `up`, and for no other reason.
    for (command, tries) in [(&["scale", "app=1"][..], 3), (&["up", "-d"], 4)] {
        assert_eq!(project.try_run(command).code, Some(1), "{command:?}");
        replica(&project, "it is given up again", |r| matches!(r.state, ReplicaState::Failed { .. }));
        let logs = project.docker.run(&["logs", &format!("{}-app-1", project.name)]);
        assert_eq!(logs.lines().count(), tries, "{command:?}: {logs}");
    }
}

#[test]
fn a_crash_loop_is_shown_with_exit_code_and_last_words() {
    let project = service("    command: [\"sh\", \"-c\", \"echo no database at db:5432; exit 7\"]\n");
    let up = project.try_run(&["up", "-d", "--wait"]);
    assert_eq!(up.code, Some(1), "{up:#?}");
    let printed = format!("{}{}", up.stdout, up.stderr);
    assert!(printed.contains("no database at db:5432"), "{printed}");
    let looping = replica(&project, "it has crashed three times", |r| {
        r.exits >= 3 && matches!(r.state, ReplicaState::Restarting { .. })
    });
    assert!(
        matches!(&looping.state, ReplicaState::Restarting { exit, .. } if exit.exit_code == 7),
        "{looping:#?}"
    );
    wait::until("the table calls it a crash loop", || {
        let table = project.run(&["ps"]);
        check(table.contains("crash loop") && table.contains('7'), table)
    });
}

#[test]
fn running_out_of_memory_is_called_that() {
    let project = service(
        "    mem_limit: 32m\n    command: [\"sh\", \"-c\", \"sleep 1; exec tail /dev/zero\"]\n    \
         restart: \"no\"\n",
    );
    project.try_run(&["up", "-d"]);
    let dead = replica(&project, "it ran out of memory", |r| matches!(r.state, ReplicaState::Failed { .. }));
    assert!(matches!(&dead.state, ReplicaState::Failed { exit } if exit.out_of_memory), "{dead:#?}");
    let table = project.run(&["ps"]);
    assert!(table.to_lowercase().contains("memory"), "{table}");
}
