//! Starts observations of the engine, and processes their results.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    super::{
        EventKind,
        observe::{Dirty, Snapshot},
        pre_deploy, watch,
    },
    LATE, LOOK_PAUSE, RESYNC, RETRY_PAUSE, Supervisor, Task,
};
use crate::{
    engine::{ContainerId, Engine, EngineError, EngineEvent, Role},
    plan::{Container, Doubt, Observed, SharedFile, Target},
};

impl<E: Engine> Supervisor<E> {
    /// Starts an observation if there is a reason and none is in progress.
    pub(super) fn look(&mut self) {
        let now = Instant::now();
        if now >= self.resync_at {
            self.dirty.in_turn = true;
            self.dirty.resources = true;
            self.resync_at = now + RESYNC;
        }
        if let Some((_, doubted)) = self.doubted.take_if(|(time, _)| *time <= self.clock.now()) {
            self.dirty.containers.extend(doubted);
        }
        if now < self.look_at || (self.dirty == Dirty::NOTHING && self.ended.is_empty()) {
            return;
        }
        let Some(mut observer) = self.observer.take() else { return };
        let dirty = std::mem::replace(&mut self.dirty, Dirty::NOTHING);
        let settled = std::mem::take(&mut self.ended);
        let (desired, expected) = (self.desired_state.desired.clone(), self.desired_state.expected());
        // Before a file is loaded, resources with names from the file cannot be told apart from foreign ones.
        let knows_names = self.desired_state.knows_names();
        self.looking_since = Some(Instant::now());
        let subscribe = self.events.is_none();
        let engine = Arc::clone(&self.engine);
        self.seen = true;
        self.tasks.spawn(async move {
            let result = async {
                // Subscribe first, so that no event during the observation is lost.
                let events = match subscribe {
                    true => Some(engine.events(&desired.project.name).await?),
                    false => None,
                };
                let dirty = if subscribe { &Dirty::EVERYTHING } else { &dirty };
                let mut snapshot = observer.look(&desired, &expected, dirty).await?;
                if !knows_names {
                    snapshot.foreign.clear();
                }
                Ok((snapshot, events))
            }
            .await;
            Task::Looked { observer, settled, result }
        });
    }

    pub(super) fn ended(&mut self, task: Task<E>) {
        match task {
            Task::Looked { observer, settled, result } => {
                self.observer = Some(observer);
                // Report a slow engine once, not for each observation.
                let in_time = !self.is_late();
                self.looking_since = None;
                match result {
                    Ok((snapshot, events)) => {
                        if in_time && std::mem::replace(&mut self.told_silent, false) {
                            self.journal.record(self.clock.now(), EventKind::EngineReachable);
                        }
                        self.look_at = Instant::now() + LOOK_PAUSE;
                        self.events = events.or(self.events.take());
                        self.saw(snapshot, &settled);
                    }
                    Err(error) => {
                        self.look_at = Instant::now() + RETRY_PAUSE;
                        self.dirty = Dirty::EVERYTHING;
                        self.ended.extend(settled);
                        self.lost(&error);
                    }
                }
            }
            Task::Acted { action, result } => self.acted(&action, result),
            Task::Kept { images, result } => self.kept_images.ended(images, result),
            Task::TerminationReport(told) => {
                let history = self.observed.history.entry(told.target).or_default();
                let events = match told.excuse {
                    Some(excuse) if history.excuse(&excuse.container, excuse.started_at) => {
                        vec![excuse.event]
                    }
                    _ => {
                        history.last_termination = Some(told.last_termination);
                        told.events
                    }
                };
                events.into_iter().for_each(|event| self.journal.record(event.time, event.kind));
            }
        }
    }

    fn lost(&mut self, error: &EngineError) {
        self.events_lost |= self.events.take().is_some();
        self.reachable = false;
        self.silent(error.to_string());
    }

    /// When the engine last answered, if it is unreachable or late.
    pub(super) fn silent_since(&self) -> Option<Timestamp> {
        (!self.reachable || self.is_late()).then_some(self.answered_at)
    }

    /// Whether the observation in progress takes too long.
    fn is_late(&self) -> bool {
        self.looking_since.is_some_and(|since| since.elapsed() >= LATE)
    }

    /// Reports an observation that takes too long. It fails only after the timeout of the engine client.
    pub(super) fn tell_of_silence(&mut self) {
        if self.is_late() {
            self.silent(format!("no answer within {} s", LATE.as_secs()));
        }
    }

    fn silent(&mut self, reason: String) {
        if !std::mem::replace(&mut self.told_silent, true) {
            self.journal.record(self.clock.now(), EventKind::EngineUnreachable { reason });
        }
    }

    fn saw(&mut self, snapshot: Snapshot, settled: &BTreeSet<Target>) {
        let now = self.clock.now();
        self.answered_at = now;
        self.reachable = true;
        let before = std::mem::replace(&mut self.observed.containers, snapshot.containers.into());
        if self.desired_state.awaits_recovery()
            && let Some(reset) = self.desired_state.recover(&mut self.observed, now)
        {
            self.journal.record(now, EventKind::StateReset { reset });
        }
        self.follow_promoted(&before);
        self.probes.see(&self.desired_state.desired, &mut self.observed);
        self.observed.networks = snapshot.networks;
        self.observed.volumes = snapshot.volumes;
        self.observed.foreign = snapshot.foreign;
        self.doubted = snapshot.again;
        self.tell_of_foreign(now);
        self.tell_of_unlisted(snapshot.unlisted, now);
        self.tell_of_recreated(&before, now);
        for id in snapshot.lost {
            if before.get(&id).is_some_and(|before| before.process().is_some())
                && let Some(container) = self.observed.containers.get(&id)
            {
                let target = self.desired_state.desired.target_of(container);
                self.journal.record(now, EventKind::ProcessLost { target });
            }
        }
        self.observed.busy.retain(|target, _| !settled.contains(target));
        self.desired_state.catch_up(&mut self.observed);
        self.steered(None);
        self.note_stops(now);
        let seen = watch::compare(&self.desired_state.desired, &before, &mut self.observed);
        for kind in seen.events {
            self.journal.record(now, kind);
        }
        for failure in pre_deploy::failures(&self.desired_state.desired, &mut self.observed) {
            let engine = Arc::clone(&self.engine);
            self.tasks.spawn(async move {
                Task::TerminationReport(pre_deploy::last_termination(&*engine, failure, now).await)
            });
        }
        self.look_into(seen.deaths, now);
    }

    fn look_into(&mut self, deaths: Vec<watch::Death>, now: Timestamp) {
        for death in deaths {
            let engine = Arc::clone(&self.engine);
            self.tasks.spawn(async move {
                Task::TerminationReport(watch::last_termination(&*engine, death, now).await)
            });
        }
    }

    /// Records that a container received a signal or a stop from outside: if it ends within `patience`, that may be the
    /// reason.
    fn doubt(&mut self, id: &ContainerId, patience: Duration) {
        let Some(started_at) = self.observed.containers.get(id).and_then(Container::started_at) else {
            return;
        };
        if self.desired_state.is_ended_by_us(id, started_at) {
            return;
        }
        let known = self.observed.doubts.get(id).filter(|known| known.started_at == started_at);
        let patience = known.map_or(patience, |known| known.patience.max(patience));
        self.observed.doubts.insert(id.clone(), Doubt { started_at, patience });
    }

    /// Determines which replicas were stopped from outside.
    fn note_stops(&mut self, now: Timestamp) {
        for (id, at) in std::mem::take(&mut self.stops) {
            let Some(container) = self.observed.containers.get(&id) else { continue };
            match self.desired_state.note_stopped(container, at) {
                None => {
                    self.stops.insert(id, at);
                }
                Some(false) => {}
                Some(true) => {
                    if let Role::Replica { service, slot } = &container.labels.role {
                        let (service, slot) = (service.clone(), *slot);
                        self.journal.record(now, EventKind::StoppedExternally { service, slot, at });
                    }
                }
            }
        }
    }

    /// Processes exits that turned out not to be stops from outside.
    pub(super) fn settle_doubts(&mut self, now: Timestamp) {
        let before = self.observed.doubts.len();
        self.observed.settle_doubts(now);
        if self.observed.doubts.len() != before {
            let deaths = watch::deaths(&self.desired_state.desired, &mut self.observed);
            self.look_into(deaths, now);
        }
    }

    /// Reports each foreign resource once.
    fn tell_of_foreign(&mut self, now: Timestamp) {
        let told = std::mem::take(&mut self.foreign);
        for foreign in &self.observed.foreign {
            if !told.contains(&foreign.key()) {
                self.journal.record(now, EventKind::ForeignResource { foreign: foreign.clone() });
            }
            self.foreign.insert(foreign.key());
        }
    }

    /// Reports replicas whose container was recreated by another program.
    fn tell_of_recreated(&mut self, before: &BTreeMap<ContainerId, Container>, now: Timestamp) {
        for container in self.observed.containers.values() {
            let is_told = before.get(&container.id).is_some_and(|before| before.recreated);
            if let (Role::Replica { service, slot }, true, false) =
                (&container.labels.role, container.recreated, is_told)
            {
                let image = container.image_id.clone().unwrap_or_default();
                let (service, slot) = (service.clone(), *slot);
                self.journal.record(now, EventKind::ContainerRecreated { service, slot, image });
            }
        }
    }

    /// Reports each file that several replicas share, once for as long as they share it.
    pub(super) fn tell_of_shared_files(&mut self, found: BTreeSet<SharedFile>) {
        let known = std::mem::replace(&mut self.observed.shared_files, found);
        for file in self.observed.shared_files.difference(&known) {
            self.journal.record(self.clock.now(), EventKind::SharedFile { file: file.clone() });
        }
    }

    /// Reports running containers that the engine's list lacks, each once.
    fn tell_of_unlisted(&mut self, unlisted: BTreeSet<ContainerId>, now: Timestamp) {
        let names: Vec<_> = unlisted
            .difference(&self.unlisted)
            .filter_map(|id| Some(self.observed.containers.get(id)?.name.clone()))
            .collect();
        if !names.is_empty() {
            self.journal.record(now, EventKind::ContainersUnlisted { containers: names });
        }
        self.unlisted = unlisted;
    }

    /// Moves the history of a replacement to the slot that it took over.
    fn follow_promoted(&mut self, before: &BTreeMap<ContainerId, Container>) {
        let desired = &self.desired_state.desired;
        let moved: Vec<_> = self
            .observed
            .containers
            .iter()
            .filter_map(|(id, container)| {
                let (was, is) = (desired.target_of(before.get(id)?), desired.target_of(container));
                if was == is { None } else { Some((is, self.observed.history.remove(&was)?)) }
            })
            .collect();
        self.observed.history.extend(moved);
        let Observed { containers, busy, history, .. } = &mut self.observed;
        history.retain(|target, _| {
            busy.contains_key(target) || target.container().is_none_or(|id| containers.contains_key(id))
        });
    }

    /// Whether the engine itself may have stopped a container while no event stream was open. It was killed since the
    /// supervisor started, and a container without a sandbox shows no sign of that.
    fn may_be_stopped_by_engine(&self, id: &ContainerId) -> bool {
        self.events_lost
            && self.observed.containers.get(id).is_some_and(|container| container.joined.is_none())
    }

    pub(super) fn happened(&mut self, event: Option<EngineEvent>) {
        match event {
            Some(EngineEvent::Container(id)) => {
                self.dirty.containers.insert(id);
            }
            Some(EngineEvent::Ending { id, patience }) => {
                self.doubt(&id, patience);
                self.dirty.containers.insert(id);
            }
            Some(EngineEvent::Stopped { id, at, is_past }) => {
                if !is_past || !self.may_be_stopped_by_engine(&id) {
                    self.stops.insert(id.clone(), at);
                }
                self.dirty.containers.insert(id);
            }
            // Containers of other projects are reported as well.
            Some(EngineEvent::Connection(id)) if self.observed.containers.contains_key(&id) => {
                self.dirty.containers.insert(id);
            }
            Some(EngineEvent::Connection(_)) => {}
            Some(EngineEvent::Resource) => self.dirty.resources = true,
            None => {
                // The engine was restarted or the stream broke: observe everything and subscribe again.
                self.events = None;
                self.events_lost = true;
                self.dirty = Dirty::EVERYTHING;
                self.look_at = self.look_at.max(Instant::now() + LOOK_PAUSE);
            }
        }
    }
}
