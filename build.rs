//! Compiles the sandbox's own program, so that it is a part of `sameport` and needs no image from anywhere.

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
    process::Command,
};

const SOURCE: &str = "src/pause.rs";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed=build.rs");
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    if !["x86_64", "aarch64"].contains(&arch.as_str()) {
        return Err(format!("sameport's sandbox is written for x86_64 and aarch64, not for {arch}").into());
    }
    let program = PathBuf::from(env::var("OUT_DIR")?).join("pause");
    compile(&program)?;
    Ok(())
}

fn compile(program: &Path) -> Result<(), Box<dyn Error>> {
    let mut rustc = Command::new(env::var("RUSTC")?);
    rustc
        .args([SOURCE, "--crate-name=pause", "--crate-type=bin", "--edition=2024", "--target"])
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
        return Err(format!("cannot compile {SOURCE}: {status}").into());
    }
    Ok(())
}
