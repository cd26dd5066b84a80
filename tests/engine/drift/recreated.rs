//! Somebody removes a container and makes another one under its name, with other settings: by hand, or as Watchtower and
//! Portainer do.

use std::{thread, time::Duration};

use serde_json::Value;

use super::{
    super::support::{
        images,
        made::{Made, copied},
        project::Project,
        wait::{self, check, slowly},
    },
    Frozen, events, is_converged, name, unnoticed,
};
use sameport::{api::schema::ReplicaState, engine::Labels};

/// How long it is watched that nothing more is done.
const WHILE: Duration = Duration::from_secs(3);

/// A container under the name of one of a project, which is gone.
fn in_the_place_of<'a>(project: &'a Project, rest: &str, args: &[&str]) -> Made<'a> {
    let name = name(project, rest);
    project.docker.run(&["rm", "-f", &name]);
    Made::container(&project.docker, &name, args)
}

fn as_strs(text: &[String]) -> Vec<&str> {
    text.iter().map(String::as_str).collect()
}

fn id(project: &Project, rest: &str) -> Option<Value> {
    project.docker.find(&name(project, rest)).map(|found| found["Id"].clone())
}

/// With its labels, in its network: it is taken for the replica, and put right once.
#[test]
fn a_replica_that_another_program_makes_anew_is_told_and_put_right_once() {
    let project = Project::web(3);
    project.run(&["up", "-d", "--wait"]);
    project.serves(3);
    let replica = name(&project, "web-2");
    let sandbox = id(&project, "web-sandbox").unwrap();
    let network = format!("--network=container:{}", sandbox.as_str().unwrap());
    let (nginx, go) = (images::build("nginx"), images::build("go"));
    for (case, told, settings) in [
        ("another image", &go, &["-e", "REPLICA=2", &go][..]),
        ("other variables", &nginx, &["-e", "REPLICA=other", &nginx]),
        ("a volume more", &nginx, &["-e", "REPLICA=2", "-v", "/data", &nginx]),
        ("another user", &nginx, &["-e", "REPLICA=2", "--user", "1000", &nginx]),
        ("a restart policy", &nginx, &["-e", "REPLICA=2", "--restart", "always", &nginx]),
    ] {
        let settings_of = |found: &Value| {
            ["Config", "HostConfig"].map(|part| {
                let mut part = found[part].clone();
                // The engine chooses the one, sameport the other: each container has its own.
                part.as_object_mut().unwrap().remove("Hostname");
                if let Some(labels) = part["Labels"].as_object_mut() {
                    labels.remove(Labels::NONCE);
                }
                part
            })
        };
        let before = project.docker.inspect(&replica);
        let others = ["web-1", "web-3", "web-sandbox"].map(|rest| id(&project, rest));
        let labels = copied(&project.docker, &replica, &[]);
        let so_far = events(&project, "container_recreated").len();
        // It is faster than the supervisor.
        let frozen = Frozen::supervisor(&project);
        let args = [&as_strs(&labels)[..], &[&network], settings].concat();
        let theirs = in_the_place_of(&project, "web-2", &args);
        let their_id = id(&project, "web-2");
        // Who was connected to the one that was removed has lost it. From here on nobody notices anything.
        unnoticed(case, &project, || {
            drop(frozen);
            wait::until(case, || {
                let found = project.docker.find(&replica);
                let is_ours = |found: &Value| {
                    Some(&found["Id"]) != their_id.as_ref() && found["State"]["Running"] == true && {
                        settings_of(found) == settings_of(&before)
                    }
                };
                check(found.as_ref().is_some_and(is_ours), (project.try_run(&["ps"]), found))
            });
        });
        project.serves(3);
        is_converged(&project);
        let told_of = events(&project, "container_recreated");
        assert_eq!(told_of.len(), so_far + 1, "{case}: {told_of:#?}");
        let event = &told_of[so_far];
        let image = project.docker.run(&["image", "inspect", "-f", "{{.Id}}", told]);
        assert_eq!([&event["replica"], &event["image"]], ["web-2", image.as_str()], "{case}: {event:#}");
        // It is done once, and to nobody else.
        let ours = id(&project, "web-2");
        thread::sleep(slowly(WHILE));
        assert_eq!(id(&project, "web-2"), ours, "{case}");
        assert_eq!(["web-1", "web-3", "web-sandbox"].map(|rest| id(&project, rest)), others, "{case}");
        drop(theirs);
    }
    // And Watchtower is told to leave it alone.
    let label =
        &project.docker.inspect(&replica)["Config"]["Labels"]["com.centurylinklabs.watchtower.enable"];
    assert_eq!(label, "false");
}

/// Without its labels, or outside its network, it is somebody else's: only told, never touched, and its name is free again once
/// it is gone.
#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn a_foreign_container_with_the_name_of_a_replica_is_reported_and_left_alone() {
    let project = Project::web(3);
    project.run(&["up", "-d", "--wait"]);
    project.serves(3);
    let nginx = images::build("nginx");
    let replica = name(&project, "web-2");
    let pod = format!("--network=container:{}", name(&project, "web-sandbox"));
    for (case, keeps, network) in [
        ("without labels, in the pod", None, pod.as_str()),
        ("without labels, elsewhere", None, "--network=bridge"),
        ("without the nonce", Some(&[Labels::LAYOUT][..]), "--network=bridge"),
        ("with all labels, elsewhere", Some(&[]), "--network=bridge"),
    ] {
        let others = ["web-1", "web-3", "web-sandbox"].map(|rest| id(&project, rest));
        let labels = match keeps {
            None => Vec::new(),
            Some([]) => copied(&project.docker, &replica, &[]),
            Some(_) => copied(&project.docker, &replica, &[Labels::NONCE]),
        };
        let frozen = Frozen::supervisor(&project);
        let args = [&as_strs(&labels)[..], &[network, &nginx, "sleep", "600"]].concat();
        let theirs = in_the_place_of(&project, "web-2", &args);
        let started = theirs.started_at();
        unnoticed(case, &project, || {
            drop(frozen);
            wait::until(case, || {
                let status = project.status();
                let is_blocked = matches!(status.replicas[1].state, ReplicaState::Blocked { .. });
                let named = status.errors.iter().any(|error| error.error.contains(&replica));
                check(is_blocked && named, status)
            });
            thread::sleep(slowly(WHILE));
        });
        assert_eq!(theirs.started_at(), started, "{case}: it is not touched");
        assert_eq!(["web-1", "web-3", "web-sandbox"].map(|rest| id(&project, rest)), others, "{case}");
        let is_told = project.status().foreign_resources.iter().any(|foreign| foreign.name == replica);
        assert_eq!(is_told, !labels.is_empty(), "{case}: what carries our labels is told as such");
        drop(theirs);
        project.serves(3);
        is_converged(&project);
    }
}

/// Nobody else has a pod's network open, so one that another program makes is of no use.
#[test]
fn a_sandbox_that_another_program_makes_is_told_and_the_pod_is_back_once_it_is_gone() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    project.serves(2);
    let sandbox = name(&project, "web-sandbox");
    let image = project.docker.inspect(&sandbox)["Config"]["Image"].as_str().unwrap().to_owned();
    let labels = copied(&project.docker, &sandbox, &[]);
    let before = project.processes();
    let frozen = Frozen::supervisor(&project);
    let network = format!("--network={}_default", project.name);
    let port = format!("{}:8080", project.port);
    let args = [&as_strs(&labels)[..], &[&network, "-p", &port, &image]].concat();
    let theirs = in_the_place_of(&project, "web-sandbox", &args);
    let started = theirs.started_at();
    drop(frozen);
    wait::until("it is told", || {
        let status = project.status();
        let foreign = status.foreign_resources.iter().any(|foreign| foreign.name == sandbox);
        let named = status.errors.iter().any(|error| error.error.contains(&sandbox));
        check(foreign && named, status)
    });
    assert_eq!(theirs.started_at(), started, "it is not touched");
    drop(theirs);
    project.serves(2);
    is_converged(&project);
    let after = project.processes();
    assert!(after.len() == 3 && after.iter().all(|process| !before.contains(process)), "{after:?}");
}
