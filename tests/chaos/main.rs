//! A random walk over faults, under load, on the real engine: after each of them all is whole again, and no request has
//! failed that the fault does not explain.
//!
//! `SAMEPORT_SEED=N` walks another way or the same again, `SAMEPORT_FAULTS=N` so far. Each kind of fault comes once, in
//! random order, before any comes again. `SAMEPORT_FAULT=WORDS` takes only kinds with these words in their name.
//! `SAMEPORT_FAULTS_RECORD=FILE` adds what is seen to a file, and writes the table of all that is in it beside it, as
//! `FILE.md`: [docs/explanation/faults.md](../../docs/explanation/faults.md) has one.
//!
//! Needs root, Docker Engine and apt's packages, as the tests in `tests/engine` do.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot be set up has to stop")]

#[path = "../support/mod.rs"]
mod support;

mod cost;
mod engine;
mod faults;
mod record;
mod scene;
mod walk;
mod whole;

/// One way through the kinds of faults, the same each time.
const SEED: u64 = 1;
/// What fits into two minutes.
const FEW: usize = 30;
/// What shows that it was not luck.
const MANY: usize = 1000;

#[test]
fn thirty_faults_cost_what_they_may_and_all_is_whole_after_each() {
    walk::walk(number("SAMEPORT_SEED").unwrap_or(SEED), faults(FEW));
}

#[test]
#[ignore = "takes about an hour: `.ci/full chaos`"]
fn a_thousand_faults_cost_what_they_may_and_all_is_whole_after_each() {
    walk::walk(number("SAMEPORT_SEED").unwrap_or_else(|| fastrand::u64(2..1_000_000)), faults(MANY));
}

fn faults(otherwise: usize) -> usize {
    number("SAMEPORT_FAULTS").map_or(otherwise, |faults| usize::try_from(faults).unwrap())
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}
