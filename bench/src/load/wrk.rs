//! As many requests as there can be, by wrk.

use anyhow::{Context as _, Result, bail};

use super::Connections;
use crate::command::{program, run};

/// How many connections are open at once.
pub const CONNECTIONS: u32 = 32;

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Good answers in all.
    pub requests: f64,
    /// Good answers a second.
    pub rate: f64,
}

/// Loads `url` for so many seconds. `place` are the words by which a program is run where the clients are, with so many
/// threads.
pub fn load(place: &str, threads: usize, url: &str, connections: Connections, seconds: u32) -> Result<Load> {
    let words = format!("{place} wrk -t{threads} -c{CONNECTIONS} -d{seconds}s --timeout 5s {url}");
    let close: &[&str] = match connections {
        Connections::Fresh => &["-H", "Connection: close"],
        Connections::Kept => &[],
    };
    let text = run(&mut program(&words, close)).context("is wrk there? bench/install installs it")?;
    let load = read(&text).with_context(|| format!("wrk said:\n{text}"))?;
    if load.requests < 1.0 {
        bail!("no request to {url} was answered:\n{text}");
    }
    Ok(load)
}

/// Reads the report. Requests that failed are none, but a few may meet the end of the load.
fn read(text: &str) -> Result<Load> {
    let lines = || text.lines().map(str::trim);
    let all = lines().find_map(|line| line.split_once(" requests in ")).context("no number of requests")?;
    let all: f64 = all.0.parse()?;
    let rate = lines().find_map(|line| line.strip_prefix("Requests/sec:")).context("no requests a second")?;
    let rate: f64 = rate.trim().parse()?;
    let bad = lines().find_map(|line| line.strip_prefix("Non-2xx or 3xx responses:")).unwrap_or("0");
    let broken = lines().find_map(|line| line.strip_prefix("Socket errors:")).unwrap_or_default();
    let broken = broken.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<f64>().ok());
    let failed = bad.trim().parse::<f64>()? + broken.sum::<f64>();
    if failed > all / 100.0 {
        bail!("{failed} of {all} requests failed");
    }
    Ok(Load { requests: all, rate })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "Running 2s test @ http://x/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.00ms    1.00ms  10.00ms   90.00%
  25000 requests in 2.00s, 4.00MB read
Requests/sec:  12500.50
Transfer/sec:      2.00MB";

    #[test]
    fn the_report_is_read_and_failures_are_no_result() {
        let load = read(REPORT).unwrap();
        assert_eq!((load.requests, load.rate), (25000.0, 12500.5));
        let errors = REPORT.replace(
            "Requests/sec",
            "  Socket errors: connect 0, read 300, write 0, timeout 1\nRequests/sec",
        );
        assert!(read(&errors).unwrap_err().to_string().contains("301 of 25000"));
        let bad = REPORT.replace("Requests/sec", "  Non-2xx or 3xx responses: 251\nRequests/sec");
        assert!(read(&bad).is_err());
        assert!(read("").is_err());
    }
}
