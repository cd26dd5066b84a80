//! Connections that last: as long as the file says or without a limit, shown, and ended on demand.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    time::Duration,
};

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

/// A connection to Redis that is kept.
struct Kept(BufReader<TcpStream>);

impl Kept {
    fn open(project: &Project) -> Self {
        let stream = TcpStream::connect(project.outside()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self(BufReader::new(stream))
    }

    /// Which process of Redis answers on it.
    fn run_id(&mut self) -> String {
        self.0.get_mut().write_all(b"INFO server\r\n").unwrap();
        let mut line = String::new();
        let mut id = String::new();
        // Its length, so many lines, and an empty one.
        self.0.read_line(&mut line).unwrap();
        let mut left: usize =
            line.trim().trim_start_matches('$').parse().unwrap_or_else(|_| panic!("{line:?}"));
        while left > 0 {
            line.clear();
            left = left.saturating_sub(self.0.read_line(&mut line).unwrap());
            id.extend(line.strip_prefix("run_id:").map(|id| id.trim().to_owned()));
        }
        self.0.read_line(&mut line).unwrap();
        id
    }
}

/// Who answers new connections, once it is none of these.
fn next(project: &Project, before: &[&str]) -> (Kept, String) {
    let mut found = None;
    wait::until("another version answers", || {
        let mut kept = Kept::open(project);
        let id = kept.run_id();
        let is_new = !before.contains(&id.as_str());
        // The last one may still answer, but no other one any more.
        assert!(is_new || before.last() == Some(&id.as_str()), "{}", project.log());
        found = is_new.then_some((kept, id));
        check(is_new, before)
    });
    found.unwrap()
}

#[test]
fn versions_follow_each_other_while_those_before_still_drain() {
    let project = Project::new(&file(1, 1));
    project.run(&["up", "-d", "--wait"]);
    let (mut first, one) = next(&project, &[]);
    project.write(&file(2, 1));
    project.run(&["up", "-d"]);
    let (mut second, two) = next(&project, &[&one]);
    wait::until("the first one drains", || {
        let replicas = project.replicas("cache");
        let drains = |replica: &&Replica| replica.out_of_rotation_since.is_some() && connections(replica) > 0;
        check(replicas.iter().any(|replica| drains(&replica)), replicas)
    });
    project.write(&file(3, 1));
    project.run(&["up", "-d"]);
    let (mut third, three) = next(&project, &[&one, &two]);
    // Nothing is left to be done but to wait for connections.
    wait::until("the rollout is done", || {
        let status = project.status();
        check(status.rollouts.is_empty() && status.only_draining, status)
    });
    assert_eq!([first.run_id(), second.run_id(), third.run_id()], [one, two, three]);
    let shown = replicas(&project, 1);
    let (old, new): (Vec<_>, Vec<_>) = shown.iter().partition(|replica| replica.set_aside);
    assert!(new.len() == 1 && new[0].up_to_date && !new[0].replacement, "{shown:#?}");
    let name = format!("{}-cache-1", project.name);
    assert_eq!(new[0].name, name);
    assert_eq!(old.len(), 2, "{shown:#?}");
    for old in old {
        let id = &old.id.as_ref().unwrap()[..12];
        assert_eq!(old.name, format!("{name}-draining-{id}"));
        assert_eq!((connections(old), old.up_to_date), (1, false), "{old:#?}");
    }
    // Who names the replica means the one that serves.
    assert_eq!(project.run(&["exec", "-T", "cache-1", "sh", "-c", "echo $VERSION"]).trim(), "3");
    // The next supervisor knows them as well.
    project.kill_supervisor();
    project.run(&["up", "-d"]);
    wait::until("all are known again", || {
        let status = project.status();
        check(status.only_draining && status.replicas.len() == 3, status)
    });
    assert!(!first.run_id().is_empty() && !second.run_id().is_empty());
    drop(first);
    wait::until("the first one is gone with its connection", || {
        check(names(&project).len() == 3, names(&project))
    });
    project.run(&["drain", "--force", "cache-1"]);
    wait::until("only the last one is there", || {
        let status = project.status();
        check(status.converged && status.replicas.len() == 1, status)
    });
    assert!(!third.run_id().is_empty());
}
