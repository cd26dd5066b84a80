//! Every call of the engine's interface on a real Docker Engine, one by one.
//!
//! Where `tests/engine` uses sameport as a user does, this asks whether Docker does what the interface promises.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot be set up has to stop")]

#[path = "../support/mod.rs"]
mod support;

mod commands;
mod errors;
mod events;
mod life;
mod limits;
mod output;
mod place;
mod sandboxes;
mod settings;
mod workbench;
