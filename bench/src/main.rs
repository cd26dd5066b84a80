//! Compares sameport with what one would pick instead: the same replicas, on this machine, under the same load, by turns.
//!
//! `cargo run --release -p sameport-bench`; see `bench/README.md`.

mod bench;
mod chart;
mod client;
mod command;
mod compose;
mod cores;
mod cost;
mod docker;
mod extent;
mod host;
mod http;
mod load;
mod measure;
mod peer;
mod pod;
mod project;
mod report;
mod results;

use std::{
    ffi::OsString,
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Parser;

use crate::{
    bench::{Bench, interrupted},
    extent::Extent,
    host::Host,
    results::{Id, Results},
};

/// Compares sameport with proxies, address translation, Docker's own ways, and bare processes, on this machine.
///
/// It needs root, Docker Engine, and what `bench/install` installs. Ctrl-C ends it and removes what it made.
#[derive(Parser)]
#[command(after_help = "Example: cargo run --release -p sameport-bench -- --quick --only F1,F2")]
struct Args {
    /// Fewer and shorter rounds: some minutes
    #[arg(long)]
    quick: bool,
    /// Only see that every peer starts and every measure yields a number
    #[arg(long, conflicts_with = "quick")]
    smoke: bool,
    /// Measure this binary of sameport instead of building one
    #[arg(long, value_name = "FILE")]
    sameport: Option<PathBuf>,
    /// Only these measures
    #[arg(long, value_delimiter = ',', value_name = "F1,F2,…")]
    only: Vec<Id>,
    /// Write RESULTS.md, results.json and results.svg there
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Draw and write a results.json again, and measure nothing
    #[arg(long, value_name = "FILE", requires = "out", conflicts_with_all = ["quick", "smoke", "sameport", "only"])]
    from: Option<PathBuf>,
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let done = match args.next() {
        Some(word) if word == load::oha::WORD => load::oha::be(args),
        Some(word) if word == measure::choice::WORD => measure::choice::be_replica(),
        Some(word) if word == measure::hooks::WORD => measure::hooks::be_worker(args.next()),
        _ => compare(Args::parse_from(std::env::args_os())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compare(args: Args) -> Result<()> {
    let results = match &args.from {
        Some(file) => serde_json::from_str(&fs::read_to_string(file)?)?,
        None => measure(&args)?,
    };
    writeln!(std::io::stdout(), "{}", report::summary(&results))?;
    if let Some(folder) = &args.out {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("results.json"), serde_json::to_string_pretty(&results)? + "\n")?;
        fs::write(folder.join("RESULTS.md"), report::page(&results))?;
        chart::draw(&results, &folder.join("results.svg"))?;
    }
    Ok(())
}

fn measure(args: &Args) -> Result<Results> {
    if !nix::unistd::geteuid().is_root() {
        bail!("this needs root: network namespaces, address translation, and BPF");
    }
    let extent = match (args.quick, args.smoke) {
        (true, _) => Extent::QUICK,
        (_, true) => Extent::SMOKE,
        _ => Extent::FULL,
    };
    let wanted = |id: &Id| args.only.is_empty() || args.only.contains(id);
    let settings: Vec<_> =
        measure::ALL.into_iter().filter(|setting| setting.answers.iter().any(wanted)).collect();
    let sameport = match &args.sameport {
        Some(file) => fs::canonicalize(file).with_context(|| format!("there is no {}", file.display()))?,
        None => build()?,
    };
    let begin = Instant::now();
    let steps = settings.iter().map(|setting| (setting.steps)(&extent)).sum();
    let bench = Bench::new(extent, sameport, steps)?;
    let mut measures = Vec::new();
    for setting in &settings {
        let found = (setting.measure)(&bench).map_err(|error| match interrupted() {
            true => anyhow!("interrupted"),
            false => error.context(format!("{:?} cannot be measured", setting.answers)),
        })?;
        measures.extend(found.into_iter().filter(|measure| wanted(&measure.id)));
    }
    bench.finish();
    measures.sort_by_key(|measure| measure.id);
    // Without peers their images are not needed.
    let alone = settings.iter().flat_map(|setting| setting.answers).all(|id| matches!(id, Id::F8 | Id::F10));
    let versions = if alone { Vec::new() } else { peer::versions()? };
    Ok(Results { host: Host::this(versions)?, took: begin.elapsed().as_secs(), measures })
}

/// Builds the binary that is measured, as this one was built.
fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let own = std::env::current_exe()?;
    let (folder, target) =
        own.parent().zip(own.ancestors().nth(2)).context("this binary is in no target folder")?;
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--locked", "--package", "sameport", "--bin", "sameport", "--target-dir"])
        .arg(target)
        .args((!cfg!(debug_assertions)).then_some("--release"))
        .current_dir(docker::root())
        .stdin(Stdio::null())
        .status()
        .context("cannot build sameport")?;
    if !status.success() {
        bail!("sameport cannot be built: {status}");
    }
    Ok(folder.join("sameport"))
}
