//! From creation to removal, and that what is already so is no error.

use std::time::{Duration, Instant};

use sameport::engine::{ContainerState, Engine, EngineError, RemoveVolumes, Role};
use sameport::spec::{Mount, MountSource, ProjectName, Volume};

use super::workbench::{Workbench, nowhere, shell};

const GRACE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_container_is_made_started_stopped_and_removed_and_each_can_be_said_twice() {
    let bench = Workbench::new().await;
    let line = "trap 'exit 3' TERM; while :; do sleep 0.05; done";
    let create = bench.replica(1, shell(line), nowhere());
    let id = bench.docker.create(&create).await.unwrap();
    assert_eq!(bench.state(&id).await, ContainerState::Created);
    for _ in 0..2 {
        bench.docker.start(&id).await.unwrap();
        assert!(bench.process(&id).await.pid > 1);
    }
    // The shell needs a moment to set its trap.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begin = Instant::now();
    for _ in 0..2 {
        bench.docker.stop(&id, GRACE).await.unwrap();
        assert_eq!(bench.ended(&id).await, 3, "it ended by itself, on its stop signal");
    }
    assert!(begin.elapsed() < GRACE, "it was not killed");
    bench.docker.kill(&id, "SIGKILL").await.unwrap();
    for _ in 0..2 {
        bench.docker.remove(&id, RemoveVolumes::Remove).await.unwrap();
        bench.docker.stop(&id, GRACE).await.unwrap();
    }
    let gone = bench.docker.inspect(&id).await.unwrap_err();
    assert!(matches!(gone, EngineError::Gone { .. }), "{gone:?}");
}

#[tokio::test]
async fn what_ignores_its_stop_signal_is_killed_when_its_time_is_up() {
    let bench = Workbench::new().await;
    let id = bench.shell("trap '' TERM; while :; do sleep 0.05; done").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begin = Instant::now();
    bench.docker.stop(&id, Duration::from_millis(1500)).await.unwrap();
    let took = begin.elapsed();
    assert_eq!(bench.ended(&id).await, 128 + 9);
    // The engine takes whole seconds, so it gets the next one.
    assert!(took >= Duration::from_millis(1500), "{took:?}");
}

#[tokio::test]
async fn a_running_container_can_be_removed() {
    let bench = Workbench::new().await;
    let id = bench.shell("sleep 1000").await;
    bench.docker.remove(&id, RemoveVolumes::Remove).await.unwrap();
    assert_eq!(bench.docker.list(&bench.project).await.unwrap(), []);
}

#[tokio::test]
async fn the_list_holds_the_projects_containers_with_their_labels_and_no_others() {
    let bench = Workbench::new().await;
    let other: ProjectName = format!("{}-other", bench.project).parse().unwrap();
    let ours = bench.shell("sleep 1000").await;
    let mut theirs = bench.replica(2, shell("sleep 1000"), nowhere());
    theirs.labels.project = other.clone();
    let theirs = bench.docker.create(&theirs).await.unwrap();

    let listed = bench.docker.list(&bench.project).await.unwrap();
    assert_eq!(listed.iter().map(|row| &row.id).collect::<Vec<_>>(), [&ours]);
    assert_eq!(listed[0].state, "running");
    let inspected = bench.docker.inspect(&ours).await.unwrap();
    assert_eq!(listed[0].image_id, inspected.image_id);
    assert_eq!(inspected.host.network_mode, "none");
    let owned = bench.containers().await;
    assert_eq!(owned.len(), 1);
    let labels = &owned[0].labels;
    assert!(matches!(&labels.role, Role::Replica { slot, .. } if slot.number() == 1), "{labels:?}");
    let all = bench.docker.list_all().await.unwrap();
    assert!([&ours, &theirs].iter().all(|id| all.iter().any(|row| row.id == **id)), "{all:?}");
    assert_eq!(bench.docker.list(&other).await.unwrap().len(), 1);
    bench.remove(&theirs).await;
}

#[tokio::test]
async fn an_end_is_told_with_its_code_or_signal() {
    let bench = Workbench::new().await;
    let failed = bench.start(&bench.replica(1, shell("exit 42"), nowhere())).await;
    assert_eq!(bench.ended(&failed).await, 42);
    let killed = bench.start(&bench.replica(2, shell("exec sleep 1000"), nowhere())).await;
    bench.docker.kill(&killed, "SIGKILL").await.unwrap();
    assert_eq!(bench.ended(&killed).await, 128 + 9);
}

#[tokio::test]
async fn anonymous_volumes_go_with_their_container_only_if_asked_to() {
    let bench = Workbench::new().await;
    let mut container = shell("sleep 1000");
    container.mounts =
        vec![Mount { target: "/data".to_owned(), source: MountSource::Anonymous, read_only: false }];
    let create = bench.replica(1, container, nowhere());
    for (volumes, stays) in [(RemoveVolumes::Keep, true), (RemoveVolumes::Remove, false)] {
        let id = bench.start(&create).await;
        let told = bench.command.inspect(&id.0);
        let volume = told["Mounts"][0]["Name"].as_str().unwrap().to_owned();
        bench.docker.remove(&id, volumes).await.unwrap();
        assert_eq!(bench.docker.has_volume(&volume).await.unwrap(), stays, "{volumes:?}");
        bench.docker.remove_volume(&volume).await.unwrap();
    }
}

#[tokio::test]
async fn named_volumes_are_the_projects_own_and_removed_once() {
    let bench = Workbench::new().await;
    let volume = Volume {
        driver_opts: [("type", "tmpfs"), ("device", "tmpfs")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        labels: [("color".to_owned(), "green".to_owned())].into(),
        ..Volume::new(bench.name("data"))
    };
    assert!(!bench.docker.has_volume(&volume.name).await.unwrap());
    bench.docker.create_volume(&bench.project, &volume).await.unwrap();
    assert_eq!(bench.resources().await.volumes, std::slice::from_ref(&volume.name));
    let label = bench.command.run(&["volume", "inspect", &volume.name, "-f", "{{.Labels.color}}"]);
    let kind = bench.command.run(&["volume", "inspect", &volume.name, "-f", "{{.Options.type}}"]);
    assert_eq!((label.as_str(), kind.as_str()), ("green", "tmpfs"));
    for _ in 0..2 {
        bench.docker.remove_volume(&volume.name).await.unwrap();
        assert_eq!(bench.resources().await.volumes, [] as [String; 0]);
    }
}
