//! Compiles the programs that run in containers of our own, so that they are a part of `sameport` and need no image from
//! anywhere.

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
    process::Command,
};

/// Where their sources are.
const FOLDER: &str = "src/programs";
/// Their names.
const PROGRAMS: [&str; 2] = ["pause", "until_eof"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={FOLDER}");
    println!("cargo::rerun-if-changed=build.rs");
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    if !["x86_64", "aarch64"].contains(&arch.as_str()) {
        return Err(format!("sameport's sandbox is written for x86_64 and aarch64, not for {arch}").into());
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    PROGRAMS.iter().try_for_each(|program| compile(program, &out.join(program)))
}

fn compile(name: &str, program: &Path) -> Result<(), Box<dyn Error>> {
    let source = format!("{FOLDER}/{name}.rs");
    let mut rustc = Command::new(env::var("RUSTC")?);
    rustc
        .args([&source, "--crate-name", name, "--crate-type=bin", "--edition=2024", "--target"])
        .arg(env::var("TARGET")?)
        .args(["-Copt-level=s", "-Cpanic=abort", "-Cstrip=symbols", "-Crelocation-model=static"])
        .args(["-Clink-arg=-nostartfiles", "-Clink-arg=-nostdlib", "-Clink-arg=-static"])
        .args(["-Clink-arg=-Wl,--build-id=none", "-o"])
        .arg(program)
        // They are meant for the main program: among them may be flags that this one cannot be built with.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    let status = rustc.status()?;
    if !status.success() {
        return Err(format!("cannot compile {source}: {status}").into());
    }
    Ok(())
}
