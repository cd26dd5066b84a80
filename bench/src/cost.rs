//! What programs of BPF take, by the kernel's own statistics (`BPF_ENABLE_STATS`).

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use anyhow::{Context as _, Result, anyhow};
use aya::programs::{
    ProgramInfo,
    links::{FdLink, PinnedLink},
    loaded_programs,
};

/// What a program has taken so far.
#[derive(Clone, Copy)]
pub struct Cost {
    nanoseconds: u64,
    /// How often it ran.
    pub runs: u64,
}

impl Cost {
    /// Of the program that a pinned link attaches: others on the host may have the same name.
    pub fn of_link(path: &Path) -> Result<Self> {
        let link = FdLink::from(PinnedLink::from_pin(path).with_context(|| path.display().to_string())?);
        let id = link.info()?.program_id();
        let program = loaded_programs().filter_map(Result::ok).find(|info| info.id() == id);
        Self::told(program.with_context(|| format!("the program of {} is not there", path.display()))?)
    }

    fn told(program: ProgramInfo) -> Result<Self> {
        let file = program.fd()?;
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_fd().as_raw_fd()))?;
        let value = |key: &str| -> Result<u64> {
            let line = info.lines().find_map(|line| line.strip_prefix(key));
            let line = line.ok_or_else(|| anyhow!("the kernel tells no {key} of a program"))?;
            Ok(line.trim_start_matches(':').trim().parse()?)
        };
        Ok(Self { nanoseconds: value("run_time_ns")?, runs: value("run_cnt")? })
    }

    /// Nanoseconds since then.
    pub fn since(self, before: Self) -> f64 {
        self.nanoseconds.saturating_sub(before.nanoseconds) as f64
    }

    /// Nanoseconds of one run since then; none if there was no run.
    pub fn mean_since(self, before: Self) -> Option<f64> {
        let runs = self.runs.checked_sub(before.runs).filter(|runs| *runs > 0)?;
        Some((self.nanoseconds - before.nanoseconds) as f64 / runs as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_run_has_no_mean() {
        let at = |nanoseconds, runs| Cost { nanoseconds, runs };
        assert_eq!(at(300, 6).mean_since(at(100, 2)), Some(50.0));
        assert_eq!(at(300, 6).mean_since(at(300, 6)), None);
    }
}
