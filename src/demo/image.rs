//! The demo's image, which contains this program and the libraries that it needs.

use std::{fs, io, process::Command};

use crate::{
    engine::{
        Engine,
        images::{File, ImageSpec, architecture, digest},
    },
    spec::Image,
};

/// The program that the image contains.
const OWN_EXE: &str = "/proc/self/exe";
/// Its path in the image.
const PROGRAM: &str = "sameport";
/// The folder of libraries in the image.
const LIBRARIES: &str = "lib/sameport";

/// Why this program cannot be an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It is not an ELF file of this processor.
    #[error("{OWN_EXE} is not a program that can run in a container")]
    NotElf,
    /// The dynamic linker does not name the libraries.
    #[error("cannot list the libraries that sameport is linked with: {0}")]
    Libraries(String),
    /// A file cannot be read.
    #[error("cannot read {0}: {1}")]
    Unreadable(String, #[source] io::Error),
}

use super::{DemoError, project};

/// The demo's image on an engine.
#[derive(Clone, Debug)]
pub struct OwnImage {
    /// The name of the image, with a hash of the program as its tag.
    pub name: Image,
    /// The size of its files in bytes.
    pub size: usize,
}

/// Loads the image into the engine, unless the engine has it. Each build of this program has an image of its own name.
///
/// # Errors
/// If this program cannot be an image, or the engine rejects it.
pub async fn provide<E: Engine>(engine: &E) -> Result<OwnImage, DemoError> {
    let Program { files, entrypoint } = own_program()?;
    let size = files.iter().map(|file| file.bytes.len()).sum();
    let hash = digest(&files.iter().flat_map(|file| &file.bytes).copied().collect::<Vec<_>>());
    let name = Image(format!("localhost/sameport-demo:{}", hash.get(..12).unwrap_or(&hash)));
    if engine.image(&name).await?.is_some() {
        return Ok(OwnImage { name, size });
    }
    let spec = ImageSpec {
        name: name.0.clone(),
        architecture: architecture().to_owned(),
        files,
        entrypoint,
        user: project::USER.to_owned(),
        exposed: vec![format!("{}/tcp", project::PORT)],
        ..ImageSpec::default()
    };
    let archive = spec.archive().map_err(|error| ImageError::Unreadable(spec.name.clone(), error))?;
    engine.load_image(archive).await?;
    Ok(OwnImage { name, size })
}

/// The files that run this program as a server of the demo, and the command that does.
struct Program {
    files: Vec<File>,
    entrypoint: Vec<String>,
}

fn own_program() -> Result<Program, ImageError> {
    let program = read(OWN_EXE)?;
    let linker = dynamic_linker(&program).ok_or(ImageError::NotElf)?;
    let executable = |path: &str, bytes| File { path: path.to_owned(), mode: 0o755, bytes };
    let mut files = vec![executable(PROGRAM, program)];
    let mut entrypoint = vec![format!("/{PROGRAM}"), "demo-server".to_owned()];
    if let Some(linker) = linker {
        files.push(executable(linker.trim_start_matches('/'), read(&linker)?));
        for Library { name, path } in libraries(&linker)? {
            files.push(executable(&format!("{LIBRARIES}/{name}"), read(&path)?));
        }
        // Without its own search paths, which are those of this host.
        entrypoint.splice(0..0, [linker, "--library-path".to_owned(), format!("/{LIBRARIES}")]);
    }
    Ok(Program { files, entrypoint })
}

fn read(path: &str) -> Result<Vec<u8>, ImageError> {
    fs::read(path).map_err(|error| ImageError::Unreadable(path.to_owned(), error))
}

/// A library as the program names it, and the file on this host.
#[derive(Debug, PartialEq, Eq)]
struct Library {
    name: String,
    path: String,
}

/// The libraries of this program, as its dynamic linker finds them: ld.so(8), which is what ldd(1) runs.
fn libraries(linker: &str) -> Result<Vec<Library>, ImageError> {
    // To the linker, `/proc/self` is itself.
    let own_exe = format!("/proc/{}/exe", std::process::id());
    let output = Command::new(linker).args(["--list", &own_exe]).output();
    let output = output.map_err(|error| ImageError::Libraries(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(ImageError::Libraries(said));
    }
    Ok(listed(&String::from_utf8_lossy(&output.stdout)))
}

/// Lines such as `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f…)`. The kernel's own library has no file, and the
/// linker has no arrow.
fn listed(text: &str) -> Vec<Library> {
    let library = |line: &str| {
        let (name, rest) = line.trim().split_once(" => ")?;
        let (path, _) = rest.rsplit_once(" (")?;
        path.starts_with('/').then(|| Library { name: name.to_owned(), path: path.to_owned() })
    };
    text.lines().filter_map(library).collect()
}

/// The dynamic linker that a program names (`PT_INTERP`, elf(5)); `Some(None)` for a static one, which includes static
/// PIEs. `None` if it is not a 64-bit ELF file in the native byte order.
fn dynamic_linker(program: &[u8]) -> Option<Option<String>> {
    if !program.starts_with(MAGIC) {
        return None;
    }
    let number = |at: usize, size: usize| {
        let bytes = program.get(at..at.checked_add(size)?)?;
        let mut all = [0; 8];
        match cfg!(target_endian = "little") {
            true => all[..size].copy_from_slice(bytes),
            false => all[8 - size..].copy_from_slice(bytes),
        }
        usize::try_from(u64::from_ne_bytes(all)).ok()
    };
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for entry in 0..count {
        let header = table.checked_add(entry * size)?;
        if number(header, 4)? == PT_INTERP {
            let (offset, length) = (number(header + 8, 8)?, number(header + 32, 8)?);
            let path = program.get(offset..offset.checked_add(length)?)?;
            return String::from_utf8(path.strip_suffix(b"\0")?.to_vec()).ok().map(Some);
        }
    }
    Some(None)
}

const MAGIC: &[u8] = b"\x7fELF\x02";
const PT_INTERP: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const LINKER: &[u8] = b"/lib64/ld.so\0";

    /// An ELF header with one program header of this type, which is of the text at the end.
    fn program(segment: usize) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..5].copy_from_slice(MAGIC);
        bytes[32..40].copy_from_slice(&64_u64.to_ne_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_ne_bytes());
        bytes[56..58].copy_from_slice(&1_u16.to_ne_bytes());
        bytes[64..68].copy_from_slice(&u32::try_from(segment).unwrap().to_ne_bytes());
        bytes[72..80].copy_from_slice(&120_u64.to_ne_bytes());
        bytes[96..104].copy_from_slice(&(LINKER.len() as u64).to_ne_bytes());
        bytes.extend(LINKER);
        bytes
    }

    #[test]
    fn a_program_names_its_dynamic_linker() {
        let cut_off = program(1)[..60].to_vec();
        let mut far_table = program(1);
        far_table[32..40].copy_from_slice(&u64::MAX.to_ne_bytes());
        let mut far_text = program(PT_INTERP);
        far_text[72..80].copy_from_slice(&u64::MAX.to_ne_bytes());
        for (case, bytes, expected) in [
            ("a load segment", program(1), Some(None)),
            ("an interpreter", program(PT_INTERP), Some(Some("/lib64/ld.so".to_owned()))),
            ("a script", b"#!/bin/sh".to_vec(), None),
            ("nothing", Vec::new(), None),
            ("a header without its table", cut_off, None),
            ("a table beyond the end", far_table, None),
            ("a path beyond the end", far_text, None),
        ] {
            assert_eq!(dynamic_linker(&bytes), expected, "{case}");
        }
    }

    #[test]
    fn libraries_are_those_with_a_file() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd2f9d5000)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f0a)\n\
                    \tlibgone.so => not found\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f0b)\n";
        let libc =
            Library { name: "libc.so.6".to_owned(), path: "/lib/x86_64-linux-gnu/libc.so.6".to_owned() };
        assert_eq!(listed(text), [libc]);
    }

    #[test]
    fn this_program_comes_with_what_it_is_linked_with() {
        let program = own_program().unwrap();
        let is_static = cfg!(target_feature = "crt-static");
        assert_eq!(program.files.len() == 1, is_static, "{:?}", program.entrypoint);
        let has_libc = program.files.iter().any(|file| file.path.starts_with("lib/sameport/libc."));
        assert_eq!(has_libc, !is_static, "{:?}", program.entrypoint);
    }
}
