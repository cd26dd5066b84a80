//! What a sandbox runs: a program that holds a pod's namespaces open, and does nothing.

use crate::spec::{Container, Image, Resources};

use super::{Engine, EngineError, program::Program};

/// How the names of its images begin.
pub(super) const IMAGE: &str = Program::PAUSE.image_prefix;

/// More than enough for one process that never allocates.
const PROCESSES: i64 = 16;

/// Sees to it that the engine has the sandbox's image, and names it.
///
/// # Errors
/// When the engine does not take it.
pub async fn ensure_image<E: Engine>(engine: &E) -> Result<Image, EngineError> {
    Program::PAUSE.ensure_image(engine).await
}

/// A sandbox's container, but for its image: as little as it needs, which is nothing.
#[must_use]
pub fn container() -> Container {
    Container {
        read_only: true,
        cap_drop: vec!["ALL".to_owned()],
        security_opt: vec!["no-new-privileges:true".to_owned()],
        resources: Resources { pids: Some(PROCESSES), ..Resources::default() },
        ..Container::new(Program::PAUSE.image())
    }
}
