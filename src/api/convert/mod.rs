//! From the types that plan and supervise to the public schema: the one place where the ones become the others.
//!
//! Pure: no I/O and no clock. What a person reads of an event or a replica is made here too, so that every command and
//! every program that reads the socket tells it in the same words.

mod config;
mod event;
mod message;
mod preview;
mod rejection;
mod rollout;
mod state;
mod status;
mod target;

pub use config::{HIDDEN, config};
pub use event::event;
pub use message::{
    exclusive_port, exit, foreign_listener, foreign_resource, health_check_error, how_to_share,
    port_not_shared, replacement_order, shared_by_application, shared_file, unserved_ports,
    unsteered_listeners, user_conflict,
};
pub use preview::preview;
pub use rejection::rejection;
pub use rollout::{Environment, revisions, rollout_status};
pub use state::age;
pub use status::{ProjectContext, status};
