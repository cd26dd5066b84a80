//! Our own programs for containers, of about a kilobyte each: every one has an image that holds nothing else.

use crate::spec::Image;

use super::{
    Engine, EngineError,
    images::{File, ImageSpec, architecture, digest},
};

/// A program that `build.rs` makes of its source in `src/programs`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    /// Its file in the image.
    name: &'static str,
    /// How the names of its images begin.
    pub image_prefix: &'static str,
    bytes: &'static [u8],
}

impl Program {
    /// What a sandbox runs.
    pub const PAUSE: Self = Self {
        name: "pause",
        image_prefix: "localhost/sameport-sandbox:",
        bytes: include_bytes!(concat!(env!("OUT_DIR"), "/pause")),
    };
    /// What a lock container runs whose owner is on another host than the engine.
    pub const UNTIL_EOF: Self = Self {
        name: "until_eof",
        image_prefix: "localhost/sameport-lock:",
        bytes: include_bytes!(concat!(env!("OUT_DIR"), "/until_eof")),
    };

    /// Its image. The name holds the content's hash: another program is another image, and an image of that name need
    /// not be looked into.
    pub fn image(self) -> Image {
        let hash = digest(self.bytes);
        Image(format!("{}{}", self.image_prefix, hash.get(..12).unwrap_or(&hash)))
    }

    /// Sees to it that the engine has the image, and names it.
    ///
    /// # Errors
    /// When the engine does not take it.
    pub async fn ensure_image<E: Engine>(self, engine: &E) -> Result<Image, EngineError> {
        let image = self.image();
        if engine.image(&image).await?.is_none() {
            let archive = self.spec().archive().map_err(|error| EngineError::Refused {
                message: format!("the image {image} cannot be made: {error}"),
            })?;
            engine.load_image(archive).await?;
        }
        Ok(image)
    }

    fn spec(self) -> ImageSpec {
        ImageSpec {
            name: self.image().0,
            architecture: architecture().to_owned(),
            files: vec![File { path: self.name.to_owned(), mode: 0o755, bytes: self.bytes.to_vec() }],
            entrypoint: vec![format!("/{}", self.name)],
            ..ImageSpec::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Program;

    #[test]
    fn the_programs_are_tiny() {
        for program in [Program::PAUSE, Program::UNTIL_EOF] {
            let size = program.bytes.len();
            assert!((100..16 * 1024).contains(&size), "{}: {size} bytes", program.name);
        }
    }
}
