//! From Compose files to projects and messages, as a user meets them.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod errors;
mod files;
mod full;
mod fuzz;
mod generations;
mod hooks;
mod limits;
mod meaning;
mod merging;
mod support;
mod warnings;
