//! The demo's image, which contains only this program.

use std::{fs, io};

use crate::{
    engine::{
        Engine,
        images::{File, ImageSpec, architecture, digest},
    },
    spec::Image,
};

/// The program that the image contains.
const SELF: &str = "/proc/self/exe";

/// Why this program cannot be an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It is linked dynamically, and the image contains no libraries.
    #[error("this sameport is linked dynamically, so it cannot be a container image by itself")]
    NotStatic,
    /// The program file cannot be read.
    #[error("cannot read {SELF}: {0}")]
    Unreadable(#[from] io::Error),
}

use super::{DemoError, project};

/// The demo's image on an engine.
#[derive(Clone, Debug)]
pub struct OwnImage {
    /// The name of the image, with a hash of the program as its tag.
    pub name: Image,
    /// The size of the program in bytes.
    pub size: usize,
}

/// Loads the image into the engine, unless the engine has it. Each build of this program has an image of its own name.
///
/// # Errors
/// If this program cannot be an image, or the engine rejects it.
pub async fn provide<E: Engine>(engine: &E) -> Result<OwnImage, DemoError> {
    let program = own_program()?;
    let size = program.len();
    let hash = digest(&program);
    let name = Image(format!("localhost/sameport-demo:{}", hash.get(..12).unwrap_or(&hash)));
    if engine.image(&name).await?.is_some() {
        return Ok(OwnImage { name, size });
    }
    let spec = ImageSpec {
        name: name.0.clone(),
        architecture: architecture().to_owned(),
        files: vec![File { path: "sameport".to_owned(), mode: 0o755, bytes: program }],
        entrypoint: vec!["/sameport".to_owned(), "demo-server".to_owned()],
        user: project::USER.to_owned(),
        exposed: vec![format!("{}/tcp", project::PORT)],
        ..ImageSpec::default()
    };
    let archive = spec.archive().map_err(ImageError::Unreadable)?;
    engine.load_image(archive).await?;
    Ok(OwnImage { name, size })
}

/// The bytes of this program.
///
/// # Errors
/// If it is not static, or cannot be read.
pub fn own_program() -> Result<Vec<u8>, ImageError> {
    let bytes = fs::read(SELF)?;
    if is_static(&bytes) { Ok(bytes) } else { Err(ImageError::NotStatic) }
}

/// Whether a program runs without a dynamic linker: it is a 64-bit ELF file in the native byte order, and has no
/// segment of the type `PT_INTERP` (elf(5)). This includes static PIEs.
#[must_use]
pub fn is_static(program: &[u8]) -> bool {
    segment_types(program).is_some_and(|types| !types.contains(&PT_INTERP))
}

const MAGIC: &[u8] = b"\x7fELF\x02";
const PT_INTERP: u32 = 3;

fn segment_types(program: &[u8]) -> Option<Vec<u32>> {
    if !program.starts_with(MAGIC) {
        return None;
    }
    let half = |at: usize| Some(u16::from_ne_bytes(program.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_ne_bytes(program.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let table = u64::from_ne_bytes(program.get(32..40)?.try_into().ok()?);
    let (size, count) = (usize::from(half(54)?), usize::from(half(56)?));
    let table = usize::try_from(table).ok()?;
    (0..count).map(|n| word(table.checked_add(n * size)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header with one program header of this type.
    fn program(segment: u32) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..5].copy_from_slice(MAGIC);
        bytes[32..40].copy_from_slice(&64_u64.to_ne_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_ne_bytes());
        bytes[56..58].copy_from_slice(&1_u16.to_ne_bytes());
        bytes[64..68].copy_from_slice(&segment.to_ne_bytes());
        bytes
    }

    #[test]
    fn only_a_program_without_an_interpreter_is_static() {
        let cut_off = program(1)[..60].to_vec();
        let mut far_table = program(1);
        far_table[32..40].copy_from_slice(&u64::MAX.to_ne_bytes());
        for (case, bytes, expected) in [
            ("a load segment", program(1), true),
            ("an interpreter", program(PT_INTERP), false),
            ("a script", b"#!/bin/sh".to_vec(), false),
            ("nothing", Vec::new(), false),
            ("a header without its table", cut_off, false),
            ("a table beyond the end", far_table, false),
        ] {
            assert_eq!(is_static(&bytes), expected, "{case}");
        }
    }

    #[test]
    fn a_stock_program_is_dynamic() {
        // Cargo links dynamically unless configured otherwise.
        let expected = cfg!(target_feature = "crt-static");
        assert_eq!(is_static(&fs::read(SELF).unwrap()), expected);
    }
}
