//! The documents: every link leads somewhere, every file that they show loads, and the reference is what the program says.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot be set up has to stop")]

mod commands;
mod files;
mod links;
mod pages;
mod words;
