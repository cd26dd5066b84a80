use std::{collections::BTreeMap, time::Duration};

use super::{super::Selector, *};
use crate::spec::{
    Balance, Container, Dependency, DependencyCondition, Hooks, Image, Pod, PortSet, PullPolicy, Restart,
    Service, Sharing, Slot, Unhealthy,
};

pub(in crate::supervisor) fn service(name: &str, replicas: u32, depends_on: &[&str]) -> Service {
    let dependency = Dependency { condition: DependencyCondition::Started, required: true, restart: false };
    Service {
        name: name.parse().unwrap(),
        pod: name.parse().unwrap(),
        container: Container::new(Image("app:1".to_owned())),
        replicas,
        container_name: None,
        restart: Restart::default(),
        stop_grace: Service::STOP_GRACE,
        depends_on: depends_on.iter().map(|on| (on.parse().unwrap(), dependency)).collect(),
        pull_policy: PullPolicy::Missing,
        sharing: Sharing::Application,
        balance: Balance::default(),
        drain: Service::DRAIN,
        hold: Service::HOLD,
        probe: None,
        unhealthy: Unhealthy::default(),
        hooks: Hooks::default(),
        pre_deploy: None,
        update: crate::spec::Update::default(),
        rollback: crate::spec::Update::default(),
        canary: None,
        exclusive_ports: PortSet::default(),
        shared_ports: PortSet::default(),
    }
}

/// `web` depends on `db`; `jobs` has no dependencies.
pub(super) fn project() -> Project {
    let services: BTreeMap<_, _> =
        [service("db", 1, &[]), service("jobs", 1, &[]), service("web", 2, &["db"])]
            .into_iter()
            .map(|service| (service.name.clone(), service))
            .collect();
    Project {
        name: "shop".parse().unwrap(),
        pods: services.values().map(|s| (s.pod.clone(), Pod::default())).collect(),
        services: services.into(),
        networks: BTreeMap::new(),
        volumes: BTreeMap::new(),
    }
}

fn apply(project: Project) -> Apply {
    Apply::all(project, "test")
}

fn name(name: &str) -> ServiceName {
    name.parse().unwrap()
}

/// The desired state of a supervisor that can be killed and restarted.
struct User {
    folder: tempfile::TempDir,
    desired_state: DesiredState,
}

impl User {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let desired_state = Self::desired_state_in(&folder);
        let mut user = Self { folder, desired_state };
        user.asks(Request::Apply(Box::new(apply(project())))).unwrap();
        user
    }

    fn desired_state_in(folder: &tempfile::TempDir) -> DesiredState {
        DesiredState::new(
            name("shop").as_str().parse().unwrap(),
            StateFile::at(folder.path().join("shop.json")),
        )
        .unwrap()
    }

    fn asks(&mut self, request: Request) -> Result<(), Rejection> {
        self.desired_state.take(request, &Observed::default(), jiff::Timestamp::UNIX_EPOCH)
    }

    /// Simulates `kill -9` and an `up` with a file.
    fn reborn_with(mut self, project: Project) -> Self {
        self.desired_state = Self::desired_state_in(&self.folder);
        self.asks(Request::Apply(Box::new(apply(project)))).unwrap();
        self
    }

    fn goals(&self) -> String {
        let goals = self.desired_state.desired.goals.iter().map(|(name, goal)| match goal {
            Goal::Run { replicas } => format!("{name}={replicas}"),
            Goal::Stop => format!("{name} stopped"),
        });
        goals.collect::<Vec<_>>().join(", ")
    }
}

fn scale(service: &str, replicas: u32) -> Request {
    Request::Scale(BTreeMap::from([(name(service), replicas)]))
}

#[test]
fn the_file_sets_the_replica_counts() {
    assert_eq!(User::new().goals(), "db=1, jobs=1, web=2");
}

#[test]
fn a_selection_includes_its_dependencies_only() {
    let mut user = User::new();
    user.desired_state.desired.goals.clear();
    user.asks(Request::Apply(Box::new(Apply { services: vec![name("web")], ..apply(project()) }))).unwrap();
    assert_eq!(user.goals(), "db=1, web=2");
}

#[test]
fn a_scale_survives_the_supervisor_until_the_file_changes_the_count() {
    let mut user = User::new();
    user.asks(scale("web", 5)).unwrap();
    assert_eq!(user.goals(), "db=1, jobs=1, web=5");
    let user = user.reborn_with(project());
    assert_eq!(user.goals(), "db=1, jobs=1, web=5");
    let mut changed = project();
    changed.services.get_mut(&name("web")).unwrap().replicas = 3;
    let user = user.reborn_with(changed);
    assert_eq!(user.goals(), "db=1, jobs=1, web=3");
    assert_eq!(user.reborn_with(project()).goals(), "db=1, jobs=1, web=2");
}

#[test]
fn up_starts_what_was_stopped_and_start_too() {
    let stop = || Request::Stop { services: vec![name("web")], grace: Some(Duration::from_secs(1)) };
    let mut user = User::new();
    user.asks(stop()).unwrap();
    assert_eq!(user.goals(), "db=1, jobs=1, web stopped");
    assert_eq!(user.desired_state.desired.stop_timeouts.get(&name("web")), Some(&Duration::from_secs(1)));
    user.asks(Request::Start { services: vec![name("web")] }).unwrap();
    assert_eq!(user.goals(), "db=1, jobs=1, web=2");
    user.asks(stop()).unwrap();
    assert_eq!(user.reborn_with(project()).goals(), "db=1, jobs=1, web=2");
}

#[test]
fn restart_runs_a_stopped_service_again() {
    let mut user = User::new();
    user.asks(Request::Stop { services: Vec::new(), grace: None }).unwrap();
    assert_eq!(user.goals(), "db stopped, jobs stopped, web stopped");
    let web = Selector { service: name("web"), slot: None };
    user.asks(Request::Restart { replicas: vec![web], grace: None }).unwrap();
    assert_eq!(user.goals(), "db stopped, jobs stopped, web=2");
}

#[test]
fn an_impossible_request_changes_nothing() {
    let mut user = User::new();
    let before = user.goals();
    let missing = user.asks(scale("wbe", 5)).unwrap_err();
    assert_eq!(missing.to_string(), "there is no service `wbe`; the file has db, jobs, web");
    let slot = Selector { service: name("web"), slot: Slot::new(9) };
    let missing = user.asks(Request::Restart { replicas: vec![slot], grace: None }).unwrap_err();
    assert_eq!(missing.to_string(), "service `web` has no replica 9");
    let mut named = project();
    named.services.get_mut(&name("web")).unwrap().container_name = Some("web".to_owned());
    user.asks(Request::Apply(Box::new(apply(named)))).unwrap();
    let fixed = user.asks(scale("web", 2)).unwrap_err();
    assert_eq!(fixed, Rejection::FixedName { service: name("web") });
    assert_eq!(user.goals(), before);
}

/// Makes writing the state fail until the returned folder is removed.
fn obstruct(folder: &tempfile::TempDir) -> PathBuf {
    // The state is first written to a new file in the same folder.
    let beside = folder.path().join("shop.json.new");
    std::fs::create_dir(&beside).unwrap();
    beside
}

#[test]
fn a_request_that_cannot_be_stored_is_refused() {
    let mut user = User::new();
    obstruct(&user.folder);
    let refused = user.asks(scale("web", 5)).unwrap_err();
    assert!(matches!(refused, Rejection::NotSaved { .. }), "{refused:?}");
    assert_eq!(user.goals(), "db=1, jobs=1, web=2");
}

#[test]
fn a_changed_file_is_applied_on_a_full_disk_and_the_state_is_saved_later() {
    let User { folder, mut desired_state } = User::new();
    let obstacle = obstruct(&folder);
    let up = Apply { scale: BTreeMap::from([(name("web"), 3)]), ..apply(project()) };
    desired_state
        .take(Request::Apply(Box::new(up)), &Observed::default(), jiff::Timestamp::UNIX_EPOCH)
        .unwrap();
    let unsaved = desired_state.unsaved().unwrap();
    assert_eq!(unsaved.path, folder.path().join("shop.json"));
    assert!(unsaved.reason.contains("Is a directory"), "{}", unsaved.reason);
    desired_state.save_again();
    assert!(desired_state.unsaved().is_some());
    std::fs::remove_dir(obstacle).unwrap();
    desired_state.save_again();
    assert_eq!(desired_state.unsaved(), None);
    drop(desired_state);
    let mut desired_state = User::desired_state_in(&folder);
    let again = Request::Apply(Box::new(apply(project())));
    desired_state.take(again, &Observed::default(), jiff::Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(User { folder, desired_state }.goals(), "db=1, jobs=1, web=3");
}

#[test]
fn a_removed_folder_is_recreated_for_the_state() {
    let mut user = User::new();
    std::fs::remove_dir_all(user.folder.path()).unwrap();
    user.asks(scale("web", 5)).unwrap();
    assert_eq!(user.reborn_with(project()).goals(), "db=1, jobs=1, web=5");
}

#[test]
fn an_unchanged_file_needs_no_disk_space() {
    let mut user = User::new();
    user.asks(scale("web", 5)).unwrap();
    let User { folder, desired_state: _ } = user;
    let mut desired_state = User::desired_state_in(&folder);
    obstruct(&folder);
    let asked = Request::Apply(Box::new(apply(project())));
    desired_state.take(asked, &Observed::default(), jiff::Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(User { folder, desired_state }.goals(), "db=1, jobs=1, web=5");
}

#[test]
fn the_maximum_of_replicas_holds_for_requests_too() {
    let mut user = User::new();
    let before = user.goals();
    let mut large = project();
    large.services.get_mut(&name("web")).unwrap().replicas = 1001;
    let up = Apply { scale: BTreeMap::from([(name("web"), u32::MAX)]), ..apply(project()) };
    for request in [
        scale("web", 1001),
        Request::Apply(Box::new(up)),
        Request::Apply(Box::new(apply(large.clone()))),
        Request::Load(Box::new(large)),
    ] {
        let refused = user.asks(request).unwrap_err();
        assert!(matches!(refused, Rejection::TooMany { most: 1000, .. }), "{refused:?}");
        assert_eq!(user.goals(), before);
    }
    user.asks(scale("web", 1000)).unwrap();
}

#[test]
fn an_impossible_count_in_the_state_file_is_ignored() {
    let user = User::new();
    let file = StateFile::at(user.folder.path().join("shop.json"));
    let scale = BTreeMap::from([(name("web"), Scale { file: 2, replicas: u32::MAX })]);
    file.save(&State { scale, ..file.load().unwrap().state }).unwrap();
    assert_eq!(user.reborn_with(project()).goals(), "db=1, jobs=1, web=2");
}

#[test]
fn while_it_goes_down_no_other_request_is_accepted() {
    let mut user = User::new();
    user.asks(Request::Down { volumes: false, grace: None }).unwrap();
    assert_eq!(user.asks(scale("web", 5)).unwrap_err(), Rejection::GoingDown);
    user.asks(Request::Down { volumes: true, grace: None }).unwrap();
    assert_eq!(user.desired_state.desired.phase, Phase::Down { volumes: RemoveVolumes::Remove });
}

#[test]
fn a_stop_that_ends_the_supervisor_cannot_be_undone() {
    let mut user = User::new();
    user.asks(Request::Close { grace: None }).unwrap();
    let web = || Selector { service: name("web"), slot: None };
    for request in [
        scale("web", 5),
        Request::Apply(Box::new(apply(project()))),
        Request::Load(Box::new(project())),
        Request::Start { services: Vec::new() },
        Request::Restart { replicas: vec![web()], grace: None },
    ] {
        assert_eq!(user.asks(request).unwrap_err(), Rejection::Closing);
        assert_eq!(user.goals(), "db stopped, jobs stopped, web stopped");
    }
    // A second `Close` and a `Down` are accepted.
    user.asks(Request::Close { grace: Some(Duration::ZERO) }).unwrap();
    user.asks(Request::Down { volumes: false, grace: None }).unwrap();
    // The next supervisor starts the services again.
    assert_eq!(user.reborn_with(project()).goals(), "db=1, jobs=1, web=2");
}

#[test]
fn down_clears_the_state() {
    let mut user = User::new();
    user.asks(scale("web", 5)).unwrap();
    user.desired_state.forget().unwrap();
    assert_eq!(user.reborn_with(project()).goals(), "db=1, jobs=1, web=2");
}

/// A supervisor in the background observes the engine before `up` sends its request.
#[test]
fn an_observation_before_the_first_request_drops_no_pending_restart() {
    let user = User::new();
    let file = StateFile::at(user.folder.path().join("shop.json"));
    let due = BTreeSet::from([name("web")]);
    file.save(&State { restart_after: due.clone(), ..file.load().unwrap().state }).unwrap();
    let mut desired_state = User::desired_state_in(&user.folder);
    let now = jiff::Timestamp::UNIX_EPOCH;
    desired_state.take(Request::Load(Box::new(project())), &Observed::default(), now).unwrap();
    desired_state.catch_up(&mut Observed::default());
    assert_eq!(file.load().unwrap().state.restart_after, due);
    desired_state.take(Request::Apply(Box::new(apply(project()))), &Observed::default(), now).unwrap();
    desired_state
        .take(Request::Stop { services: vec![name("web")], grace: None }, &Observed::default(), now)
        .unwrap();
    desired_state.catch_up(&mut Observed::default());
    assert_eq!(file.load().unwrap().state.restart_after, BTreeSet::new(), "nobody of it runs");
}

#[test]
fn resume_restores_the_last_desired_state_and_applies_nothing() {
    let mut user = User::new();
    user.asks(Request::Scale(BTreeMap::from([(name("web"), 5)]))).unwrap();
    user.asks(Request::Stop { services: vec![name("jobs")], grace: None }).unwrap();
    let before = user.desired_state.state.versions.clone();

    // Meanwhile the file was changed, or a variable in it was unset, and a service was added.
    let mut changed = project();
    for service in changed.services.values_mut() {
        service.container.image = Image("app:".to_owned());
    }
    let new = service("new", 1, &[]);
    changed.services.insert(new.name.clone(), new);
    let mut desired_state = User::desired_state_in(&user.folder);
    desired_state
        .take(Request::Resume(Box::new(changed)), &Observed::default(), Timestamp::UNIX_EPOCH)
        .unwrap();

    assert_eq!(desired_state.desired.goals.get(&name("web")), Some(&Goal::Run { replicas: 5 }));
    assert_eq!(desired_state.desired.goals.get(&name("db")), Some(&Goal::Run { replicas: 1 }));
    assert_eq!(desired_state.desired.goals.get(&name("jobs")), Some(&Goal::Stop));
    assert_eq!(desired_state.desired.goals.get(&name("new")), None);
    assert!(desired_state.desired.rollouts.is_empty() && desired_state.state.versions == before);
    let web = &desired_state.desired.project.services[&name("web")];
    assert_eq!(web.container.image, Image("app:1".to_owned()));
}

#[test]
fn the_variables_of_the_last_apply_are_remembered() {
    let mut user = User::new();
    let variables = BTreeSet::from(["TAG".to_owned()]);
    let with_tag = Apply { variables: variables.clone(), ..apply(project()) };
    user.asks(Request::Apply(Box::new(with_tag))).unwrap();
    assert_eq!(User::desired_state_in(&user.folder).state.variables, variables);
}
