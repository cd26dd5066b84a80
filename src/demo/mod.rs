//! The demo, which needs no image and no registry, and its load generator.
//!
//! [`play()`] starts a project with a few replicas of [`server`] on one port, sends requests with [`client`], kills a
//! replica, and reports the results. The image contains this program, see [`image`]. No other module of the
//! library depends on this one; the tests on a real engine use its client.

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
