//! What every measure needs.

use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;
use tokio::{
    runtime::{self, Runtime},
    signal::unix::{SignalKind, signal},
};

use crate::{client::Client, cores::Shares, docker::Docker, extent::Extent};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The tools of a run, and what has to be removed at its end: in this order.
pub struct Bench {
    /// How much is measured.
    pub extent: Extent,
    /// The binary that is measured.
    pub sameport: PathBuf,
    /// Who computes where.
    pub cores: Shares,
    /// Where load comes from.
    pub client: Client,
    /// Containers.
    pub docker: Docker,
    files: TempDir,
    bar: ProgressBar,
    _interrupts: Runtime,
}

impl Bench {
    /// Makes what is needed; `steps` are those that there will be.
    pub fn new(extent: Extent, sameport: PathBuf, steps: u64) -> Result<Self> {
        let interrupts = note_interrupts()?;
        let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {pos}/{len} {wide_msg}")?;
        let bar = ProgressBar::new(steps).with_style(style);
        let docker = Docker::new()?;
        let cores = Shares::of_machine()?;
        let client = Client::new(&docker.name, &cores)?;
        let files = tempfile::Builder::new().prefix("sameport-bench").tempdir()?;
        Ok(Self { extent, sameport, cores, client, docker, files, bar, _interrupts: interrupts })
    }

    /// A folder for files that containers see.
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    /// The name of a project of this run.
    pub fn project(&self, what: &str) -> String {
        format!("{}-{what}", self.docker.name)
    }

    /// Says what comes next, on a terminal only.
    ///
    /// # Errors
    /// When somebody has pressed Ctrl-C or ended the run by `kill`: everything is removed then.
    pub fn step(&self, what: &str) -> Result<()> {
        self.bar.inc(1);
        self.bar.set_message(what.to_owned());
        if interrupted() {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Waits for that long.
    ///
    /// # Errors
    /// As of [`Bench::step`], and at once.
    pub fn pause(&self, time: Duration) -> Result<()> {
        let begin = Instant::now();
        while let Some(left) = time.checked_sub(begin.elapsed()) {
            if interrupted() {
                bail!("interrupted");
            }
            thread::sleep(left.min(Duration::from_secs(1)));
        }
        Ok(())
    }

    /// No more steps.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Whether somebody wants the run to end: what fails then says little.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// From now on they are noted and no longer end the process by themselves, as long as what is returned lives. The programs
/// of the run get Ctrl-C as well, and so the step that they belong to fails at once; of `kill` they hear nothing, and the step
/// comes to its end.
fn note_interrupts() -> Result<Runtime> {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut kinds = vec![SignalKind::interrupt(), SignalKind::terminate()];
    // `nohup` has none, and wants its end not to matter.
    if io::stderr().is_terminal() {
        kinds.push(SignalKind::hangup());
    }
    for kind in kinds {
        let mut received = {
            let _entered = runtime.enter();
            signal(kind).context("cannot heed signals")?
        };
        runtime.spawn(async move {
            if received.recv().await.is_some() {
                INTERRUPTED.store(true, Ordering::Relaxed);
            }
        });
    }
    Ok(runtime)
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal, raise};

    use super::*;

    #[test]
    fn who_kills_the_run_has_it_clean_up() {
        let _heeded = note_interrupts().unwrap();
        raise(Signal::SIGTERM).unwrap();
        let begin = Instant::now();
        while !interrupted() {
            assert!(begin.elapsed() < Duration::from_secs(10), "SIGTERM is not noted");
            thread::sleep(Duration::from_millis(1));
        }
    }
}
