//! Real software behind one published port of a real Docker Engine, used as a user does: through the binary.
//!
//! Needs Docker Engine and apt's packages; `tests/images/README.md` tells how the images are made. Every test
//! has projects and ports of its own, so they run at once, and beside those of another checkout.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot be set up has to stop")]

#[path = "../support/mod.rs"]
mod support;

mod at_rest;
mod beside;
mod book;
mod boot;
mod changes;
mod checks;
mod clients;
mod connections;
mod counts;
mod data;
mod datagrams;
mod demo;
mod dependencies;
mod drains;
mod drift;
mod engine_faults;
mod everyday;
mod exits;
mod faults;
mod first_request;
mod full_disk;
mod going_back;
mod health;
mod hooks;
mod hostile;
mod interrupted;
mod ipv6;
mod lasting;
mod leftovers;
mod limits;
mod notes;
mod nothing_left;
mod one_supervisor;
mod ordinary_user;
mod ownership;
mod pre_deploy;
mod probes;
mod programs;
mod pulling;
mod reach;
mod reload;
mod removed_files;
mod rollout;
mod room;
mod secrets;
mod sharing;
mod silent_engine;
mod slots;
mod source_ports;
mod spread;
mod state;
mod stopped_outside;
mod stores;
mod supervisor;
mod traffic;
mod unmodified;
mod users;
mod waiting;
mod words;
