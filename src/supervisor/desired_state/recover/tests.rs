use std::collections::BTreeMap;

use super::*;
use crate::{
    engine::{ContainerState, Exit, Health, Labels, Process, Role},
    spec::{Hook, Hooks, Limits, PreDeploy, Slot},
    supervisor::{
        Apply, Request,
        desired_state::tests::{project, service},
        state_file::{State, StateFile},
    },
};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn hook() -> Hook {
    Hook {
        command: vec!["warm".to_owned()],
        user: None,
        privileged: false,
        working_dir: None,
        environment: BTreeMap::new(),
    }
}

fn running() -> ContainerState {
    ContainerState::Running(Process {
        pid: 1,
        started_at: NOW,
        health: Health::None,
        complaint: None,
        check_error: None,
    })
}

fn ended() -> ContainerState {
    let exit = Exit { code: 0, out_of_memory: false, error: None, started_at: NOW, finished_at: NOW };
    ContainerState::Exited(exit)
}

fn replica(service: &Service, slot: u32, generation: Generation, state: ContainerState) -> Container {
    let name = format!("{}-{slot}-{generation}", service.name);
    Container {
        id: ContainerId(name.clone()),
        name,
        labels: Labels {
            project: "shop".parse().unwrap(),
            pod: service.pod.clone(),
            generation,
            role: Role::Replica { service: service.name.clone(), slot: Slot::new(slot).unwrap() },
        },
        joined: None,
        image_id: Some("sha256:1".to_owned()),
        hooks: service.hooks.clone(),
        limits: Limits::default(),
        recreated: false,
        check: None,
        volumes: std::collections::BTreeSet::new(),
        connections: None,
        state,
        since: NOW,
        netns: None,
    }
}

fn observed(containers: impl IntoIterator<Item = Container>) -> Observed {
    let containers = containers.into_iter().map(|container| (container.id.clone(), container)).collect();
    Observed { containers, ..Observed::default() }
}

/// A project with only `web`, two replicas in the file.
fn shop(web: Service) -> Project {
    let mut shop = project();
    shop.services.retain(|name, _| *name == web.name);
    shop.services.insert(web.name.clone(), web);
    shop
}

fn web() -> Service {
    service("web", 2, &[])
}

fn old() -> Generation {
    Generation::from_label("0123456789ab")
}

#[test]
fn as_many_replicas_are_kept_as_there_are() {
    let named = Service { container_name: Some("web".to_owned()), replicas: 1, ..web() };
    for (case, service, slots, kept) in [
        ("nothing is there yet", web(), vec![], None),
        ("as the file says", web(), vec![1, 2], None),
        ("more", web(), vec![1, 2, 3, 4], Some(4)),
        ("fewer", web(), vec![1], Some(1)),
        ("one is gone", web(), vec![1, 4], Some(4)),
        ("one was removed by hand", web(), vec![2], None),
        ("more than a name can be given to", named, vec![1, 2], None),
        ("more than there can be", web(), vec![1, 5000], Some(1000)),
    ] {
        for state in [running(), ended()] {
            let there = slots.iter().map(|slot| replica(&service, *slot, old(), state.clone()));
            let found = recover(&shop(service.clone()), &observed(there), NOW);
            let scale =
                kept.map(|replicas| (service.name.clone(), Scale { file: service.replicas, replicas }));
            assert_eq!(found.scale, scale.into_iter().collect(), "{case}");
        }
    }
}

#[test]
fn two_versions_in_a_slot_are_one_replica() {
    let there = [(1, web().generation()), (1, old()), (2, old())];
    let there = there.map(|(slot, generation)| replica(&web(), slot, generation, running()));
    assert_eq!(recover(&shop(web()), &observed(there), NOW).scale, BTreeMap::new());
}

#[test]
fn the_running_version_is_recovered_even_if_its_image_changed() {
    let mut with_id = web();
    with_id.container.image_id = Some("sha256:1".to_owned());
    let mut with_other_id = web();
    with_other_id.container.image_id = Some("sha256:2".to_owned());
    for (case, file, runs, known) in [
        ("the same", web(), web().generation(), Some(None)),
        ("with the image that it was made of", web(), with_id.generation(), Some(Some("sha256:1"))),
        ("the tag has moved", with_other_id, with_id.generation(), Some(Some("sha256:1"))),
        ("another version", web(), old(), None),
    ] {
        let there = [replica(&web(), 1, runs, running())];
        let found = recover(&shop(file), &observed(there), NOW).versions;
        let found = found.values().next().map(|versions| {
            let revision = versions.revision(versions.stable).unwrap();
            assert_eq!((versions.revisions.len(), revision.number), (1, 1), "{case}");
            revision.service.container.image_id.clone()
        });
        assert_eq!(found.as_ref().map(|id| id.as_deref()), known, "{case}");
    }
}

#[test]
fn a_job_does_not_run_again_for_a_version_that_has_a_replica() {
    let before = PreDeploy {
        command: vec!["migrate".to_owned()],
        image: None,
        environment: BTreeMap::new(),
        timeout: PreDeploy::TIMEOUT,
    };
    let with_job = Service { pre_deploy: Some(before), ..web() };
    let wanted = with_job.generation();
    for (case, service, there, done) in [
        ("no job", web(), vec![wanted.clone()], None),
        ("no replica", with_job.clone(), vec![], None),
        ("the file's version", with_job.clone(), vec![wanted.clone()], Some(&wanted)),
        ("an older one", with_job.clone(), vec![old()], Some(&old())),
        ("both", with_job.clone(), vec![old(), wanted.clone()], Some(&wanted)),
    ] {
        let there = there.into_iter().map(|generation| replica(&service, 1, generation, running()));
        let found = recover(&shop(service.clone()), &observed(there), NOW).done_before;
        assert_eq!(found.values().next(), done, "{case}");
    }
}

#[test]
fn hooks_do_not_run_again_in_a_process_that_is_there() {
    let hooked = Service { hooks: Hooks { post_start: vec![hook()], pre_stop: Vec::new() }, ..web() };
    let there = [
        replica(&hooked, 1, old(), running()),
        replica(&hooked, 2, old(), ended()),
        replica(&service("db", 1, &[]), 1, old(), running()),
    ];
    let found = recover(&shop(hooked), &observed(there.clone()), NOW).post_start;
    let progress = PostStart { started_at: NOW, phase: HookPhase::Done };
    assert_eq!(found, BTreeMap::from([(there[0].id.clone(), progress)]));
}

/// A supervisor that found a damaged state file, and four replicas of `web`.
struct Scene {
    folder: tempfile::TempDir,
    desired_state: DesiredState,
    observed: Observed,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("shop.json"), "{").unwrap();
        let desired_state = DesiredState::new("shop".parse().unwrap(), Self::file(&folder)).unwrap();
        let there = (1..=4).map(|slot| replica(&web(), slot, web().generation(), running()));
        Self { folder, desired_state, observed: observed(there) }
    }

    fn file(folder: &tempfile::TempDir) -> StateFile {
        StateFile::at(folder.path().join("shop.json"))
    }

    fn asks(&mut self, request: Request) {
        self.desired_state.take(request, &self.observed, NOW).unwrap();
    }

    fn recover(&mut self) -> StateReset {
        assert!(self.desired_state.awaits_recovery());
        let reset = self.desired_state.recover(&mut self.observed, NOW).unwrap();
        assert!(!self.desired_state.awaits_recovery());
        assert_eq!(self.desired_state.recover(&mut self.observed, NOW), None);
        reset
    }

    fn replicas(&self) -> Option<Goal> {
        self.desired_state.desired.goals.get(&web().name).copied()
    }

    fn kept(&self) -> State {
        Self::file(&self.folder).load().unwrap().state
    }
}

fn apply() -> Request {
    Request::Apply(Box::new(Apply::all(shop(web()), "test")))
}

#[test]
fn recovery_stops_no_replica_before_or_after_up() {
    for first in ["load", "up"] {
        let mut scene = Scene::new();
        assert!(!scene.desired_state.awaits_recovery(), "nothing is known of the file yet");
        scene.asks(if first == "up" { apply() } else { Request::Load(Box::new(shop(web()))) });
        let reset = scene.recover();
        assert_eq!(reset.scale, BTreeMap::from([(web().name, 4)]));
        scene.asks(apply());
        assert_eq!(scene.replicas(), Some(Goal::Run { replicas: 4 }), "{first}");
        let kept = scene.kept();
        assert_eq!(kept.scale[&web().name], Scale { file: 2, replicas: 4 }, "{first}");
        assert_eq!(kept.versions[&web().name].stable, 1, "{first}");
    }
}

#[test]
fn requests_before_the_first_observation_take_precedence() {
    let mut scene = Scene::new();
    scene.asks(Request::Load(Box::new(shop(web()))));
    scene.asks(Request::Scale(BTreeMap::from([(web().name, 3)])));
    assert_eq!(scene.recover().scale, BTreeMap::new());
    assert_eq!(scene.replicas(), Some(Goal::Run { replicas: 3 }));
}

#[test]
fn down_needs_no_file() {
    let mut scene = Scene::new();
    scene.asks(Request::Down { volumes: false, grace: None });
    assert_eq!(scene.recover().scale, BTreeMap::new());
}

#[test]
fn an_observation_does_not_change_a_damaged_file() {
    let mut scene = Scene::new();
    scene.desired_state = scene.desired_state.simulated();
    scene.desired_state.restore(shop(web()));
    scene.recover();
    assert_eq!(scene.replicas(), Some(Goal::Run { replicas: 4 }));
    assert_eq!(std::fs::read_to_string(scene.folder.path().join("shop.json")).unwrap(), "{");
}

#[test]
fn the_message_says_what_was_recovered_and_what_was_lost() {
    let mut scene = Scene::new();
    scene.desired_state.put_damage_aside().unwrap();
    scene.asks(Request::Load(Box::new(shop(web()))));
    let told = scene.recover().to_string();
    let told = told.replace(&*scene.folder.path().to_string_lossy(), "/state");
    insta::assert_snapshot!(told, @r"
    the state file /state/shop.json was damaged: it ends too early: EOF while parsing an object at line 1 column 1
      it was moved to /state/shop.json.bad, and the state was rebuilt from the containers
      recovered: scale web=4
      recovered: current version of web
      lost: weights, stopped services, earlier versions, rollouts in progress, and rollbacks: a version that failed may be rolled out again
    ");
    assert!(scene.folder.path().join("shop.json.bad").exists());
}
