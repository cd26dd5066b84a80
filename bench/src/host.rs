//! This machine: what it is, and how busy it was.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::command::sh;

/// What the figures were measured on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Host {
    /// The day, in UTC.
    pub date: String,
    /// How the benchmark was called.
    pub command: String,
    /// The processor, and how many cores there are.
    pub processor: String,
    /// Memory in GiB.
    pub memory: u64,
    /// The kernel's release.
    pub kernel: String,
    /// Programs and their versions.
    pub versions: Vec<(String, String)>,
}

impl Host {
    /// This machine, now.
    pub fn this(versions: Vec<(String, String)>) -> Result<Self> {
        let cpus = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let cores = cpus.lines().filter(|line| line.starts_with("processor")).count();
        let model = field(&cpus, "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let memory = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
        let memory = field(&memory, "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        let args: Vec<_> = std::env::args().skip(1).collect();
        Ok(Self {
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
            command: format!("cargo run --release -p sameport-bench -- {}", args.join(" "))
                .trim_end_matches([' ', '-'])
                .to_owned(),
            processor: format!("{model}, {cores} cores"),
            memory: memory.unwrap_or_default() >> 20,
            kernel: sh("uname -r")?,
            versions,
        })
    }
}

/// Processor time that all of this machine's cores have spent on anything since it was booted.
pub fn busy() -> Result<Duration> {
    /// `USER_HZ` of every architecture that Docker runs on.
    const TICK: Duration = Duration::from_millis(10);
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let ticks = line.split_whitespace().skip(1).map(str::parse::<u32>).collect::<Result<Vec<_>, _>>()?;
    // user nice system idle iowait irq softirq steal: neither idle nor stolen by other guests.
    Ok(ticks
        .iter()
        .enumerate()
        .filter(|(at, _)| [0, 1, 2, 5, 6].contains(at))
        .map(|(_, ticks)| TICK * *ticks)
        .sum())
}
