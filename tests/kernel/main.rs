//! The kernel part by itself: real servers in network namespaces and control groups of the tests' own, and no engine.
//!
//! Needs root, and BPF as `sameport doctor` checks it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot be set up has to stop")]

#[path = "../support/mod.rs"]
mod support;

mod choice;
mod counting;
mod fairness;
mod guard;
mod hold;
mod kills;
mod layout;
mod pod;
mod server;
mod takeover;
