//! How commands and the supervisor's process speak of the project's files. The supervisor itself reads none: whoever
//! began it does, and asks it for what is in them.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::{Rejection, Reply};

/// How long the one who reads the files may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What somebody read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The Compose files, in the order of merging.
    pub compose: Vec<PathBuf>,
    /// A digest of all files that were read, with those of variables.
    pub content: String,
    /// A digest of what they mean, with the variables of the reader's environment filled in.
    pub meaning: String,
}

/// A mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistake {
    /// What is wrong, in a sentence.
    pub message: String,
    /// In which file, if it is about one.
    pub file: Option<PathBuf>,
    /// In which line, from 1.
    pub line: Option<usize>,
    /// In which column of that line, in characters from 1.
    pub column: Option<usize>,
    /// What to do about it.
    pub help: Option<String>,
}

/// Somebody wants the files watched.
#[derive(Debug)]
pub struct WatchAsked {
    /// What they have read.
    pub reading: Reading,
    reply: oneshot::Sender<Reply>,
}

impl WatchAsked {
    /// The files are watched from now on.
    pub fn accept(self) {
        self.answer(Reply::Accepted);
    }

    /// They are not, for what reason, and what to do instead.
    pub fn refuse(self, reason: String, help: String) {
        self.answer(Reply::Rejected(Rejection::NotWatched { reason, help }));
    }

    fn answer(self, reply: Reply) {
        // Whoever asked may have gone; the files are watched all the same.
        let _ = self.reply.send(reply);
    }
}

/// The way to the one in the supervisor's process who reads the files.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    asks: mpsc::Sender<WatchAsked>,
    asked: Arc<Mutex<Option<mpsc::Receiver<WatchAsked>>>>,
}

impl Default for Reader {
    fn default() -> Self {
        let (asks, asked) = mpsc::channel(1);
        Self { asks, asked: Arc::new(Mutex::new(Some(asked))) }
    }
}

impl Reader {
    /// Is it from now on, also for who asked before; none where somebody is it already.
    pub fn hear(&self) -> Option<mpsc::Receiver<WatchAsked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Asks for the files to be watched.
    pub async fn watch(&self, reading: Reading) -> Reply {
        let (reply, answer) = oneshot::channel();
        let ask = async {
            self.asks.send(WatchAsked { reading, reply }).await.ok()?;
            answer.await.ok()
        };
        let answered = tokio::time::timeout(PATIENCE, ask).await.ok().flatten();
        answered.unwrap_or_else(|| {
            Reply::Rejected(Rejection::NotWatched {
                reason: "it does something else at the moment".to_owned(),
                help: "try again in a moment".to_owned(),
            })
        })
    }
}
