//! What this host's kernel shows and does, beside the engine.
//!
//! [`steering`] is the main part: it has the kernel share the ports of pods and choose, for each connection, the
//! replica that gets it. The choice itself is made by the programs in `bpf/`; everything here only tells them what there
//! is to choose from.

mod bpf_calls;
pub mod capability;
pub mod counters;
mod error;
pub mod feature_probe;
mod folders;
mod host;
mod kept;
mod layout;
mod maps;
mod modify_return;
pub mod netns;
pub mod pins;
pub mod presence;
mod previous_layout;
pub mod processes;
mod programs;
mod raw;
pub mod replica_addr;
pub mod rights;
#[cfg(test)]
mod shared_constants;
pub mod socket_filter;
pub mod sockets;
mod source_ports;
pub mod steering;
mod whole;
mod wrr;

pub use counters::Counters;
pub use error::{KernelError, is_shortage};
pub use layout::LAYOUT;
pub use netns::Netns;
pub use pins::Pins;
pub(crate) use raw::asynchronous;
pub use raw::{give_memory_back, save_memory};
