//! What a user reads who has no engine at hand: help, mistakes, the resolved file. Every command is run as a process.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has to stop")]

mod boot;
mod config;
mod files;
mod help;
mod mistakes;
mod pipes;
mod plugin;
mod support;
