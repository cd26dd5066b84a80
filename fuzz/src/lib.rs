//! What each fuzz target does with bytes: it gives them to a reader of sameport's, and panics if the answer breaks a promise.
//!
//! `cargo fuzz run TARGET` looks for such bytes (`.ci/full fuzz`); `cargo test --package sameport-fuzz` tries the corpus and
//! changes of it, without a fuzzer.

mod compose;
mod engine;
mod supervisor;

use std::{env, fs, io};

pub use compose::{compose_file, interpolation};
pub use engine::{labels, log_lines};
pub use supervisor::{control_protocol, state_file};

/// What a target does with bytes.
pub type Target = fn(&[u8]);

/// All targets, by the names of their folders in `corpus`.
pub const TARGETS: [(&str, Target); 6] = [
    ("compose_file", compose_file),
    ("control_protocol", control_protocol),
    ("interpolation", interpolation),
    ("labels", labels),
    ("log_lines", log_lines),
    ("state_file", state_file),
];

/// Gives a target the files that are named as arguments, such as those that a fuzzer has found.
///
/// # Errors
/// When one cannot be read.
pub fn replay(target: Target) -> io::Result<()> {
    for path in env::args_os().skip(1) {
        target(&fs::read(path)?);
    }
    Ok(())
}
