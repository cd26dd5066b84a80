//! Reads the files of a project again: on SIGHUP, and on changes if the files are watched.

use std::time::Duration;

use sameport::{
    compose::{self, Loaded, Severity},
    files::{Files, Watch, WatchError},
    spec::ProjectName,
    supervisor::{EventKind, Mistake, Reading, WatchRequest},
};
use sha2::{Digest, Sha256};
use tokio::{sync::mpsc, time::Instant};

use super::{context::Context, error::CliError, session::Session, variables};

/// Pause before applying a changed file again after the engine could not be reached.
const RETRY: Duration = Duration::from_secs(5);

/// The files of a project that this process supervises.
pub struct Reload<'a> {
    context: &'a Context,
    name: ProjectName,
    /// The files that were read last, with their contents.
    files: Files,
    watch: Option<Watch>,
    asked: Option<mpsc::Receiver<WatchRequest>>,
    /// How to restart the supervisor with other files or options, for messages.
    anew: String,
    retry: Option<Retry>,
}

/// A planned attempt to apply the same file again.
#[derive(Debug)]
struct Retry {
    at: Instant,
    /// The error that was reported already.
    error: String,
}

impl<'a> Reload<'a> {
    /// Starts with files that were just read.
    pub fn new(context: &'a Context, name: &ProjectName, files: Files) -> Self {
        Self {
            context,
            name: name.clone(),
            files,
            watch: None,
            asked: None,
            anew: String::new(),
            retry: None,
        }
    }

    /// Watches the files from now on.
    ///
    /// # Errors
    /// If they cannot be watched.
    pub fn watch(&mut self) -> Result<(), WatchError> {
        if self.watch.is_none() {
            self.watch = Some(Watch::new(self.files.clone())?);
        }
        Ok(())
    }

    /// Accepts requests to watch the files from now on. A client that reads other files is rejected, with `anew` as
    /// help.
    pub fn hear(&mut self, session: &Session, anew: impl Into<String>) {
        self.asked = session.watch_asked();
        self.anew = anew.into();
    }

    /// Waits until the files should be read again. Cancel safe: it can be dropped and called again.
    ///
    /// # Errors
    /// If changes can no longer be detected at once. Call it again to keep waiting.
    pub async fn wanted(&mut self) -> Result<(), WatchError> {
        loop {
            tokio::select! {
                changed = changed(&mut self.watch) => {
                    changed?;
                    self.retry = None;
                    return Ok(());
                }
                Some(asked) = next(&mut self.asked) => {
                    if self.take(asked) {
                        return Ok(());
                    }
                }
                () = due(&self.retry) => return Ok(()),
            }
        }
    }

    /// Reads the files.
    ///
    /// # Errors
    /// If a file is invalid, the project's name has changed, or a variable is missing.
    pub fn load(&mut self) -> Result<Loaded, CliError> {
        let (loaded, files) = self.context.read();
        if let Some(watch) = &mut self.watch {
            watch.follow(files.clone());
        }
        self.files = files;
        let loaded = loaded?;
        variables::check(&self.context.state(&self.name)?.load()?.state, &loaded.variables)?;
        match loaded.project.name == self.name {
            true => Ok(loaded),
            false => Err(CliError::failed(
                format!("the file is of the project {} now, and not of {}", loaded.project.name, self.name),
                Some(
                    "a project cannot change its name: `sameport down` removes the one, `sameport up` makes the other",
                ),
            )),
        }
    }

    /// Notes that the file was applied.
    pub fn taken(&mut self) {
        self.retry = None;
    }

    /// The event that reports why the file was not applied; `None` if it was reported before. If the engine was only
    /// temporarily unavailable, another attempt is planned.
    pub fn refused(&mut self, error: &CliError) -> Option<EventKind> {
        let text = anstream::adapter::strip_str(&error.render().unwrap_or_default()).to_string();
        let before = self.retry.take();
        if let CliError::Engine(reason) = error
            && reason.is_passing()
        {
            self.retry = Some(Retry { at: Instant::now() + RETRY, error: text.clone() });
        }
        let told = before.is_some_and(|before| before.error == text);
        (!told).then(|| EventKind::Rejected { error: text, mistakes: mistakes(error) })
    }

    /// Handles a request to watch the files. Returns whether they have changed since the client read them.
    fn take(&mut self, asked: WatchRequest) -> bool {
        let here = compose::read(&self.context.options());
        let seen = &asked.reading;
        let refusal = match &here.result {
            Err(error) => Some(format!("it cannot read them: {}", error.render(false))),
            Ok(loaded) => other(&reading(loaded, &here.files), seen),
        };
        if let Some(reason) = refusal {
            asked.refuse(reason, self.anew.clone());
            return false;
        }
        let changed = here.files.fingerprint() != seen.content;
        if self.watch.is_none() {
            self.files = here.files;
        }
        match self.watch() {
            Ok(()) => asked.accept(),
            Err(error) => {
                asked.refuse(error.to_string(), error.help().to_owned());
                return false;
            }
        }
        changed
    }
}

/// What this process has read, for the supervisor to compare with its own files.
pub fn reading(loaded: &Loaded, files: &Files) -> Reading {
    Reading {
        compose: loaded.files.clone(),
        content: files.fingerprint(),
        meaning: format!("{:x}", Sha256::digest(&loaded.rendered)),
    }
}

/// Why the supervisor's files are not those of the client; `None` if they are.
fn other(mine: &Reading, seen: &Reading) -> Option<String> {
    let named = |reading: &Reading| {
        reading.compose.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    };
    if mine.compose != seen.compose {
        return Some(format!("it was started with {}, not with {}", named(mine), named(seen)));
    }
    // If the contents differ, a different result may come from the change alone.
    let is_other = mine.content == seen.content && mine.meaning != seen.meaning;
    is_other.then(|| {
        "it was started with other variables or options, which change what the file means".to_owned()
    })
}

fn mistakes(error: &CliError) -> Vec<Mistake> {
    let CliError::Load(error) = error else { return Vec::new() };
    let errors = error.diagnostics().iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
    errors
        .map(|diagnostic| Mistake {
            message: diagnostic.message.clone(),
            file: diagnostic.file.clone(),
            line: diagnostic.line,
            column: diagnostic.column,
            help: diagnostic.help.clone(),
        })
        .collect()
}

async fn changed(watch: &mut Option<Watch>) -> Result<(), WatchError> {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

async fn next(asked: &mut Option<mpsc::Receiver<WatchRequest>>) -> Option<WatchRequest> {
    match asked {
        Some(asked) => asked.recv().await,
        None => std::future::pending().await,
    }
}

async fn due(retry: &Option<Retry>) {
    match retry {
        Some(retry) => tokio::time::sleep_until(retry.at).await,
        None => std::future::pending().await,
    }
}
