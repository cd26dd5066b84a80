//! Connections that last: as long as the file says or without a limit, shown, and ended on demand.

use std::net::TcpStream;

use sameport::api::schema::Replica;

use super::support::{
    project::Project,
    wait::{self, check},
};

fn file(version: u32, replicas: u32) -> String {
    format!(
        r#"
services:
  cache:
    image: ${{REDIS}}
    command: [redis-server, --save, "", --protected-mode, "no"]
    environment: {{ VERSION: "{version}" }}
    ports: ["${{PORT}}:6379"]
    deploy: {{ replicas: {replicas} }}
    x-sameport: {{ drain: none }}
"#
    )
}

fn replicas(project: &Project, slot: u32) -> Vec<Replica> {
    let mut replicas = project.replicas("cache");
    replicas.retain(|replica| replica.slot == slot);
    replicas
}

fn connections(replica: &Replica) -> u64 {
    replica.traffic.as_ref().map_or(0, |traffic| traffic.connections)
}

/// Connections that nobody closes, at least one to each replica.
fn clients(project: &Project) -> Vec<TcpStream> {
    let mut clients = Vec::new();
    wait::until("each replica has a connection", || {
        let replicas = project.replicas("cache");
        let all = replicas.iter().all(|replica| connections(replica) > 0);
        if !all && clients.len() < 12 {
            clients.push(TcpStream::connect(project.outside()).unwrap());
        }
        check(all, replicas)
    });
    clients
}

fn names(project: &Project) -> Vec<String> {
    let filter = format!("label=dev.sameport.project={}", project.name);
    project.docker.lines(&["ps", "--filter", &filter, "--format", "{{.Names}}"])
}

fn is_there(project: &Project, slot: u32) -> bool {
    names(project).contains(&format!("{}-cache-{slot}", project.name))
}

#[test]
fn a_drain_without_a_limit_lasts_as_long_as_its_connections_and_is_ended_on_demand() {
    let project = Project::new(&file(1, 3));
    project.run(&["up", "-d", "--wait"]);
    let clients = clients(&project);
    let refused = project.try_run(&["drain", "--force", "cache-3"]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert!(refused.stderr.contains("`cache-3` is not about to end"), "{refused:#?}");
    let scaled = project.try_run(&["scale", "cache=1"]);
    assert_eq!(scaled.code, Some(0), "{scaled:#?}");
    assert!(scaled.stderr.contains("still draining, by connections: cache-2 ("), "{scaled:#?}");
    assert!(is_there(&project, 2) && is_there(&project, 3), "{}", project.log());
    for slot in [2, 3] {
        let shown = replicas(&project, slot);
        assert!(shown.iter().all(|r| r.out_of_rotation_since.is_some()) && shown.len() == 1, "{shown:#?}");
        assert!(shown[0].status.contains("draining for"), "{shown:#?}");
    }
    project.run(&["drain", "--force", "cache-3"]);
    wait::until("the one is gone", || check(!is_there(&project, 3), names(&project)));
    assert!(is_there(&project, 2), "the other one was not meant");
    drop(clients);
    wait::until("the other one is gone with its connections", || {
        check(!is_there(&project, 2), names(&project))
    });
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn a_new_version_is_there_at_once_however_long_the_old_one_drains() {
    let project = Project::new(&file(1, 2));
    project.run(&["up", "-d", "--wait"]);
    let clients = clients(&project);
    project.write(&file(2, 2));
    let changed = project.try_run(&["up", "-d", "--wait"]);
    assert_eq!(changed.code, Some(0), "{changed:#?}");
    assert!(changed.stderr.contains("still draining"), "{changed:#?}");
    for slot in [1, 2] {
        let shown = replicas(&project, slot);
        let (new, old): (Vec<_>, Vec<_>) = shown.iter().partition(|replica| replica.up_to_date);
        assert!(new.len() == 1 && old.len() == 1, "{shown:#?}");
        assert!(connections(old[0]) > 0 && old[0].out_of_rotation_since.is_some(), "{shown:#?}");
    }
    project.run(&["drain", "--force", "cache-1", "cache-2"]);
    wait::until("only the new version is there", || {
        let status = project.status();
        check(status.converged && status.replicas.len() == 2, status)
    });
    drop(clients);
}
