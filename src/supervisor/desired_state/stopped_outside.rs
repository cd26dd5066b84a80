//! Tells apart replicas that the supervisor stopped from those that were stopped from outside, which stay down until a
//! user starts them.

use jiff::Timestamp;

use super::DesiredState;
use crate::{
    engine::{ContainerId, ContainerState, Role},
    plan::{Action, Container, Observed, Phase, StoppedOutside, Target},
    spec::ServiceName,
};

impl DesiredState {
    /// Whether this supervisor or an earlier one stopped a process.
    #[must_use]
    pub fn is_ended_by_us(&self, id: &ContainerId, started_at: Timestamp) -> bool {
        self.state.ending.get(id) == Some(&started_at)
    }

    /// Records the processes that the actions are about to stop. The engine reports such a stop like one from outside.
    pub fn note_ending(&mut self, actions: &[Action], observed: &Observed) {
        // During `down`, no replica is started again, whoever stopped it.
        if self.desired.phase != Phase::Up {
            return;
        }
        let ending = actions.iter().filter_map(|action| match action {
            Action::Stop { target: Target::PreDeploy(_), .. } => None,
            Action::Stop { id, .. } => {
                Some((id.clone(), observed.containers.get(id).and_then(Container::started_at)?))
            }
            _ => None,
        });
        let mut state = self.state.clone();
        state.ending.retain(|other, _| observed.containers.contains_key(other));
        state.ending.extend(ending);
        self.keep(state);
    }

    /// Processes a stop that the engine reported, at the time `at` of its clock. Returns whether it stopped a replica
    /// that should run; `None` as long as that is not known.
    pub fn note_stopped(&mut self, container: &Container, at: Timestamp) -> Option<bool> {
        let exit = match &container.state {
            ContainerState::Exited(exit) => exit,
            // The exit has not been observed yet.
            ContainerState::Running(process) | ContainerState::Paused(process) if process.started_at < at => {
                return None;
            }
            _ => return Some(false),
        };
        let is_replica = matches!(container.labels.role, Role::Replica { .. });
        let known = self.state.stopped_outside.get(&container.id);
        // Stops during `down` are the supervisor's own, and are not recorded.
        if self.desired.phase != Phase::Up
            || !is_replica
            || exit.started_at >= at
            || exit.finished_at > at
            || self.is_ended_by_us(&container.id, exit.started_at)
            || self.desired.is_superseded(&container.id, exit.started_at)
            || known.is_some_and(|known| known.started_at == exit.started_at)
        {
            return Some(false);
        }
        let mut state = self.state.clone();
        let stopped = StoppedOutside { started_at: exit.started_at, at };
        state.stopped_outside.insert(container.id.clone(), stopped);
        self.keep(state);
        self.desired.stopped_outside.clone_from(&self.state.stopped_outside);
        Some(true)
    }

    /// Drops stops of containers that are gone or have started again.
    pub(super) fn forget_started(&mut self, observed: &Observed) {
        let is_there = |id: &ContainerId, started_at| {
            observed.containers.get(id).is_some_and(|container| container.started_at() == Some(started_at))
        };
        let mut state = self.state.clone();
        state.stopped_outside.retain(|id, stopped| is_there(id, stopped.started_at));
        state.ending.retain(|id, started_at| is_there(id, *started_at));
        self.keep(state);
        self.desired.stopped_outside.clone_from(&self.state.stopped_outside);
    }

    /// A user requested services to run: replicas that were stopped from outside start again.
    pub(super) fn start_stopped(&mut self, is_meant: impl Fn(&ServiceName) -> bool, observed: &Observed) {
        let mut state = self.state.clone();
        let mut started = Vec::new();
        state.stopped_outside.retain(|id, stopped| {
            let role = observed.containers.get(id).map(|container| &container.labels.role);
            let starts = matches!(role, Some(Role::Replica { service, .. }) if is_meant(service));
            if starts {
                started.push((id.clone(), stopped.started_at));
            }
            !starts
        });
        self.keep(state);
        self.desired.superseded.extend(started.into_iter().map(|process| (process, None)));
        self.desired.stopped_outside.clone_from(&self.state.stopped_outside);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Request, StateFile, tests::project},
        *,
    };
    use crate::{
        engine::{Exit, Labels, Process},
        plan::Goal,
        spec::{Generation, Hooks, Limits, Slot},
    };

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn exited(started: i64, finished: i64) -> ContainerState {
        ContainerState::Exited(Exit {
            code: 143,
            out_of_memory: false,
            error: None,
            started_at: second(started),
            finished_at: second(finished),
        })
    }

    fn running(started: i64) -> ContainerState {
        let health = crate::engine::Health::None;
        ContainerState::Running(Process {
            pid: 7,
            started_at: second(started),
            health,
            complaint: None,
            check_error: None,
        })
    }

    fn db(state: ContainerState) -> Container {
        Container {
            id: ContainerId("1f".to_owned()),
            name: "shop-db-1".to_owned(),
            labels: Labels {
                project: "shop".parse().unwrap(),
                pod: "db".parse().unwrap(),
                generation: Generation::from_label("0123456789ab"),
                role: Role::Replica { service: "db".parse().unwrap(), slot: Slot::FIRST },
            },
            joined: None,
            image_id: None,
            hooks: Hooks::default(),
            limits: Limits::default(),
            recreated: false,
            check: None,
            volumes: std::collections::BTreeSet::new(),
            connections: None,
            state,
            since: second(0),
            netns: None,
        }
    }

    fn observed(container: &Container) -> Observed {
        let containers = [(container.id.clone(), container.clone())].into();
        Observed { containers, ..Observed::default() }
    }

    fn desired_state(file: StateFile) -> DesiredState {
        let mut desired_state = DesiredState::new("shop".parse().unwrap(), file).unwrap();
        desired_state.take(Request::Load(Box::new(project())), &Observed::default(), second(0)).unwrap();
        desired_state.desired.goals.insert("db".parse().unwrap(), Goal::Run { replicas: 1 });
        desired_state
    }

    #[test]
    fn a_stop_from_outside_holds_until_the_service_is_requested() {
        let folder = tempfile::tempdir().unwrap();
        let file = || StateFile::at(folder.path().join("shop.json"));
        let mut desired_state = desired_state(file());
        assert_eq!(desired_state.note_stopped(&db(running(10)), second(20)), None, "its end is not seen yet");
        assert_eq!(desired_state.note_stopped(&db(running(30)), second(20)), Some(false), "it runs again");
        assert_eq!(
            desired_state.note_stopped(&db(exited(30, 31)), second(20)),
            Some(false),
            "that was another process"
        );
        let stopped = db(exited(10, 20));
        assert_eq!(desired_state.note_stopped(&stopped, second(20)), Some(true));
        assert_eq!(desired_state.note_stopped(&stopped, second(20)), Some(false), "it is known");
        assert_eq!(desired_state.desired.stopped_outside_since(&stopped), Some(second(20)));
        // The next supervisor knows the stop.
        let mut next = super::super::DesiredState::new("shop".parse().unwrap(), file()).unwrap();
        next.take(Request::Load(Box::new(project())), &observed(&stopped), second(0)).unwrap();
        assert_eq!(next.desired.stopped_outside_since(&stopped), Some(second(20)));
        let counts = [("db".parse().unwrap(), 1)].into();
        next.take(Request::Scale(counts), &observed(&stopped), second(0)).unwrap();
        assert_eq!(next.desired.stopped_outside_since(&stopped), None);
        assert!(next.desired.is_superseded(&stopped.id, second(10)), "it starts again");
        // A new process clears the stop.
        desired_state.catch_up(&mut observed(&db(running(30))));
        assert!(desired_state.desired.stopped_outside.is_empty());
    }

    #[test]
    fn stops_by_the_supervisor_and_during_down_are_not_external() {
        let folder = tempfile::tempdir().unwrap();
        let file = || StateFile::at(folder.path().join("shop.json"));
        let mut desired_state = desired_state(file());
        let (before, after) = (db(running(10)), db(exited(10, 20)));
        let target = Target::Replica("db".parse().unwrap(), Slot::FIRST);
        let stop = Action::Stop { target, id: before.id.clone(), grace: std::time::Duration::ZERO };
        desired_state.note_ending(&[stop], &observed(&before));
        assert_eq!(desired_state.note_stopped(&after, second(20)), Some(false));
        // Also after the supervisor was killed meanwhile.
        let mut next = super::super::DesiredState::new("shop".parse().unwrap(), file()).unwrap();
        assert_eq!(next.note_stopped(&after, second(20)), Some(false));
        let later = db(exited(30, 40));
        next.take(Request::Down { volumes: false, grace: None }, &observed(&later), second(0)).unwrap();
        assert_eq!(next.note_stopped(&later, second(40)), Some(false));
    }
}
