//! The control socket: the API between commands and the supervisor, and the JSON documents that sameport prints.
//!
//! HTTP/1.1 on a Unix socket with mode 0600. `POST /v3/request` takes a [`Request`](crate::supervisor::Request) and
//! returns a [`Reply`](protocol::Reply). `GET /v3/events` streams [`Line`](protocol::Line)s: the history first, then
//! live events until the client disconnects. Bodies are JSON, so `curl --unix-socket` works as a client. `GET /version`
//! returns the supervisor's [`version`] of the protocol. [`schema`] defines the printed types; [`convert`] builds them.

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
