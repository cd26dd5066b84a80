//! A constant rate, by oha, which is part of this binary: it notes how long requests take from the moment on at which
//! they were due, also when an earlier one was late (no coordinated omission).

use std::{
    ffi::OsString,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use serde_json::Value;

use super::Connections;
use crate::command::program;

/// The word by which this binary becomes oha.
pub const WORD: &str = "oha";

/// What came of it.
#[derive(Clone, Debug)]
pub struct Load {
    /// Good answers.
    pub answered: f64,
    /// Requests that failed, and how.
    pub failures: Vec<(String, f64)>,
    /// Percentile and milliseconds.
    pub latencies: Vec<(f64, f64)>,
}

/// One that goes on.
pub struct Running(Child);

/// Is oha, with these arguments.
pub fn be(args: impl IntoIterator<Item = OsString>) -> Result<()> {
    let args = [OsString::from(WORD)].into_iter().chain(args);
    tokio::runtime::Runtime::new()?.block_on(oha::run(oha::Opts::parse_from(args)))
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Requests a second.
    pub rate: f64,
    /// For so many seconds.
    pub seconds: u32,
    /// A request without an answer has failed after so many seconds.
    pub patience: u32,
}

/// Begins to send requests to `url`.
pub fn start(place: &str, url: &str, connections: Connections, pace: Pace) -> Result<Running> {
    /// Enough for requests that come while others wait.
    const WORKERS: u32 = 200;
    let own = std::env::current_exe()?;
    let Pace { rate, seconds, patience } = pace;
    let words = format!(
        "{place} {} {WORD} --no-tui --output-format json --latency-correction -w -t {patience}s -c {WORKERS} -q {rate:.0} -z {seconds}s {url}",
        own.display()
    );
    let close: &[&str] = match connections {
        Connections::Fresh => &["--disable-keepalive"],
        Connections::Kept => &[],
    };
    let mut command: Command = program(&words, close);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    Ok(Running(child))
}

impl Running {
    /// Waits for its end.
    pub fn finish(self) -> Result<Load> {
        let output = self.0.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!("oha: {}\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        read(&text).with_context(|| format!("oha said:\n{text}"))
    }

    /// Has it stop now and tell what it has seen so far.
    pub fn stop(self) -> Result<Load> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id())?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)?;
        self.finish()
    }
}

impl Load {
    /// The latency at a percentile, in ms.
    pub fn at(&self, percentile: f64) -> Result<f64> {
        let found = self.latencies.iter().find(|(at, _)| (at - percentile).abs() < 1e-9);
        Ok(found.with_context(|| format!("no {percentile}th percentile"))?.1)
    }

    /// How many requests failed.
    pub fn failed(&self) -> f64 {
        self.failures.iter().map(|(_, count)| count).sum()
    }
}

fn read(text: &str) -> Result<Load> {
    /// Requests under way when the time was up.
    const OVER: &str = "aborted due to deadline";
    let report: Value = serde_json::from_str(text)?;
    let counts = |name: &str| {
        let object = report[name].as_object().cloned().unwrap_or_default();
        object.into_iter().map(|(key, count)| (key, count.as_f64().unwrap_or_default()))
    };
    let (good, bad): (Vec<_>, Vec<_>) =
        counts("statusCodeDistribution").partition(|(status, _)| status.starts_with('2'));
    let broken = counts("errorDistribution").filter(|(error, _)| error != OVER);
    let percentiles = report["latencyPercentiles"].as_object().context("no percentiles")?;
    let latencies = percentiles
        .iter()
        .filter_map(|(name, seconds)| Some((name.strip_prefix('p')?.parse().ok()?, seconds.as_f64()? * 1e3)))
        .collect();
    Ok(Load {
        answered: good.iter().map(|(_, count)| count).sum(),
        failures: bad.into_iter().chain(broken).collect(),
        latencies,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_answers_failures_and_percentiles_are_told_apart() {
        let load = read(
            r#"{"statusCodeDistribution": {"200": 90, "502": 3},
                "errorDistribution": {"connection refused": 2, "aborted due to deadline": 5},
                "latencyPercentiles": {"p50": 0.001, "p99": 0.02, "p99.9": 0.5}}"#,
        )
        .unwrap();
        assert_eq!((load.answered, load.failed()), (90.0, 5.0));
        assert_eq!(load.at(99.9).unwrap(), 500.0);
        assert!(load.at(95.0).is_err());
    }
}
