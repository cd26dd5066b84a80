//! What systemd reads that we write: the unit that starts a project's supervisor at boot, and the file of variables beside
//! it. Pure: texts go in and come out.

mod quote;
mod unit;
mod variables;

/// Where the units of the host are that an administrator adds.
pub const UNITS: &str = "/etc/systemd/system";

pub use quote::Unwritable;
pub use unit::{Manager, Record, Unit, is_ours, record, unit_name};
pub use variables::{parse, render};
