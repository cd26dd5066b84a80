//! The kernel part by itself: real servers in network namespaces and control groups of the tests' own, and no engine.
//!
//! Needs root, and BPF as `sameport doctor` checks it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot be set up has to stop")]

#[path = "../support/mod.rs"]
mod support;

mod agent;
mod binds;
mod choice;
mod counting;
mod crowd;
mod datagrams;
mod fairness;
mod foreign;
mod guard;
mod hold;
mod host;
mod hostile;
mod ipv6;
mod judge;
mod kills;
mod layout;
mod localhost;
mod lost;
mod neighbours;
mod network;
mod own;
mod pod;
mod remains;
mod room;
mod server;
mod set;
mod source_ports;
mod takeover;
mod thieves;
mod threads;
mod traps;
mod users;
