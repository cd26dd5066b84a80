//! What the tests on real software share.
//!
//! A test makes a [`project::Project`] of a Compose file, speaks to it through the `sameport` binary as a user
//! does, looks at it and breaks it with the `docker` command, and sends it requests with [`load`]. Whatever
//! it makes has a name of its own and goes with its guard, also when the test fails.

#![allow(dead_code, reason = "each test program uses its part of this")]

pub mod apart;
pub mod certificates;
pub mod daemon;
pub mod disk;
pub mod docker;
pub mod images;
pub mod load;
pub mod made;
pub mod ports;
pub mod project;
pub mod relay;
pub mod time_wait;
pub mod wait;
