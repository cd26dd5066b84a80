//! What is measured: a file for each setting, which may answer several questions.

pub mod change;
pub mod choice;
pub mod hooks;
pub mod latency;
pub mod replace;
pub mod sizes;
pub mod supervisor;
pub mod throughput;

use anyhow::Result;

use crate::{
    bench::Bench,
    extent::Extent,
    results::{Id, Measure},
};

/// Something that is set up, measured and taken down.
pub struct Setting {
    /// The questions that it answers.
    pub answers: &'static [Id],
    /// How often [`Bench::step`] is called.
    pub steps: fn(&Extent) -> u64,
    /// Does it.
    pub measure: fn(&Bench) -> Result<Vec<Measure>>,
}

/// All of them, in the order in which they are done: what is of nanoseconds before the machine has to clean up after others.
pub const ALL: [Setting; 8] = [
    Setting { answers: &[Id::F8], steps: choice::steps, measure: choice::measure },
    Setting { answers: &[Id::F10], steps: hooks::steps, measure: hooks::measure },
    Setting { answers: &[Id::F1, Id::F2, Id::F9], steps: throughput::steps, measure: throughput::measure },
    Setting { answers: &[Id::F3], steps: latency::steps, measure: latency::measure },
    Setting { answers: &[Id::F4], steps: replace::steps, measure: replace::measure },
    Setting { answers: &[Id::F5], steps: change::steps, measure: change::measure },
    Setting { answers: &[Id::F6], steps: sizes::steps, measure: sizes::measure },
    Setting { answers: &[Id::F7], steps: supervisor::steps, measure: supervisor::measure },
];
