//! `sameport` runs N replicas of a container image behind one port, with no proxy.
//!
//! A change of mind travels one way round a ring:
//!
//! ```text
//! compose ─▶ spec ─▶ plan ─▶ supervisor ─▶ engine (Docker's API), kernel (namespaces, sockets)
//!                     ▲                      │
//!                     └─── observed state ◀──┘
//! ```
//!
//! `compose` reads what the user wrote ([`files`] tells when that changes), [`spec`] is what we run, `plan`
//! decides without I/O what to do next, `supervisor` is the only one who acts, [`engine`] and `kernel` are
//! what it acts on. `cli` speaks to a supervisor through `api`, or is one in the foreground.

pub mod api;
pub mod clock;
pub mod compose;
pub mod control_chars;
pub mod demo;
pub mod engine;
pub mod files;
pub mod kernel;
pub mod plan;
pub mod probe;
pub mod spec;
pub mod supervisor;
pub mod systemd;
pub mod tick;
