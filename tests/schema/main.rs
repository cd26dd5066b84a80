//! What sameport prints as JSON is what `docs/schema` says, and nothing else.

#![allow(missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod committed;
mod names;
mod real;
mod schemas;
