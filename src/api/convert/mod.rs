//! Converts the types of the planner and the supervisor to the public schema. No other module does.
//!
//! Pure: no I/O and no clock. The messages of events and replicas are built here too, so that every command and every
//! client of the socket shows the same text.

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
