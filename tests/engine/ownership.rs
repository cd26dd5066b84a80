//! What sameport has not made it never stops, removes or obeys, whatever its labels say.

use std::{fs, path::Path, process::Command, thread, time::Duration};

use sameport::engine::{Labels, ownership::ForeignReason};
use serde_json::Value;

use super::support::{
    images,
    made::{Made, copied},
    project::{Finished, Project},
    wait::{self, check},
};

/// Without any event the supervisor looks that often.
const RESYNC: Duration = Duration::from_secs(30);

/// A command of another user of the engine, who has neither our state nor our supervisor.
fn of_another_user(project: &Project, args: &[&str]) -> Finished {
    let folder = tempfile::Builder::new().prefix("spo").tempdir_in("/tmp").unwrap();
    let mut command: Command = project.command(args);
    command.env("XDG_RUNTIME_DIR", folder.path()).env("XDG_STATE_HOME", folder.path());
    command.output().unwrap().into()
}

/// What `events` tells of what is not ours: names and reasons.
fn told_of_foreign(project: &Project) -> Vec<(String, String)> {
    let of = |event: Value| {
        let text = |key: &str| event["resource"][key].as_str().map(str::to_owned);
        Some((text("name")?, text("reason")?)).filter(|_| event["event"] == "foreign_resource")
    };
    let mut told: Vec<_> = project.events().into_iter().filter_map(of).collect();
    told.sort();
    told
}

#[test]
fn no_command_of_an_images_label_is_run() {
    let project = Project::new(
        r#"
services:
  web:
    image: ${COMPOSE_PROJECT_NAME}-hooked
    user: "65534:65534"
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    ports: ["${PORT}:8080"]
    volumes: ["./data:/data"]
"#,
    );
    let docker = &project.docker;
    let hook = serde_json::json!({
        "command": ["sh", "-c", "id > /tmp/hooked; echo root > /data/hooked"],
        "user": "0", "privileged": false, "working_dir": null, "environment": {},
    });
    let hooks = serde_json::json!({ "post_start": [hook.clone()], "pre_stop": [hook] }).to_string();
    // It never runs: nothing that its process leaves is in the image.
    let plain = Made::created(docker, &format!("{}-plain", project.name), &[&images::build("nginx")]);
    let tag = format!("{}-hooked", project.name);
    let _image = Made::image(docker, &tag, &plain.name, &[(Labels::HOOKS, &hooks)]);
    fs::create_dir(project.path("data")).unwrap();

    project.run(&["up", "-d", "--wait"]);
    project.serves_some();
    project.run(&["restart"]);
    let replica = format!("{}-web-1", project.name);
    let seen = docker.run(&["exec", &replica, "ls", "/tmp"]);
    assert!(!seen.contains("hooked"), "{seen}");
    let events = project.run(&["events", "--no-follow", "--format", "json"]);
    assert!(!events.contains("hooked"), "{events}");
    project.run(&["down"]);
    assert!(!project.path("data/hooked").exists(), "nothing was written on the host");
}

#[test]
fn who_has_the_labels_of_a_replica_or_a_sandbox_from_an_image_is_left_alone() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    let (docker, name) = (&project.docker, &project.name);
    let ours = project.processes();
    let committed = |what: &str| {
        let tag = format!("{name}-of-{what}");
        Made::image(docker, &tag, &format!("{name}-{what}"), &[])
    };
    let (replica, sandbox) = (committed("web-2"), committed("web-sandbox"));
    let run = |name: &str| {
        let args = ["-v", "/data", &replica.name, "sh", "-c", "echo precious > /data/file; sleep 600"];
        Made::container(docker, name, &args)
    };
    // They go after the containers, also where somebody has removed those.
    let mut volumes = Vec::new();
    // One that joins our pod, too.
    let joined = format!("--network=container:{name}-web-sandbox");
    let mut foreign = vec![
        run(&format!("{name}-debug")),
        run(&format!("{name}-free")),
        run(&format!("{name}-next")),
        Made::container(
            docker,
            &format!("{name}-web-4"),
            &[&joined, "-v", "/data", &replica.name, "sleep", "600"],
        ),
        Made::container(docker, &format!("{name}-box"), &[&sandbox.name]),
    ];
    foreign[1].rename(&format!("{name}-web-3"));
    foreign[2].rename(&format!("{name}-web-2-next"));
    let started: Vec<_> = foreign.iter().map(Made::started_at).collect();
    volumes.extend(foreign.iter().flat_map(Made::volumes).map(|name| Made::left_volume(docker, &name)));
    assert_eq!(volumes.len(), 4);
    let are_untouched = || {
        assert_eq!(foreign.iter().map(Made::started_at).collect::<Vec<_>>(), started);
        volumes.iter().for_each(|volume| drop(docker.run(&["volume", "inspect", &volume.name])));
    };
    thread::sleep(RESYNC + Duration::from_secs(2));
    let still = |ours: &[(String, String)]| {
        let now = project.processes();
        assert!(ours.iter().all(|process| now.contains(process)), "{ours:?} {now:?}");
    };
    still(&ours);
    are_untouched();

    // A supervisor that sees them at its first look.
    project.kill_supervisor();
    project.run(&["up", "-d", "--wait"]);
    still(&ours);
    let mut names: Vec<_> = foreign.iter().map(|foreign| foreign.name.clone()).collect();
    names.sort();
    let message = ForeignReason::LabelsOfImage.to_string();
    let told = told_of_foreign(&project);
    assert_eq!(told, names.iter().map(|name| (name.clone(), message.clone())).collect::<Vec<_>>());
    let status = project.status();
    assert!(status.converged, "{status:#?}");
    assert_eq!(status.foreign_resources.len(), foreign.len());
    assert!(status.foreign_resources.iter().all(|foreign| foreign.reason == message));
    let ps = project.try_run(&["ps"]);
    let doctor = project.try_run(&["doctor"]).stdout;
    for foreign in &foreign {
        let id = docker.run(&["inspect", "-f", "{{slice .Id 0 12}}", &foreign.name]);
        let line = format!("container {} ({id}, image {name}-of-", foreign.name);
        assert!(ps.stderr.contains(&line) && doctor.contains(&line), "{line} {ps:#?} {doctor}");
    }

    // No command takes one for the replica whose labels it has.
    project.run(&["kill", "-s", "SIGHUP", "web"]);
    let id = project.run(&["exec", "-T", "web.2", "--", "sh", "-c", "ls /data || echo ours"]);
    assert_eq!(id.trim(), "ours");
    assert_eq!(project.run(&["ps", "-q"]).lines().count(), 2);
    project.run(&["down", "-v"]);
    are_untouched();
    let left = project.try_run(&["ps"]);
    assert!(left.stderr.contains(&foreign[0].name), "{left:#?}");
}

#[test]
fn who_was_given_the_labels_of_a_replica_by_hand_is_left_alone() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    let (docker, name) = (&project.docker, &project.name);
    let ours = project.processes();
    let image = project.image("NGINX");
    let replica = format!("{name}-web-1");
    let run = |name: String, labels: Vec<String>| {
        let labels: Vec<_> = labels.iter().map(String::as_str).collect();
        Made::container(docker, &name, &[&labels[..], &[&image, "sleep", "600"]].concat())
    };
    let foreign = [
        run(format!("{name}-copy"), copied(docker, &replica, &[])),
        // As an earlier release labelled it.
        run(format!("{name}-early"), copied(docker, &replica, &[Labels::LAYOUT, Labels::NONCE])),
        run(format!("{name}-half"), copied(docker, &replica, &["dev.sameport.role"])),
    ];
    let started: Vec<_> = foreign.iter().map(Made::started_at).collect();
    wait::until("all are named", || {
        let told = told_of_foreign(&project);
        check(told.len() == foreign.len(), told)
    });
    thread::sleep(Duration::from_secs(3));
    let now = project.processes();
    assert!(ours.iter().all(|process| now.contains(process)), "{ours:?} {now:?}");
    project.run(&["down", "-v"]);
    assert_eq!(foreign.iter().map(Made::started_at).collect::<Vec<_>>(), started);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn networks_and_volumes_with_copied_labels_stay() {
    let project = Project::new(
        r#"
services:
  web:
    image: ${NGINX}
    ports: ["${PORT}:8080"]
    volumes: ["data:/data"]
volumes: { data: {} }
"#,
    );
    project.run(&["up", "-d", "--wait"]);
    let (docker, name) = (&project.docker, &project.name);
    let labels = |kind: &str, of: &str| -> Vec<String> {
        let labels: Value =
            serde_json::from_str(&docker.run(&[kind, "inspect", of, "-f", "{{json .Labels}}"])).unwrap();
        let labels = labels.as_object().unwrap().iter();
        labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap())).collect()
    };
    let network = Made::network(
        docker,
        &format!("{name}_copied-network"),
        &labels("network", &format!("{name}_default")),
    );
    let volume =
        Made::volume(docker, &format!("{name}_copied-volume"), &labels("volume", &format!("{name}_data")));
    wait::until("both are named", || {
        let told = told_of_foreign(&project);
        check(told.len() == 2, told)
    });
    assert_eq!(project.status().foreign_resources.len(), 2);
    project.run(&["down", "-v"]);
    for (kind, made) in [("network", &network), ("volume", &volume)] {
        docker.run(&[kind, "inspect", &made.name]);
    }
    // All that was ours is gone.
    assert_eq!(project.leftovers().len(), 2);
}

#[test]
fn what_a_newer_release_has_made_is_neither_supervised_nor_touched() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    project.kill_supervisor();
    let (docker, name) = (&project.docker, &project.name);
    let mut labels = copied(docker, &format!("{name}-web-2"), &[Labels::LAYOUT, Labels::NONCE]);
    labels.push(format!("--label={}=2", Labels::LAYOUT));
    let labels: Vec<_> = labels.iter().map(String::as_str).collect();
    let image = project.image("NGINX");
    let newer =
        Made::container(docker, &format!("{name}-web-3"), &[&labels[..], &[&image, "sleep", "600"]].concat());
    let (processes, leftovers) = (project.processes(), project.leftovers());
    for args in [
        &["up", "-d"][..],
        &["up"],
        &["down", "-v"],
        &["supervise"],
        &["scale", "web=1"],
        &["up", "--dry-run"],
        &["down", "--dry-run"],
    ] {
        let refused = project.try_run(args);
        assert_eq!(refused.code, Some(1), "{args:?} {refused:#?}");
        let text = &refused.stderr;
        assert!(text.contains("newer sameport") && text.contains("layout 2"), "{args:?} {refused:#?}");
        assert!(text.contains(&newer.name) && text.contains("help: "), "{args:?} {refused:#?}");
    }
    assert!(project.supervisor().is_none());
    assert_eq!((project.processes(), project.leftovers()), (processes, leftovers));
    let ps = project.try_run(&["ps"]);
    assert!(ps.stderr.contains("newer release"), "{ps:#?}");
    drop(newer);
    project.run(&["down", "-v"]);
    assert_eq!(project.leftovers(), Vec::<String>::new());
}

#[test]
fn another_user_of_the_engine_lists_and_removes_what_is_there() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    let filter = format!("name=^{}$", project.name);
    let listed = |finished: Finished| -> Value {
        assert_eq!(finished.code, Some(0), "{finished:#?}");
        serde_json::from_str(&finished.stdout).unwrap()
    };
    let ls = ["ls", "--filter", &filter, "--format", "json"];
    let folder = project.path("").canonicalize().unwrap();
    let supervisor = project.supervisor().unwrap();
    let of = |supervisor: &Value, folder: Option<&Path>, status: &str| {
        let (state, count) = status.trim_end_matches(')').split_once('(').unwrap();
        let count: u64 = count.parse().unwrap();
        serde_json::json!([{
            "name": project.name, "status": status, "folder": folder, "supervised": !supervisor.is_null(),
            "supervisor": supervisor, "enabled": false, "containers": { state: count },
        }])
    };
    let first = listed(project.try_run(&ls));
    let owner = &first[0]["supervisor"];
    assert_eq!(
        (&owner["pid"], &owner["user_name"]),
        (&supervisor.as_raw().into(), &"root".into()),
        "{first}"
    );
    assert_eq!(first, of(owner, Some(&folder), "running(2)"));
    project.kill_supervisor();
    // Who has applied it remembers the folder; to others only its supervisor could tell it.
    assert_eq!(listed(project.try_run(&ls)), of(&Value::Null, Some(&folder), "running(2)"));
    assert_eq!(listed(of_another_user(&project, &ls)), of(&Value::Null, None, "running(2)"));
    let table = of_another_user(&project, &["ls", "--filter", &filter]);
    assert!(table.stdout.contains("running(2)"), "{table:#?}");
    project.run(&["stop"]);
    assert_eq!(listed(of_another_user(&project, &ls)), serde_json::json!([]));
    let all = of_another_user(&project, &["ls", "-a", "-q", "--filter", &filter]);
    assert_eq!(all.stdout.trim(), project.name);

    let down = of_another_user(&project, &["down", "-v"]);
    assert_eq!(down.code, Some(0), "{down:#?}");
    assert_eq!(project.leftovers(), Vec::<String>::new());
    assert_eq!(
        listed(of_another_user(&project, &["ls", "-a", "--filter", &filter, "--format", "json"])),
        serde_json::json!([])
    );
}

/// The containers are made by hand as that release made them: without a nonce, and with the labels that it knew.
#[test]
fn what_an_earlier_release_made_is_adopted_without_a_restart() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    let (docker, name) = (&project.docker, &project.name);
    let sandbox = format!("{name}-web-sandbox");
    let new = [Labels::LAYOUT, Labels::NONCE, Labels::HOOKS];
    let early = |container: &str| copied(docker, container, &new);
    let labels: Vec<_> =
        [1, 2].map(|slot| (slot, early(&format!("{name}-web-{slot}")))).into_iter().collect();
    let of_sandbox: Vec<_> = early(&sandbox).into_iter().filter(|label| !label.ends_with('=')).collect();
    let box_image = docker.inspect(&sandbox)["Config"]["Image"].as_str().unwrap().to_owned();
    project.kill_supervisor();
    // They keep their places in the project's network and volumes; only the containers are made anew.
    docker.remove(&format!("label={}={name}", Labels::PROJECT)).unwrap_or_default();
    let network = Made::network(docker, &format!("{name}_default"), &[format!("{}={name}", Labels::PROJECT)]);
    let port = format!("{}:8080", project.port);
    let more = ["--ipc=shareable", "--read-only", "--cap-drop=ALL", "--sysctl=net.ipv4.tcp_migrate_req=1"];
    let of_sandbox: Vec<_> = of_sandbox.iter().map(String::as_str).collect();
    let network_arg = format!("--network={}", network.name);
    let args = [&of_sandbox[..], &more, &[&network_arg, "-p", &port, &box_image]].concat();
    let _sandbox = Made::container(docker, &sandbox, &args);
    let joined = format!("container:{}", docker.inspect(&sandbox)["Id"].as_str().unwrap());
    let image = project.image("NGINX");
    let _replicas: Vec<_> = labels
        .iter()
        .map(|(slot, labels)| {
            let labels: Vec<_> = labels.iter().map(String::as_str).collect();
            let (network, replica) = (format!("--network={joined}"), format!("REPLICA={slot}"));
            let args = [&labels[..], &[&network, "-e", &replica, &image]].concat();
            Made::container(docker, &format!("{name}-web-{slot}"), &args)
        })
        .collect();
    let processes = project.processes();
    project.run(&["up", "-d", "--wait"]);
    project.serves(2);
    assert_eq!(project.processes(), processes);
    assert_eq!(project.status().foreign_resources, []);
    project.run(&["down"]);
    assert_eq!(project.leftovers(), Vec::<String>::new());
}
