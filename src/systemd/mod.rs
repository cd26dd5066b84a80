//! The files for systemd: the unit that starts a project's supervisor at boot, and its file of variables. Pure: renders
//! and parses text.

mod quote;
mod unit;
mod variables;

/// The directory of system units that the administrator adds.
pub const UNITS: &str = "/etc/systemd/system";

pub use quote::Unencodable;
pub use unit::{Manager, Record, Unit, is_ours, record, unit_name};
pub use variables::{parse, render};
