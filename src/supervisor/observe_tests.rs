use std::time::Duration;

use super::*;
use crate::{
    engine::{CreateContainer, Labels, Namespaces, Role, memory::Memory, ownership::ForeignReason},
    spec::{self, Generation, Hook, Hooks, Image, Limits, Project},
};

/// The image of every replica in these tests.
const IMAGE: &str = "app:1";

fn labels(slot: Slot) -> Labels {
    Labels {
        project: "shop".parse().unwrap(),
        pod: "web".parse().unwrap(),
        generation: Generation::from_label("0123456789ab"),
        role: Role::Replica { service: "web".parse().unwrap(), slot },
    }
}

/// Creates and starts a replica.
async fn add(engine: &Memory, slot: Slot, hooks: Hooks) -> ContainerId {
    let create = CreateContainer {
        name: format!("shop-web-{slot}"),
        labels: labels(slot),
        hooks,
        container: spec::Container::new(Image(IMAGE.to_owned())),
        namespaces: Namespaces::Host(Box::default()),
    };
    let id = engine.create(&create).await.unwrap();
    engine.start(&id).await.unwrap();
    id
}

/// An observer without a previous observation.
fn observer(engine: &Memory) -> Observer<Memory> {
    let eyes = engine.clone();
    let netns_of: NetnsOf = Arc::new(move |pid| eyes.world().netns_of(pid));
    let eyes = engine.clone();
    let processes = Arc::new(move |pid, _: &ContainerId| eyes.world().presence(pid));
    Observer::new(Arc::new(engine.clone()), netns_of, processes, Clock::starting_at(Timestamp::UNIX_EPOCH))
}

fn desired() -> Desired {
    Desired::all(Project::empty("shop".parse().unwrap()))
}

async fn look(observer: &mut Observer<Memory>, dirty: &Dirty) -> Snapshot {
    observer.look(&desired(), &Expected::default(), dirty).await.unwrap()
}

/// An engine with this number of replicas of a project, and an observer that has observed them.
async fn watched(replicas: u32) -> (Memory, Observer<Memory>) {
    let engine = Memory::new(Clock::starting_at(Timestamp::UNIX_EPOCH), 1);
    for slot in Slot::first(replicas) {
        add(&engine, slot, Hooks::default()).await;
    }
    let mut observer = observer(&engine);
    look(&mut observer, &Dirty::EVERYTHING).await;
    (engine, observer)
}

#[tokio::test(start_paused = true)]
async fn inspections_in_turn_reach_every_container() {
    let (engine, mut observer) = watched(20).await;
    let changed = Limits { memory: Some(1 << 20), ..Limits::default() };
    let ids: Vec<_> = engine.world().containers().map(|(id, ..)| id.clone()).collect();
    for id in &ids {
        engine.update(id, &changed).await.unwrap();
    }
    for known in [0, 8, 16, 20] {
        let before = engine.world().calls;
        let dirty = Dirty { in_turn: known > 0, ..Dirty::NOTHING };
        let snapshot = look(&mut observer, &dirty).await;
        let news = snapshot.containers.values().filter(|container| container.limits == changed).count();
        assert_eq!(news, known);
        // One of the calls is the list.
        assert_eq!(engine.world().calls - before, if known > 0 { 1 + 8 } else { 1 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_between_two_equal_rows_is_noticed() {
    let (engine, mut observer) = watched(20).await;
    let id = engine.world().containers().map(|(id, ..)| id.clone()).last().unwrap();
    engine.world().exit(&id, 137);
    engine.start(&id).await.unwrap();
    let pid = engine.world().containers().find_map(|(other, _, _, state, _)| match state {
        ContainerState::Running(process) if *other == id => Some(process.pid),
        _ => None,
    });
    let snapshot = look(&mut observer, &Dirty::NOTHING).await;
    assert_eq!(snapshot.containers[&id].process().map(|process| process.pid), pid);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_container_is_reported_and_inspected_once() {
    let (engine, mut observer) = watched(2).await;
    let id = engine.world().containers().map(|(id, ..)| id.clone()).next().unwrap();
    let copies: Vec<_> = ["debug", "shop-web-3", "shop-web-3-next"]
        .map(|name| engine.world().commit_and_run(&id, name).unwrap())
        .to_vec();
    let foreign = |snapshot: &Snapshot| -> Vec<_> {
        snapshot.foreign.iter().filter_map(|f| Some((f.container.clone()?, f.reason.clone()))).collect()
    };
    let wanted: Vec<_> = copies.into_iter().map(|id| (id, ForeignReason::LabelsOfImage)).collect();
    // Each container has an image of its own.
    for calls in [1 + 3, 1, 1] {
        let before = engine.world().calls;
        let snapshot = look(&mut observer, &Dirty::NOTHING).await;
        assert_eq!((snapshot.containers.len(), foreign(&snapshot)), (2, wanted.clone()));
        assert_eq!(engine.world().calls - before, calls);
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_is_inspected_once_for_all_its_replicas() {
    let (engine, _) = watched(20).await;
    let mut observer = observer(&engine);
    let before = engine.world().calls;
    look(&mut observer, &Dirty { all: true, ..Dirty::NOTHING }).await;
    // The list, the image, and each container.
    assert_eq!(engine.world().calls - before, 1 + 1 + 20);
}

#[tokio::test(start_paused = true)]
async fn containers_of_earlier_releases_are_adopted_and_checked_once() {
    let (engine, _) = watched(20).await;
    let ids: Vec<_> = engine.world().containers().map(|(id, ..)| id.clone()).collect();
    ids.iter().for_each(|id| engine.world().make_legacy(id));
    let mut observer = observer(&engine);
    look(&mut observer, &Dirty::EVERYTHING).await;
    let before = engine.world().calls;
    let snapshot = look(&mut observer, &Dirty::NOTHING).await;
    assert_eq!((snapshot.containers.len(), snapshot.foreign.len()), (20, 0));
    assert_eq!(engine.world().calls - before, 1);
    engine.rename(&ids[0], "shop-web-99").await.unwrap();
    let snapshot = look(&mut observer, &Dirty::NOTHING).await;
    assert_eq!((snapshot.containers.len(), snapshot.foreign.len()), (19, 1));
}

#[tokio::test(start_paused = true)]
async fn hooks_of_an_image_are_none_of_its_containers() {
    let hook = |command: &str| Hook {
        command: vec![command.to_owned()],
        user: Some("0".to_owned()),
        privileged: true,
        working_dir: None,
        environment: BTreeMap::new(),
    };
    let hooks = |command| Hooks { post_start: vec![hook(command)], pre_stop: Vec::new() };
    let engine = Memory::new(Clock::starting_at(Timestamp::UNIX_EPOCH), 1);
    let label = serde_json::to_string(&hooks("evil")).unwrap();
    engine.world().label_image(IMAGE, BTreeMap::from([(Labels::HOOKS.to_owned(), label)]));
    let plain = add(&engine, Slot::FIRST, Hooks::default()).await;
    let hooked = add(&engine, Slot::new(2).unwrap(), hooks("good")).await;
    // Earlier releases wrote no label for containers without hooks.
    let legacy = add(&engine, Slot::new(3).unwrap(), Hooks::default()).await;
    engine.world().make_legacy(&legacy);
    let snapshot = look(&mut observer(&engine), &Dirty::EVERYTHING).await;
    let seen = |id| snapshot.containers[id].hooks.clone();
    assert_eq!(seen(&plain), Hooks::default());
    assert_eq!(seen(&hooked), hooks("good"));
    assert_eq!(seen(&legacy), Hooks::default());
}

#[tokio::test(start_paused = true)]
async fn networks_and_volumes_with_copied_labels_are_not_ours() {
    let (engine, mut observer) = watched(0).await;
    let project = "shop".parse().unwrap();
    let labels = Labels::of_resource(&project, "shop_data");
    engine.world().add_foreign_volume("shop_data", labels.clone());
    engine.world().add_foreign_volume("shop_copy", labels);
    let snapshot = look(&mut observer, &Dirty::EVERYTHING).await;
    assert_eq!(snapshot.volumes, BTreeMap::from([("shop_data".to_owned(), Owner::Us)]));
    let foreign: Vec<_> = snapshot.foreign.into_iter().map(|f| (f.name, f.reason)).collect();
    assert_eq!(foreign, [("shop_copy".to_owned(), ForeignReason::CopiedLabels)]);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_the_engine_reports_as_running_is_lost_after_a_second_check() {
    let (engine, mut observer) = watched(3).await;
    let id = engine.world().containers().map(|(id, ..)| id.clone()).next().unwrap();
    engine.world().vanish(&id);
    let dirty = Dirty { containers: BTreeSet::from([id.clone()]), ..Dirty::NOTHING };
    let snapshot = look(&mut observer, &dirty).await;
    assert!(snapshot.containers[&id].process().is_some() && snapshot.lost.is_empty());
    let (again, doubted) = snapshot.again.unwrap();
    assert_eq!(doubted, BTreeSet::from([id.clone()]));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(again <= observer.clock.now());
    // The engine has to confirm it: an observation without an inspection decides nothing.
    let snapshot = look(&mut observer, &Dirty::NOTHING).await;
    assert!(snapshot.containers[&id].process().is_some());
    let snapshot = look(&mut observer, &dirty).await;
    assert_eq!((&snapshot.containers[&id].state, &snapshot.lost), (&ContainerState::Dead, &doubted));
    assert_eq!(snapshot.again, None);
    // The state does not change afterwards, with or without an inspection.
    for dirty in [Dirty::NOTHING, dirty] {
        assert_eq!(look(&mut observer, &dirty).await.containers[&id].state, ContainerState::Dead);
    }
}

#[tokio::test(start_paused = true)]
async fn containers_missing_in_the_list_are_inspected_and_kept_while_they_exist() {
    let (engine, mut observer) = watched(3).await;
    let ids: Vec<_> = engine.world().containers().map(|(id, ..)| id.clone()).collect();
    engine.world().lists_nothing = true;
    let snapshot = look(&mut observer, &Dirty::EVERYTHING).await;
    assert_eq!(snapshot.containers.keys().collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
    assert_eq!(snapshot.unlisted, ids.iter().cloned().collect());
    // One container ended and one was removed; both are noticed.
    engine.world().exit(&ids[0], 1);
    engine.world().remove(&ids[1]);
    let snapshot = look(&mut observer, &Dirty::NOTHING).await;
    assert!(matches!(snapshot.containers[&ids[0]].state, ContainerState::Exited(_)));
    assert!(!snapshot.containers.contains_key(&ids[1]));
    assert_eq!(snapshot.unlisted, BTreeSet::from([ids[2].clone()]));
    // The engine has lost its data and does not know the container, but the process runs.
    engine.world().knows_nothing = true;
    let snapshot = look(&mut observer, &Dirty::NOTHING).await;
    assert_eq!(snapshot.containers.keys().collect::<Vec<_>>(), [&ids[2]]);
    let down = Desired { phase: Phase::Down { volumes: crate::engine::RemoveVolumes::Keep }, ..desired() };
    let snapshot = observer.look(&down, &Expected::default(), &Dirty::NOTHING).await.unwrap();
    assert!(snapshot.containers.is_empty(), "there is nothing that it could still remove");
}

#[tokio::test(start_paused = true)]
async fn an_unlisted_container_whose_process_is_gone_is_gone() {
    let (engine, mut observer) = watched(1).await;
    let id = engine.world().containers().map(|(id, ..)| id.clone()).next().unwrap();
    (engine.world().lists_nothing, engine.world().knows_nothing) = (true, true);
    assert_eq!(look(&mut observer, &Dirty::NOTHING).await.containers.len(), 1);
    engine.world().vanish(&id);
    assert_eq!(look(&mut observer, &Dirty::NOTHING).await.containers.len(), 0);
}
