//! The control socket: how commands speak to a supervisor in another process; and what all of sameport prints as JSON.
//!
//! HTTP/1.1 on a Unix socket that only its owner may use. `POST /v3/request` takes a
//! [`Request`](crate::supervisor::Request) and answers with a [`Reply`](protocol::Reply); `GET /v3/events` gives
//! [`Line`](protocol::Line)s, those so far and then those to come, until somebody hangs up. All is JSON, so
//! `curl --unix-socket` does as a client. `GET /version` tells which [`version`] of it a
//! supervisor speaks. [`schema`] has the types of all that is printed, [`convert`] makes them.

mod client;
mod connections;
pub mod convert;
pub mod protocol;
pub mod schema;
mod server;
pub mod version;

pub use client::{Client, ClientError};
pub use server::{Served, Server, answer, bind, follow, past};
pub use version::{Standing, Version};
