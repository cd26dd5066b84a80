//! What releases before this one have left, on disk, in the engine and in the kernel: it is understood, and what runs goes
//! on.
//!
//! `tests/fixtures` has what they left. With `SAMEPORT_OLD=BINARY`, an older release makes it anew on this machine, also
//! with a supervisor that still runs. Needs what the engine's tests and the kernel's tests need.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot be set up has to stop")]

#[path = "../support/mod.rs"]
mod support;

mod adoption;
mod engine;
mod fixtures;
mod generations;
mod kernel;
mod labels;
mod layout;
mod older;
mod side_by_side;
mod states;
