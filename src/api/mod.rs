//! The control socket: how commands speak to a supervisor in another process.
//!
//! HTTP/1.1 on a Unix socket that only its owner may use. `POST /v2/request` takes a
//! [`Request`](crate::supervisor::Request) and answers with a [`Reply`](crate::supervisor::Reply);
//! `GET /v2/events` gives [`protocol::Line`]s, those so far and then those to come, until somebody hangs up. All is JSON,
//! so `curl --unix-socket` does as a client. `GET /version` tells which [`version`] of it a supervisor speaks.

mod client;
pub mod protocol;
mod server;
pub mod version;

pub use client::{Client, ClientError};
pub use server::{Server, bind};
pub use version::{Standing, Version};
