//! A command in a running container, with its streams.

use std::{
    pin::{Pin, pin},
    time::Duration,
};

use bollard::{
    container::LogOutput,
    exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use nix::{sys::signal::Signal, unistd::Pid};
use tokio::io::AsyncWrite;

use crate::engine::{ContainerId, EngineError, ExecOptions, Ran, Tail};

use super::{Docker, of};

/// A piece of what a command wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecOutput {
    /// To standard output, or to its terminal.
    Stdout(Bytes),
    /// To standard error.
    Stderr(Bytes),
}

/// A command that runs.
pub struct ExecSession {
    /// What can be asked of it and about it.
    pub control: ExecControl,
    /// Its standard input; closing it is the end of file.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
    /// What it writes; the end of the stream is its end.
    pub output: BoxStream<'static, Result<ExecOutput, EngineError>>,
}

/// What can be asked of a command that runs, and about it.
#[derive(Clone, Debug)]
pub struct ExecControl {
    docker: Docker,
    id: String,
    what: String,
}

impl Docker {
    /// Runs a command in a running container.
    ///
    /// # Errors
    /// When the container does not run, or the command cannot be started.
    pub async fn exec(&self, id: &ContainerId, options: ExecOptions) -> Result<ExecSession, EngineError> {
        let what = of(id);
        let create = CreateExecOptions {
            attach_stdin: Some(options.stdin),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(options.tty),
            env: Some(options.environment),
            cmd: Some(options.command),
            privileged: Some(options.privileged),
            user: options.user,
            working_dir: options.working_dir,
            ..CreateExecOptions::default()
        };
        let made = self.call(&what, self.client.create_exec(&id.0, create)).await?;
        let start = StartExecOptions { detach: false, tty: options.tty, output_capacity: None };
        match self.call(&what, self.client.start_exec(&made.id, Some(start))).await? {
            StartExecResults::Attached { output, input } => {
                let (this, about) = (self.clone(), what.clone());
                let output =
                    output.map(move |piece| piece.map(told).map_err(|e| this.classify(e, &about))).boxed();
                let control = ExecControl { docker: self.clone(), id: made.id, what };
                Ok(ExecSession { control, input, output })
            }
            StartExecResults::Detached => Err(EngineError::Refused {
                message: "the engine ran the command without its streams".to_owned(),
            }),
        }
    }
}

impl Docker {
    /// Runs a command to its end, and kills it if it takes longer than it may.
    pub(super) async fn run_to_end(
        &self,
        id: &ContainerId,
        command: &ExecOptions,
    ) -> Result<Ran, EngineError> {
        let options = ExecOptions { tty: false, stdin: false, ..command.clone() };
        let ExecSession { control, mut output, .. } = self.exec(id, options).await?;
        let mut tail = Tail::default();
        {
            let mut read = pin!(async {
                while let Some(piece) = output.next().await {
                    let (ExecOutput::Stdout(bytes) | ExecOutput::Stderr(bytes)) = piece?;
                    tail.push(&bytes);
                }
                Ok::<_, EngineError>(())
            });
            match tokio::time::timeout(command.limit.unwrap_or(Duration::MAX), &mut read).await {
                Ok(read) => read?,
                Err(_) => {
                    control.kill().await?;
                    read.await?;
                }
            }
        }
        Ok(Ran { code: control.exit_code().await?, output: tail.finish() })
    }
}

impl ExecControl {
    /// Kills it. The engine has no call for that; on this host we send the signal ourselves, if we may.
    async fn kill(&self) -> Result<(), EngineError> {
        let told = self.docker.call(&self.what, self.docker.client.inspect_exec(&self.id)).await?;
        let pid = told.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0);
        if let (Some(pid), Some(true), true) = (pid, told.running, self.docker.local)
            && let Err(error) = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL)
        {
            tracing::debug!(%error, pid, "cannot end a command that takes too long");
        }
        Ok(())
    }

    /// Tells the command's terminal its size.
    ///
    /// # Errors
    /// When the engine does not take it, as after the command's end.
    pub async fn resize(&self, columns: u16, rows: u16) -> Result<(), EngineError> {
        let size = ResizeExecOptions { height: rows, width: columns };
        self.docker.call(&self.what, self.docker.client.resize_exec(&self.id, size)).await
    }

    /// Its exit code, once its output has ended.
    ///
    /// # Errors
    /// When the engine does not know.
    pub async fn exit_code(&self) -> Result<i64, EngineError> {
        // The output can end a moment before the engine has noted the exit.
        for _ in 0..50 {
            let told = self.docker.call(&self.what, self.docker.client.inspect_exec(&self.id)).await?;
            if let (Some(code), Some(false)) = (told.exit_code, told.running) {
                return Ok(code);
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        Err(EngineError::Busy { message: "the engine does not report how the command ended".to_owned() })
    }
}

fn told(piece: LogOutput) -> ExecOutput {
    match piece {
        LogOutput::StdErr { message } => ExecOutput::Stderr(message),
        LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => {
            ExecOutput::Stdout(message)
        }
    }
}
