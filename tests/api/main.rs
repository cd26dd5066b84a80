//! The control socket: a supervisor on an engine in memory, and clients of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has to stop")]

mod access;
mod beginning;
mod client;
mod request_options;
mod shop;
mod socket;
mod version;
