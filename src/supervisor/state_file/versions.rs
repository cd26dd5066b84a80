//! The stored form of the versions of a service.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::failure::FailureForm;
use crate::{
    kernel::Counters,
    plan::{
        Counted, Failure, RolloutSummary,
        versions::{Ended, Pin, Revision, Steps, Underway, Versions, Why},
    },
    spec::{
        Generation, Share,
        form::{DurationForm, FormError, ServiceForm},
    },
};

/// The stored form of [`Versions`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VersionsForm {
    revisions: Vec<RevisionForm>,
    stable: u32,
    underway: Option<UnderwayForm>,
    pin: Option<PinForm>,
    last: Option<EndedForm>,
}

impl From<&Versions> for VersionsForm {
    fn from(Versions { revisions, stable, underway, pin, last }: &Versions) -> Self {
        Self {
            revisions: revisions.iter().map(RevisionForm::from).collect(),
            stable: *stable,
            underway: underway.as_ref().map(UnderwayForm::from),
            pin: pin.as_ref().map(PinForm::from),
            last: last.as_ref().map(EndedForm::from),
        }
    }
}

impl TryFrom<VersionsForm> for Versions {
    type Error = FormError;

    fn try_from(form: VersionsForm) -> Result<Self, FormError> {
        let VersionsForm { revisions, stable, underway, pin, last } = form;
        Ok(Self {
            revisions: revisions.into_iter().map(Revision::try_from).collect::<Result<_, _>>()?,
            stable,
            underway: underway.map(Underway::try_from).transpose()?,
            pin: pin.map(Pin::try_from).transpose()?,
            last: last.map(Ended::try_from).transpose()?,
        })
    }
}

/// The stored form of a [`Revision`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RevisionForm {
    number: u32,
    at: Timestamp,
    by: String,
    cause: String,
    service: Box<ServiceForm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    served: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<FailureForm>,
}

impl From<&Revision> for RevisionForm {
    fn from(Revision { number, at, by, cause, service, served, failure }: &Revision) -> Self {
        Self {
            number: *number,
            at: *at,
            by: by.clone(),
            cause: cause.clone(),
            service: Box::new(ServiceForm::from(&**service)),
            served: *served,
            failure: failure.as_ref().map(FailureForm::from),
        }
    }
}

impl TryFrom<RevisionForm> for Revision {
    type Error = FormError;

    fn try_from(form: RevisionForm) -> Result<Self, FormError> {
        let RevisionForm { number, at, by, cause, service, served, failure } = form;
        let service = Box::new((*service).try_into()?);
        let failure = failure.map(Failure::try_from).transpose()?;
        Ok(Self { number, at, by, cause, service, served, failure })
    }
}

/// The stored form of an [`Underway`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct UnderwayForm {
    to: u32,
    from: u32,
    back: Option<WhyForm>,
    paused: Option<WhyForm>,
    steps: Option<StepsForm>,
    began: Timestamp,
    #[serde(default)]
    counted: Option<CountedForm>,
}

impl From<&Underway> for UnderwayForm {
    fn from(Underway { to, from, back, paused, steps, began, counted }: &Underway) -> Self {
        Self {
            to: *to,
            from: *from,
            back: back.as_ref().map(WhyForm::from),
            paused: paused.as_ref().map(WhyForm::from),
            steps: steps.as_ref().map(StepsForm::from),
            began: *began,
            counted: counted.map(CountedForm::from),
        }
    }
}

impl TryFrom<UnderwayForm> for Underway {
    type Error = FormError;

    fn try_from(form: UnderwayForm) -> Result<Self, FormError> {
        let UnderwayForm { to, from, back, paused, steps, began, counted } = form;
        Ok(Self {
            to,
            from,
            back: back.map(Why::try_from).transpose()?,
            paused: paused.map(Why::try_from).transpose()?,
            steps: steps.map(Steps::from),
            began,
            counted: counted.map(Counted::from),
        })
    }
}

/// The stored form of [`Steps`]. Shares are in thousandths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StepsForm {
    shares: Vec<u16>,
    at: usize,
    every: Option<DurationForm>,
    whole: bool,
    by_file: bool,
}

impl From<&Steps> for StepsForm {
    fn from(Steps { shares, at, every, whole, by_file }: &Steps) -> Self {
        Self {
            shares: shares.iter().map(|share| share.thousandths()).collect(),
            at: *at,
            every: every.map(DurationForm::from),
            whole: *whole,
            by_file: *by_file,
        }
    }
}

impl From<StepsForm> for Steps {
    fn from(StepsForm { shares, at, every, whole, by_file }: StepsForm) -> Self {
        let share = |thousandths| Share::of_thousand(thousandths).unwrap_or(Share::ALL);
        Self {
            shares: shares.into_iter().map(share).collect(),
            at,
            every: every.map(Into::into),
            whole,
            by_file,
        }
    }
}

/// The stored form of [`Why`]: `"asked"` or `{"failed":…}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum WhyForm {
    #[serde(rename = "asked")]
    Requested,
    #[serde(rename = "failed")]
    Failed(Box<FailureForm>),
}

impl From<&Why> for WhyForm {
    fn from(why: &Why) -> Self {
        match why {
            Why::Requested => Self::Requested,
            Why::Failed(failure) => Self::Failed(Box::new(FailureForm::from(&**failure))),
        }
    }
}

impl TryFrom<WhyForm> for Why {
    type Error = FormError;

    fn try_from(form: WhyForm) -> Result<Self, FormError> {
        Ok(match form {
            WhyForm::Requested => Self::Requested,
            WhyForm::Failed(failure) => Self::Failed(Box::new((*failure).try_into()?)),
        })
    }
}

/// The stored form of a [`Pin`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PinForm {
    file: String,
    revision: u32,
    why: WhyForm,
}

impl From<&Pin> for PinForm {
    fn from(Pin { file, revision, why }: &Pin) -> Self {
        Self { file: file.as_str().to_owned(), revision: *revision, why: why.into() }
    }
}

impl TryFrom<PinForm> for Pin {
    type Error = FormError;

    fn try_from(PinForm { file, revision, why }: PinForm) -> Result<Self, FormError> {
        Ok(Self { file: Generation::from_label(file), revision, why: why.try_into()? })
    }
}

/// The stored form of an [`Ended`]. A failed version is a pair of its number and its failure: `[4,{…}]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct EndedForm {
    to: u32,
    at: Timestamp,
    failed: Option<(u32, FailureForm)>,
    #[serde(default, rename = "proof")]
    rollout_summary: Option<RolloutSummaryForm>,
}

impl From<&Ended> for EndedForm {
    fn from(Ended { to, at, failed, rollout_summary }: &Ended) -> Self {
        Self {
            to: *to,
            at: *at,
            failed: failed.as_ref().map(|(number, failure)| (*number, failure.into())),
            rollout_summary: rollout_summary.map(RolloutSummaryForm::from),
        }
    }
}

impl TryFrom<EndedForm> for Ended {
    type Error = FormError;

    fn try_from(EndedForm { to, at, failed, rollout_summary }: EndedForm) -> Result<Self, FormError> {
        let failed = match failed {
            Some((number, failure)) => Some((number, Failure::try_from(failure)?)),
            None => None,
        };
        Ok(Self { to, at, failed, rollout_summary: rollout_summary.map(RolloutSummary::from) })
    }
}

/// The stored form of [`Counted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CountedForm {
    counters: CountersForm,
    refused: u64,
}

impl From<Counted> for CountedForm {
    fn from(Counted { counters, refused }: Counted) -> Self {
        Self { counters: counters.into(), refused }
    }
}

impl From<CountedForm> for Counted {
    fn from(CountedForm { counters, refused }: CountedForm) -> Self {
        Self { counters: counters.into(), refused }
    }
}

/// The stored form of [`Counters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CountersForm {
    opened: u64,
    migrated: u64,
    lost_in_migration: u64,
    overflowed: u64,
    reset: u64,
}

impl From<Counters> for CountersForm {
    fn from(Counters { opened, migrated, lost_in_migration, overflowed, reset }: Counters) -> Self {
        Self { opened, migrated, lost_in_migration, overflowed, reset }
    }
}

impl From<CountersForm> for Counters {
    fn from(CountersForm { opened, migrated, lost_in_migration, overflowed, reset }: CountersForm) -> Self {
        Self { opened, migrated, lost_in_migration, overflowed, reset }
    }
}

/// The stored form of a [`RolloutSummary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RolloutSummaryForm {
    connections: u64,
    migrated: u64,
    refused: u64,
    reset: u64,
}

impl From<RolloutSummary> for RolloutSummaryForm {
    fn from(RolloutSummary { connections, migrated, refused, reset }: RolloutSummary) -> Self {
        Self { connections, migrated, refused, reset }
    }
}

impl From<RolloutSummaryForm> for RolloutSummary {
    fn from(RolloutSummaryForm { connections, migrated, refused, reset }: RolloutSummaryForm) -> Self {
        Self { connections, migrated, refused, reset }
    }
}
