//! The kinds of faults.

use super::{cost::Cost, scene::Scene};

mod commands;
mod files;
mod foreign;
mod pods;
mod replicas;
mod resources;
mod rollouts;
mod supervisors;

/// A kind of fault.
pub struct Fault {
    /// What is done, as a person says it.
    pub name: &'static str,
    /// Which requests it may fail.
    pub cost: Cost,
    /// Who gets a new process by it.
    pub replaces: Replaces,
    /// How many seconds it may take, from its beginning until all is whole.
    pub within: u64,
    /// Does it, and notes who has to suffer from it.
    pub act: fn(&mut Scene),
}

/// Who gets a new process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaces {
    /// Nobody.
    Nobody,
    /// Each of the scene's victims, and nobody else.
    Victims,
    /// Nobody else than the scene's victims.
    SomeVictims,
}

/// A row of a table of faults.
const fn fault(
    name: &'static str,
    cost: Cost,
    replaces: Replaces,
    within: u64,
    act: fn(&mut Scene),
) -> Fault {
    Fault { name, cost, replaces, within, act }
}

/// All kinds.
pub fn all() -> impl Iterator<Item = &'static Fault> {
    [
        replicas::FAULTS,
        pods::FAULTS,
        supervisors::FAULTS,
        files::FAULTS,
        resources::FAULTS,
        commands::FAULTS,
        rollouts::FAULTS,
        foreign::FAULTS,
    ]
    .into_iter()
    .flatten()
}
