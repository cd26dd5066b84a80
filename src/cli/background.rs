//! Supervisors in the background: a process that outlives the command that starts it.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

use sameport::{
    api::Client,
    spec::ProjectName,
    supervisor::{
        engine_lock::{self, EngineLockError},
        lock::{Lock, LockError},
        paths::open_log,
    },
};
use tokio::time::Instant;

use super::{context::Context, error::CliError, session::Session, takeover};

/// Limit for the start, until the supervisor answers on its socket.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Interval at which the start is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How to start a supervisor.
pub struct Start {
    /// Arguments that select the same project.
    pub project: Vec<OsString>,
    /// Variables to set in addition to those of this process.
    pub environment: BTreeMap<String, String>,
    /// Whether the supervisor resumes what was requested last; otherwise it waits for a request.
    pub resume: bool,
    /// Whether the supervisor applies the file whenever it changes.
    pub watch: bool,
}

/// Starts a supervisor in the background and waits until it answers.
pub async fn spawn(context: &Context, name: &ProjectName, start: &Start) -> Result<Session, CliError> {
    let deadline = Instant::now() + START_TIMEOUT;
    let lock = context.paths()?.lock(name);
    // Checked here so that this command can report who holds the lock. A supervisor that another command has just
    // started answers soon.
    while let Err(error) = Lock::acquire(&lock) {
        if let Some(session) = Session::running(context, name).await? {
            return Ok(session);
        }
        if !matches!(error, LockError::Held { .. }) || Instant::now() > deadline {
            return Err(error.into());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    let docker = context.engine().await?;
    if let Some(owner) = engine_lock::owner(&docker, name).await?
        && !owner.is_of_this_user()
    {
        return Err(EngineLockError::Held { project: name.clone(), owner: Box::new(owner) }.into());
    }
    let log = context.paths()?.log(name);
    let mut child = launch(context, name, start)?;
    loop {
        if let Some(client) = Client::connect(&context.paths()?.socket(name)).await? {
            return Ok(Session::Other(client));
        }
        let ended = child.try_wait().map_err(CliError::io("the supervisor"))?;
        let mut is_begun = false;
        if ended.is_some() {
            // Another command has started a supervisor at the same time.
            if let Some(session) = Session::running(context, name).await? {
                return Ok(session);
            }
            // That supervisor does not answer yet, but it will.
            is_begun =
                takeover::holder(&lock).is_some() || engine_lock::owner(&docker, name).await?.is_some();
        }
        if (ended.is_some() && !is_begun) || Instant::now() > deadline {
            let words = fs::read_to_string(&log).unwrap_or_default();
            let last: Vec<_> = words.lines().rev().take(5).collect();
            let last: Vec<_> = last.into_iter().rev().collect();
            return Err(CliError::failed(
                format!("the supervisor in the background did not start: {}", last.join("\n")),
                Some(&format!("its log is {}", log.display())),
            ));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn launch(context: &Context, name: &ProjectName, start: &Start) -> Result<Child, CliError> {
    let path = context.paths()?.log(name);
    let fail =
        |error: io::Error| CliError::io(format!("cannot start the supervisor ({})", path.display()))(error);
    let log = open_log(&path).map_err(fail)?;
    let program = std::env::current_exe().map_err(fail)?;
    Command::new(program)
        .args(&start.project)
        .args(["supervise", "--background"])
        .args(start.resume.then_some("--resume"))
        .args(start.watch.then_some("--watch"))
        .envs(&start.environment)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        // Ctrl-C in this terminal must not reach the supervisor.
        .process_group(0)
        .spawn()
        .map_err(fail)
}
