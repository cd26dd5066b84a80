//! What a sandbox runs: a program of about a kilobyte that is part of this one, and does nothing.

use crate::spec::{Container, Image, Resources};

use super::{
    Engine, EngineError,
    images::{File, ImageSpec, architecture, digest},
};

/// The program, made of `src/pause.rs` by `build.rs`.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

/// How the names of its images begin.
pub(super) const IMAGE: &str = "localhost/sameport-sandbox:";

/// More than enough for one process that never allocates.
const PROCESSES: i64 = 16;

/// Sees to it that the engine has the sandbox's image, and names it. The name holds the content's hash: another
/// program is another image, and an image of that name need not be looked into.
///
/// # Errors
/// When the engine does not take it.
pub async fn ensure_image<E: Engine>(engine: &E) -> Result<Image, EngineError> {
    let image = image();
    if engine.image(&image).await?.is_none() {
        let archive = spec().archive().map_err(|error| EngineError::Refused {
            message: format!("the sandbox's image cannot be made: {error}"),
        })?;
        engine.load_image(archive).await?;
    }
    Ok(image)
}

/// A sandbox's container, but for its image: as little as it needs, which is nothing.
#[must_use]
pub fn container() -> Container {
    Container {
        read_only: true,
        cap_drop: vec!["ALL".to_owned()],
        security_opt: vec!["no-new-privileges:true".to_owned()],
        resources: Resources { pids: Some(PROCESSES), ..Resources::default() },
        ..Container::new(image())
    }
}

fn image() -> Image {
    let hash = digest(PROGRAM);
    Image(format!("{IMAGE}{}", hash.get(..12).unwrap_or(&hash)))
}

fn spec() -> ImageSpec {
    ImageSpec {
        name: image().0,
        architecture: architecture().to_owned(),
        files: vec![File { path: "pause".to_owned(), mode: 0o755, bytes: PROGRAM.to_vec() }],
        entrypoint: vec!["/pause".to_owned()],
        ..ImageSpec::default()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_program_is_tiny() {
        let size = super::PROGRAM.len();
        assert!((100..16 * 1024).contains(&size), "{size} bytes");
    }
}
