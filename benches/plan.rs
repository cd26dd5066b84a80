//! How long it takes to read a large project, and to plan its first step.
//!
//! Prints seconds, the fastest of some rounds, for projects of more and more services: `cargo bench --bench plan`.

#![allow(clippy::print_stdout, reason = "this is what it is for")]

use std::{
    error::Error,
    fmt::Write as _,
    fs,
    hint::black_box,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use sameport::{
    compose::{self, Options},
    plan::{Desired, Observed, plan},
};

const SERVICES: [usize; 3] = [100, 1_000, 10_000];
const ROUNDS: usize = 5;

fn fastest<T>(act: impl Fn() -> T) -> Duration {
    let rounds = (0..ROUNDS).map(|_| {
        let begun = Instant::now();
        black_box(act());
        begun.elapsed()
    });
    rounds.min().unwrap_or_default()
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("sameport-plan-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let measured = measure(&Options { current_dir: folder.clone(), ..Options::default() });
    fs::remove_dir_all(folder)?;
    measured
}

fn measure(options: &Options) -> Result<(), Box<dyn Error>> {
    println!("services  read      plan");
    for services in SERVICES {
        let mut text = "services:\n".to_owned();
        for number in 0..services {
            writeln!(text, "  s{number}: {{ image: \"app:1\", expose: [80] }}")?;
        }
        fs::write(options.current_dir.join("compose.yaml"), text)?;
        let desired = Desired::all(compose::load(options)?.project);
        let (observed, now) = (Observed::default(), Timestamp::now());
        if plan(&desired, &observed, now).actions.is_empty() {
            return Err("there is nothing to do".into());
        }
        let read = fastest(|| compose::load(options));
        let planned = fastest(|| plan(&desired, &observed, now));
        println!("{services:<9} {:<8.4}  {:.4}", read.as_secs_f64(), planned.as_secs_f64());
    }
    Ok(())
}
