//! What every measure needs.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;

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
}

impl Bench {
    /// Makes what is needed; `steps` are those that there will be.
    pub fn new(extent: Extent, sameport: PathBuf, steps: u64) -> Result<Self> {
        note_interrupts();
        let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {pos}/{len} {wide_msg}")?;
        let bar = ProgressBar::new(steps).with_style(style);
        let docker = Docker::new()?;
        let cores = Shares::of_machine()?;
        let client = Client::new(&docker.name, &cores)?;
        let files = tempfile::Builder::new().prefix("sameport-bench").tempdir()?;
        Ok(Self { extent, sameport, cores, client, docker, files, bar })
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
    /// When somebody has pressed Ctrl-C: everything is removed then.
    pub fn step(&self, what: &str) -> Result<()> {
        self.bar.inc(1);
        self.bar.set_message(what.to_owned());
        if INTERRUPTED.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// No more steps.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// The programs of the run get the same signal, and so the step that they belong to fails at once.
fn note_interrupts() {
    thread::spawn(|| {
        let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
        else {
            return;
        };
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    });
}
