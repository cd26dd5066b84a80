//! The demo: the whole thing on an engine with no image and no registry, and the load client that watches it.
//!
//! [`play()`] starts a project of a few replicas of [`server`] on one port, sends it requests with [`client`],
//! kills a replica, and counts. Its image is made of this very program, see [`image`]. Nothing of the core
//! depends on this module; the tests on the real engine measure with its client.

pub mod client;
mod demo_project;
mod error;
pub mod image;
mod latency;
mod play;
pub mod project;
mod report;
mod request_stats;
pub mod screen;
pub mod server;
pub mod spread;

pub use client::Connections;
pub use error::DemoError;
pub use latency::Latencies;
pub use play::{Afterwards, Length, Options, play};
pub use report::{Figures, Killed, Report};
pub use request_stats::{Answers, Failure, RequestStats};
