//! What sameport prints as JSON is what `docs/schema` says, and nothing else.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot be set up has to stop")]

#[path = "../support/mod.rs"]
mod support;

mod committed;
mod names;
mod real;
mod schemas;
