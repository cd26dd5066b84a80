//! The stored form of the state: versioned JSON with explicit types, which do not depend on the types of the planner.
//!
//! Within a version, fields are only added, each with a default; unknown fields are ignored. A change that an older
//! release could not read or would misunderstand requires a new version. Files from before versioning have version 0
//! and the same keys as version 1. `docs/reference/state.md` describes the format.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Scale, State, versions::VersionsForm};
use crate::{
    engine::{ContainerId, EngineIdentity},
    plan::{HookPhase, PostStart, StoppedOutside, versions::Versions},
    spec::{Generation, ServiceName, Slot, form::FormError},
};

/// The version that is written, and the newest that is read.
pub const VERSION: u64 = 1;

/// Why a file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It was written by a newer release.
    #[error("it has version {0}")]
    Newer(u64),
    /// It is damaged; holds the error.
    #[error("{0}")]
    Damaged(String),
}

/// Parses a state.
///
/// # Errors
/// If it is damaged, or of a newer version.
pub fn read(bytes: &[u8]) -> Result<State, Unreadable> {
    let VersionForm { version } = parse(bytes)?;
    if version > VERSION {
        return Err(Unreadable::Newer(version));
    }
    let form: StateForm = parse(bytes)?;
    form.try_into().map_err(|error: FormError| Unreadable::Damaged(error.to_string()))
}

/// Serializes a state.
///
/// # Errors
/// Never: all map keys can be represented in JSON.
pub fn write(state: &State) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec_pretty(&StateForm::from(state))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    use serde_json::error::Category;

    if bytes.trim_ascii().is_empty() {
        return Err(Unreadable::Damaged("it is empty".to_owned()));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        Unreadable::Damaged(match error.classify() {
            Category::Eof => format!("it ends too early: {error}"),
            Category::Syntax | Category::Io => format!("it is not JSON: {error}"),
            Category::Data => format!("it does not hold a state: {error}"),
        })
    })
}

/// The part that all versions have in common.
#[derive(Deserialize)]
struct VersionForm {
    #[serde(default)]
    version: u64,
}

/// The stored form of a [`State`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StateForm {
    #[serde(default)]
    version: u64,
    scale: BTreeMap<String, ScaleForm>,
    stopped: BTreeSet<String>,
    #[serde(default)]
    weights: BTreeMap<String, BTreeMap<u32, u32>>,
    #[serde(default)]
    done_before: BTreeMap<String, String>,
    #[serde(default)]
    interrupted_jobs: BTreeMap<String, Timestamp>,
    #[serde(default)]
    post_start: BTreeMap<String, PostStartForm>,
    #[serde(default)]
    restart_after: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    ending: BTreeMap<String, Timestamp>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    stopped_outside: BTreeMap<String, StoppedOutsideForm>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    renew_volumes: BTreeMap<String, BTreeSet<u32>>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    variables: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    folder: Option<PathBuf>,
    #[serde(default)]
    versions: BTreeMap<String, VersionsForm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    engine: Option<EngineForm>,
}

impl From<&State> for StateForm {
    fn from(state: &State) -> Self {
        let State {
            scale,
            stopped,
            weights,
            done_before,
            interrupted_jobs,
            post_start,
            restart_after,
            ending,
            stopped_outside,
            renew_volumes,
            variables,
            folder,
            versions,
            engine,
        } = state;
        let text = |name: &ServiceName| name.as_str().to_owned();
        let mut renewed = BTreeMap::<_, BTreeSet<_>>::new();
        for (name, slot) in renew_volumes {
            renewed.entry(text(name)).or_default().insert(slot.number());
        }
        let of_slots = |slots: &BTreeMap<Slot, u32>| {
            slots.iter().map(|(slot, weight)| (slot.number(), *weight)).collect()
        };
        Self {
            version: VERSION,
            scale: scale.iter().map(|(name, scale)| (text(name), (*scale).into())).collect(),
            stopped: stopped.iter().map(text).collect(),
            weights: weights.iter().map(|(name, slots)| (text(name), of_slots(slots))).collect(),
            done_before: done_before.iter().map(|(name, g)| (text(name), g.as_str().to_owned())).collect(),
            interrupted_jobs: interrupted_jobs.iter().map(|(id, at)| (id.0.clone(), *at)).collect(),
            post_start: post_start.iter().map(|(id, progress)| (id.0.clone(), (*progress).into())).collect(),
            restart_after: restart_after.iter().map(text).collect(),
            ending: ending.iter().map(|(id, at)| (id.0.clone(), *at)).collect(),
            stopped_outside: stopped_outside.iter().map(|(id, it)| (id.0.clone(), (*it).into())).collect(),
            renew_volumes: renewed,
            variables: variables.clone(),
            folder: folder.clone(),
            versions: versions.iter().map(|(name, versions)| (text(name), versions.into())).collect(),
            engine: engine.clone().map(Into::into),
        }
    }
}

impl TryFrom<StateForm> for State {
    type Error = FormError;

    fn try_from(form: StateForm) -> Result<Self, FormError> {
        let StateForm {
            version: _,
            scale,
            stopped,
            weights,
            done_before,
            interrupted_jobs,
            post_start,
            restart_after,
            ending,
            stopped_outside,
            renew_volumes,
            variables,
            folder,
            versions,
            engine,
        } = form;
        let slots = |slots: BTreeMap<u32, u32>| {
            let slots = slots.into_iter();
            slots.map(|(slot, weight)| Ok((Slot::new(slot).ok_or(FormError::Slot)?, weight))).collect()
        };
        let mut renewed = BTreeSet::new();
        for (name, slots) in renew_volumes {
            for slot in slots {
                renewed.insert((name.parse()?, Slot::new(slot).ok_or(FormError::Slot)?));
            }
        }
        Ok(Self {
            scale: named(scale, |scale| Ok(scale.into()))?,
            stopped: names(stopped)?,
            weights: named(weights, slots)?,
            done_before: named(done_before, |label| Ok(Generation::from_label(label)))?,
            interrupted_jobs: interrupted_jobs.into_iter().map(|(id, at)| (ContainerId(id), at)).collect(),
            post_start: post_start.into_iter().map(|(id, it)| (ContainerId(id), it.into())).collect(),
            restart_after: names(restart_after)?,
            ending: ending.into_iter().map(|(id, at)| (ContainerId(id), at)).collect(),
            stopped_outside: stopped_outside
                .into_iter()
                .map(|(id, it)| (ContainerId(id), it.into()))
                .collect(),
            renew_volumes: renewed,
            variables,
            folder,
            versions: named(versions, Versions::try_from)?,
            engine: engine.map(Into::into),
        })
    }
}

fn names(names: BTreeSet<String>) -> Result<BTreeSet<ServiceName>, FormError> {
    names.into_iter().map(|name| Ok(name.parse()?)).collect()
}

fn named<F, T>(
    forms: BTreeMap<String, F>,
    value: impl Fn(F) -> Result<T, FormError>,
) -> Result<BTreeMap<ServiceName, T>, FormError> {
    forms.into_iter().map(|(name, form)| Ok((name.parse()?, value(form)?))).collect()
}

/// The stored form of an [`EngineIdentity`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct EngineForm {
    address: String,
    id: Option<String>,
}

impl From<EngineIdentity> for EngineForm {
    fn from(EngineIdentity { address, id }: EngineIdentity) -> Self {
        Self { address, id }
    }
}

impl From<EngineForm> for EngineIdentity {
    fn from(EngineForm { address, id }: EngineForm) -> Self {
        Self { address, id }
    }
}

/// The stored form of a [`Scale`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ScaleForm {
    file: u32,
    replicas: u32,
}

impl From<Scale> for ScaleForm {
    fn from(Scale { file, replicas }: Scale) -> Self {
        Self { file, replicas }
    }
}

impl From<ScaleForm> for Scale {
    fn from(ScaleForm { file, replicas }: ScaleForm) -> Self {
        Self { file, replicas }
    }
}

/// The stored form of a [`StoppedOutside`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoppedOutsideForm {
    started_at: Timestamp,
    at: Timestamp,
}

impl From<StoppedOutside> for StoppedOutsideForm {
    fn from(StoppedOutside { started_at, at }: StoppedOutside) -> Self {
        Self { started_at, at }
    }
}

impl From<StoppedOutsideForm> for StoppedOutside {
    fn from(StoppedOutsideForm { started_at, at }: StoppedOutsideForm) -> Self {
        Self { started_at, at }
    }
}

/// The stored form of a [`PostStart`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PostStartForm {
    started_at: Timestamp,
    // The name of the key in earlier releases.
    #[serde(rename = "stage")]
    phase: HookPhaseForm,
}

/// The stored form of a [`HookPhase`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum HookPhaseForm {
    #[serde(rename = "begun")]
    Begun,
    #[serde(rename = "done")]
    Done,
}

impl From<PostStart> for PostStartForm {
    fn from(PostStart { started_at, phase }: PostStart) -> Self {
        let phase = match phase {
            HookPhase::Begun => HookPhaseForm::Begun,
            HookPhase::Done => HookPhaseForm::Done,
        };
        Self { started_at, phase }
    }
}

impl From<PostStartForm> for PostStart {
    fn from(PostStartForm { started_at, phase }: PostStartForm) -> Self {
        let phase = match phase {
            HookPhaseForm::Begun => HookPhase::Begun,
            HookPhaseForm::Done => HookPhase::Done,
        };
        Self { started_at, phase }
    }
}
