//! What this host's kernel shows and does, beside the engine.

pub mod capability;
pub mod netns;
