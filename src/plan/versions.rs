//! Which versions a service had, which one has proved itself, and which one it is on its way to. Pure: what is asked and
//! what is found out go in, and [`Versions`] is what is remembered of it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::spec::{FailureAction, Generation, Image, Service, Share};

use super::{Counted, Direction, Failure, Previous, Rollout, RolloutSummary, Strategy};

/// How many versions are remembered.
const KEPT: usize = 10;

/// The versions of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Oldest first.
    pub revisions: Vec<Revision>,
    /// The number of the one that has proved itself, or was the first.
    pub stable: u32,
    /// On its way to another one.
    pub underway: Option<Underway>,
    /// Another one than the file's is wanted, as long as the file does not say something new.
    pub pin: Option<Pin>,
    /// How the last rollout ended.
    pub last: Option<Ended>,
}

/// A version of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number, from 1.
    pub number: u32,
    /// When it was first wanted.
    pub at: Timestamp,
    /// By whom.
    pub by: String,
    /// Why, such as `up` or `undo to 3`.
    pub cause: String,
    /// What it is.
    pub service: Box<Service>,
    /// Whether it was the stable version with a replica that was ready; `None`: a release that did not note it began it.
    pub served: Option<bool>,
    /// How it failed, the last time that it was tried.
    pub failure: Option<Failure>,
}

impl Revision {
    /// Whether it is worth going back to.
    fn is_proved(&self) -> bool {
        self.served != Some(false) && self.failure.is_none()
    }

    /// Whether anything is known of how good it is.
    fn was_tried(&self) -> bool {
        self.served != Some(false) || self.failure.is_some()
    }
}

/// A version that failed, so that another one than what was asked for goes on serving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected<'a> {
    /// Which one.
    pub revision: &'a Revision,
    /// Why.
    pub failure: &'a Failure,
    /// Whether it is what the file says.
    pub is_of_file: bool,
}

impl Rejected<'_> {
    /// What to type to have it tried again as it is.
    #[must_use]
    pub fn retry(&self) -> String {
        let Revision { number, cause, service, .. } = self.revision;
        let (name, image) = (&service.name, &service.container.image);
        match self.is_of_file {
            true => format!("sameport rollout {name}"),
            false if cause.starts_with("undo") => format!("sameport rollout undo {name} --to {number}"),
            false => format!("sameport rollout {name} --image {image}"),
        }
    }
}

/// A rollout that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Underway {
    /// The number of the version that it leads to.
    pub to: u32,
    /// The number of the one that it leads away from.
    pub from: u32,
    /// Why it leads back, if it does.
    pub back: Option<Why>,
    /// Why nothing more is replaced for now.
    pub paused: Option<Why>,
    /// How much traffic goes to the new version, step by step; none: slot after slot is replaced.
    pub steps: Option<Steps>,
    /// When it began.
    pub began: Timestamp,
    /// What had been counted of the connections then, if that is known.
    #[serde(default)]
    pub counted: Option<Counted>,
}

/// Old and new replicas beside each other, and how much the new ones get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    /// How much they get, one after the other. After all of it the old ones go.
    pub shares: Vec<Share>,
    /// How many of them have been left behind.
    pub at: usize,
    /// How long each one lasts, once its replicas have proved themselves; `None`: until somebody says so.
    pub every: Option<std::time::Duration>,
    /// Whether all new replicas come at the first step.
    pub whole: bool,
    /// Whether the file asks for it, which may also end it.
    pub by_file: bool,
}

impl Steps {
    /// New replicas get these shares, one after the other. `whole`: all of them are there from the beginning on.
    #[must_use]
    pub fn of(shares: Vec<Share>, every: Option<std::time::Duration>, whole: bool) -> Self {
        Self { shares, at: 0, every, whole, by_file: false }
    }

    /// The share of the step that it is at.
    #[must_use]
    pub fn share(&self) -> Share {
        self.shares.get(self.at).copied().unwrap_or(Share::ALL)
    }
}

/// Why something is not as a file or a command would have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Somebody wants it.
    Requested,
    /// The new version failed.
    Failed(Box<Failure>),
}

/// A version that is wanted though the file says another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// What the file says.
    pub file: Generation,
    /// The number of the one that is wanted.
    pub revision: u32,
    /// Why.
    pub why: Why,
}

/// How a rollout ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The number of the version that it led to.
    pub to: u32,
    /// When.
    pub at: Timestamp,
    /// The version that failed, and why, if it led back.
    pub failed: Option<(u32, Failure)>,
    /// What became of connections meanwhile, where somebody counts them.
    #[serde(default)]
    pub rollout_summary: Option<RolloutSummary>,
}

/// Who asks for another version, when, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeCause<'a> {
    /// When.
    pub now: Timestamp,
    /// Who.
    pub by: &'a str,
    /// By which command.
    pub cause: &'a str,
}

/// Why a service cannot be brought to another version as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Impossible {
    /// Nothing is on its way.
    #[error("no rollout of it is in progress")]
    NotUnderway,
    /// Nothing is paused.
    #[error("its rollout is not paused")]
    NotPaused,
    /// Nothing is on its way that could be given up.
    #[error("no rollout is in progress")]
    NothingToAbort,
    /// It is on its way back.
    #[error("it is already rolling back to version {to}")]
    GoesBack {
        /// To which one.
        to: u32,
    },
    /// There is none before.
    #[error("there is no earlier version")]
    NoPrevious,
    /// There are some before, and all of them failed or were never ready.
    #[error("no earlier version has served")]
    NoneServed,
    /// There is none of that number.
    #[error("there is no version {number}; there are {}", known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    NoRevision {
        /// Which one was asked for.
        number: u32,
        /// Which ones there are.
        known: Vec<u32>,
    },
    /// The version is there already.
    #[error("it already runs version {number}")]
    AlreadyThere {
        /// Which one.
        number: u32,
    },
    /// Where the kernel does not choose, nobody gets a share.
    #[error("the kernel does not choose among its replicas, so none can get a share of the connections")]
    NotSteered,
    /// Two versions beside each other would write to the same data.
    #[error("both versions would write to {target} at the same time")]
    SharedData {
        /// Where the data is mounted.
        target: String,
    },
}

impl Versions {
    /// The version of a number.
    #[must_use]
    pub fn revision(&self, number: u32) -> Option<&Revision> {
        self.revisions.iter().find(|revision| revision.number == number)
    }

    fn revision_mut(&mut self, number: u32) -> Option<&mut Revision> {
        self.revisions.iter_mut().find(|revision| revision.number == number)
    }

    /// The number of the version that is wanted.
    #[must_use]
    pub fn wanted(&self) -> u32 {
        self.underway.as_ref().map_or(self.stable, |underway| underway.to)
    }

    /// Whether a service of that version has served before, by whatever number.
    #[must_use]
    pub fn has_served(&self, generation: &Generation) -> bool {
        let mut proved = self.revisions.iter().filter(|revision| revision.is_proved());
        proved.any(|revision| revision.service.generation() == *generation)
    }

    /// Whether any version has had a replica that was ready, as far as is known.
    #[must_use]
    pub fn have_ever_served(&self) -> bool {
        self.revisions.iter().any(|revision| revision.served != Some(false))
    }

    /// The service as it is wanted now: the rules of the file, and the container of the version that is wanted.
    #[must_use]
    pub fn service(&self, file: &Service) -> Service {
        self.revision(self.wanted())
            .map_or_else(|| file.clone(), |wanted| file.with_version_of(&wanted.service))
    }

    /// What a plan has to know of the way there; none where there is none.
    #[must_use]
    pub fn rollout(&self, file: &Service, replicas: u32) -> Option<Rollout> {
        let underway = self.underway.as_ref()?;
        let previous = || {
            let stable = self.revision(self.stable)?;
            Some(Previous::from(file.with_version_of(&stable.service)))
        };
        let direction = match underway.back {
            Some(_) => Direction::Back,
            None => Direction::Forward { previous: previous() },
        };
        let strategy = match &underway.steps {
            None => Strategy::Rolling,
            Some(steps) => {
                let share = steps.share();
                let count = if steps.whole { replicas } else { share.of(replicas) };
                Strategy::Beside { replicas: count, share }
            }
        };
        Some(Rollout { direction, paused: underway.paused.is_some(), strategy, began: underway.began })
    }

    /// The image id that the file's image is known by, so that a tag that has moved is no new version.
    #[must_use]
    pub fn known_image(&self, image: &Image) -> Option<&String> {
        let wanted = self.revision(self.wanted())?;
        let known = std::iter::once(wanted).chain(self.revisions.iter().rev());
        known
            .map(|revision| &revision.service.container)
            .find(|container| container.image == *image)
            .and_then(|container| container.image_id.as_ref())
    }

    /// A file is pursued from now on. `again`: also a version that has failed before.
    pub fn apply(&mut self, file: &Service, again: bool, asked: &ChangeCause<'_>) {
        let declared = file.declared();
        if let Some(pin) = &self.pin {
            let is_tried_again = again && matches!(pin.why, Why::Failed(_));
            if pin.file == declared && !is_tried_again {
                return;
            }
            self.pin = None;
        }
        match &file.canary {
            // What another version is put beside comes first.
            Some(canary) if self.is(self.stable, &file.generation()) => {
                let mut other = file.clone();
                other.container.image = canary.image.clone();
                other.container.image_id =
                    canary.image_id.clone().or_else(|| self.known_image(&canary.image).cloned());
                if !self.is(self.wanted(), &other.generation()) {
                    let to = self.add(&other, asked);
                    self.begin(to, asked.now);
                }
                let steps = Steps { by_file: true, ..Steps::of(vec![canary.share], None, false) };
                if let Some(underway) = self.underway.as_mut().filter(|underway| underway.to != self.stable) {
                    underway.steps = Some(steps);
                }
            }
            _ => self.want(file, again, asked),
        }
    }

    fn is(&self, number: u32, generation: &Generation) -> bool {
        self.revision(number).is_some_and(|revision| revision.service.generation() == *generation)
    }

    /// Brings it to a version that may be a new one.
    fn want(&mut self, service: &Service, again: bool, asked: &ChangeCause<'_>) {
        if self.revisions.is_empty() {
            self.stable = self.add(service, asked);
            return;
        }
        let generation = service.generation();
        if self.is(self.wanted(), &generation) {
            if let Some(underway) = &mut self.underway {
                if again && matches!(underway.paused, Some(Why::Failed(_))) {
                    underway.paused = None;
                }
                // What the file had beside the old version it has in its place now.
                underway.steps.take_if(|steps| steps.by_file);
            }
        } else if self.is(self.stable, &generation) {
            self.back(Why::Requested, asked.now);
        } else {
            let to = self.add(service, asked);
            self.begin(to, asked.now);
        }
    }

    fn add(&mut self, service: &Service, asked: &ChangeCause<'_>) -> u32 {
        let number = self.revisions.last().map_or(1, |last| last.number.saturating_add(1));
        self.revisions.push(Revision {
            number,
            at: asked.now,
            by: asked.by.to_owned(),
            cause: asked.cause.to_owned(),
            service: Box::new(service.clone()),
            served: Some(false),
            failure: None,
        });
        let in_use = [self.stable, number, self.wanted()];
        while self.revisions.len() > KEPT
            && let Some(oldest) = self.revisions.iter().position(|r| !in_use.contains(&r.number))
        {
            self.revisions.remove(oldest);
        }
        number
    }

    fn begin(&mut self, to: u32, now: Timestamp) {
        let from = self.stable;
        self.underway =
            Some(Underway { to, from, back: None, paused: None, steps: None, began: now, counted: None });
    }

    /// Goes back to the version that has proved itself.
    fn back(&mut self, why: Why, now: Timestamp) {
        let from = self.wanted();
        let to = self.stable;
        // What became of connections on the way there counts as well.
        let counted = self.underway.as_ref().and_then(|underway| underway.counted);
        self.underway =
            Some(Underway { to, from, back: Some(why), paused: None, steps: None, began: now, counted });
    }

    /// Begins a rollout to a version that the file does not have, or once more to that of the file.
    ///
    /// `image` is another one than the file's; `image_id` is what that one, or else the file's, means by now, if that is
    /// known.
    pub fn start(
        &mut self,
        file: &Service,
        image: Option<Image>,
        image_id: Option<String>,
        steps: Option<Steps>,
        asked: &ChangeCause<'_>,
    ) {
        self.pin = None;
        let mut wanted = file.clone();
        let is_other = image.as_ref().is_some_and(|image| *image != file.container.image);
        let image = image.unwrap_or_else(|| file.container.image.clone());
        wanted.container.image_id = image_id.or_else(|| self.known_image(&image).cloned());
        wanted.container.image = image;
        self.want(&wanted, true, asked);
        if is_other {
            self.pin = Some(Pin { file: file.declared(), revision: self.wanted(), why: Why::Requested });
        }
        if let Some(underway) = &mut self.underway {
            underway.paused = None;
            if underway.back.is_none() {
                underway.steps = steps;
            }
        }
    }

    /// What failed, as long as something else goes on serving for it.
    #[must_use]
    pub fn rejected(&self) -> Option<Rejected<'_>> {
        let Pin { file, why: Why::Failed(failure), .. } = self.pin.as_ref()? else { return None };
        let in_progress = self.underway.as_ref().filter(|underway| underway.back.is_some());
        let ended = || self.last.as_ref()?.failed.as_ref().map(|(number, _)| *number);
        let revision = self.revision(in_progress.map(|underway| underway.from).or_else(ended)?)?;
        Some(Rejected { revision, failure, is_of_file: revision.service.declared() == *file })
    }

    /// A replica of the stable version is ready. Returns whether that is news.
    pub fn note_served(&mut self, is_ready: impl FnOnce(&Generation) -> bool) -> bool {
        let stable = self.stable;
        let revision = self.revisions.iter_mut().find(|revision| revision.number == stable);
        let news = revision
            .filter(|revision| revision.served == Some(false) && is_ready(&revision.service.generation()));
        news.is_some_and(|revision| {
            revision.served = Some(true);
            true
        })
    }

    /// The newest version before the stable one that is another one and has served.
    fn previous(&self) -> Result<u32, Impossible> {
        let current = self.revision(self.stable).map(|revision| revision.service.generation());
        let others = || {
            let before = self.revisions.iter().rev().filter(|revision| revision.number < self.stable);
            before.filter(|revision| Some(revision.service.generation()) != current)
        };
        // The same version may have been tried again since, by another number.
        let is_proved = |revision: &&Revision| {
            let generation = revision.service.generation();
            let mut tries = self.revisions.iter().rev().filter(|other| other.was_tried());
            let last = tries.find(|other| other.service.generation() == generation);
            last.is_some_and(|last| last.is_proved() && !self.ended_for(last.number))
        };
        let found = others().find(is_proved).map(|revision| revision.number);
        found.ok_or(if others().next().is_some() { Impossible::NoneServed } else { Impossible::NoPrevious })
    }

    /// Whether the last rollout ended because of a version. Releases that did not note failures with the version noted that.
    fn ended_for(&self, number: u32) -> bool {
        matches!(&self.last, Some(Ended { failed: Some((failed, _)), .. }) if *failed == number)
    }

    /// Gives up a rollout that has not ended, and goes back to where it came from.
    ///
    /// # Errors
    /// When none is in progress, or where it came from has never served.
    pub fn abort(&mut self, file: &Service, asked: &ChangeCause<'_>) -> Result<(), Impossible> {
        match &self.underway {
            None => return Err(Impossible::NothingToAbort),
            Some(Underway { back: Some(_), to, .. }) => return Err(Impossible::GoesBack { to: *to }),
            Some(_) => {}
        }
        if !self.revision(self.stable).is_some_and(Revision::is_proved) {
            return Err(Impossible::NoneServed);
        }
        self.back(Why::Requested, asked.now);
        self.pin = Some(Pin { file: file.declared(), revision: self.stable, why: Why::Requested });
        Ok(())
    }

    /// Goes back: from a rollout that has not ended to where it came from; else to the last version before that has
    /// served, or to that of a number, whatever became of it.
    ///
    /// # Errors
    /// When there is none.
    pub fn undo(
        &mut self,
        file: &Service,
        to: Option<u32>,
        asked: &ChangeCause<'_>,
    ) -> Result<(), Impossible> {
        let is_under_way = self.underway.as_ref().is_some_and(|underway| underway.back.is_none());
        let target = match to {
            Some(number) => number,
            None if is_under_way => return self.abort(file, asked),
            None => self.previous()?,
        };
        let known = || self.revisions.iter().map(|revision| revision.number).collect();
        let Some(revision) = self.revision(target).cloned() else {
            return Err(Impossible::NoRevision { number: target, known: known() });
        };
        if target == self.wanted() {
            return Err(Impossible::AlreadyThere { number: target });
        }
        if target == self.stable {
            self.back(Why::Requested, asked.now);
        } else {
            self.want(&revision.service, true, asked);
        }
        self.pin = Some(Pin { file: file.declared(), revision: self.wanted(), why: Why::Requested });
        Ok(())
    }

    /// Nothing more is replaced until it is resumed.
    ///
    /// # Errors
    /// When nothing is.
    pub fn pause(&mut self) -> Result<(), Impossible> {
        let underway = self.underway.as_mut().ok_or(Impossible::NotUnderway)?;
        underway.paused.get_or_insert(Why::Requested);
        Ok(())
    }

    /// Goes on, also after a failure.
    ///
    /// # Errors
    /// When it is not paused.
    pub fn resume(&mut self) -> Result<(), Impossible> {
        let underway = self.underway.as_mut().ok_or(Impossible::NotUnderway)?;
        underway.paused.take().map(|_| ()).ok_or(Impossible::NotPaused)
    }

    /// The new version, which had a part of the traffic, gets all of it: the old replicas go.
    ///
    /// # Errors
    /// When there is none.
    pub fn promote(&mut self) -> Result<(), Impossible> {
        let underway = self.underway.as_mut().filter(|underway| underway.steps.is_some());
        let underway = underway.ok_or(Impossible::NotUnderway)?;
        underway.steps = None;
        underway.paused = None;
        Ok(())
    }

    /// All new replicas of a step have proved themselves since that time. Returns when to look again, if it goes on by
    /// itself, and whether something has changed.
    pub fn reached(&mut self, since: Timestamp, now: Timestamp) -> Step {
        let Some(Underway { steps: slot @ Some(_), .. }) = &mut self.underway else { return Step::Stays };
        let Some(steps) = slot.as_mut() else { return Step::Stays };
        let Some(every) = steps.every else { return Step::Stays };
        let due = since.checked_add(every).unwrap_or(Timestamp::MAX);
        if due > now {
            return Step::At(due);
        }
        if steps.share() == Share::ALL || steps.at + 1 >= steps.shares.len() {
            *slot = None;
            return Step::Promoted;
        }
        steps.at += 1;
        Step::Next(steps.share())
    }

    /// The version has proved itself. `counted` is what has been counted of connections until now.
    pub fn finish(&mut self, counted: Option<Counted>, now: Timestamp) -> Option<RolloutSummary> {
        let underway = self.underway.take()?;
        self.stable = underway.to;
        if let Some(revision) = self.revision_mut(underway.to) {
            (revision.served, revision.failure) = (Some(true), None);
        }
        let failed = match underway.back {
            Some(Why::Failed(failure)) => Some((underway.from, *failure)),
            Some(Why::Requested) | None => None,
        };
        let rollout_summary = underway.counted.zip(counted).map(|(before, now)| now.since(&before));
        self.last = Some(Ended { to: underway.to, at: now, failed, rollout_summary });
        rollout_summary
    }

    /// The version has failed. Returns what follows.
    pub fn fail(&mut self, file: &Service, failure: Failure, now: Timestamp) -> FailureAction {
        let Some(to) = self.underway.as_ref().map(|underway| underway.to) else {
            return FailureAction::Continue;
        };
        if let Some(revision) = self.revision_mut(to) {
            revision.failure = Some(failure.clone());
        }
        let Some(underway) = &mut self.underway else { return FailureAction::Continue };
        let rules = if underway.back.is_some() { &file.rollback } else { &file.update };
        let can_go_back = underway.back.is_none() && underway.to != self.stable;
        match rules.failure_action {
            FailureAction::Rollback if can_go_back => {
                let why = Why::Failed(Box::new(failure));
                self.back(why.clone(), now);
                self.pin = Some(Pin { file: file.declared(), revision: self.stable, why });
                FailureAction::Rollback
            }
            FailureAction::Continue => FailureAction::Continue,
            FailureAction::Rollback | FailureAction::Pause => {
                underway.paused = Some(Why::Failed(Box::new(failure)));
                FailureAction::Pause
            }
        }
    }
}

/// What follows from a step that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It stays until somebody says otherwise.
    Stays,
    /// The next one is due then.
    At(Timestamp),
    /// The next one has begun.
    Next(Share),
    /// There is no next one: the old replicas go.
    Promoted,
}
