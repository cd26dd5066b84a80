//! Requests about the project's files. The supervisor reads no files itself: the process that runs it does, and sends
//! it their content.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::{Rejection, Reply};

/// How long the reader of the files may take to answer.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// The files as a command or a supervisor's process has read them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The Compose files, in the order in which they are merged.
    pub compose: Vec<PathBuf>,
    /// A digest of the content of all files, including env files.
    pub content: String,
    /// A digest of the resolved project, with the variables of the reader's environment.
    pub meaning: String,
}

/// A diagnostic about a position in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistake {
    /// What is wrong, in one sentence.
    pub message: String,
    /// The file, if the diagnostic is about one.
    pub file: Option<PathBuf>,
    /// The line, from 1.
    pub line: Option<usize>,
    /// The column, in characters from 1.
    pub column: Option<usize>,
    /// What to do about it.
    pub help: Option<String>,
}

/// A request to watch the files.
#[derive(Debug)]
pub struct WatchRequest {
    /// The files as the client has read them.
    pub reading: Reading,
    reply: oneshot::Sender<Reply>,
}

impl WatchRequest {
    /// Confirms that the files are watched from now on.
    pub fn accept(self) {
        self.answer(Reply::Accepted);
    }

    /// Rejects the request with a reason and with what to do instead.
    pub fn refuse(self, reason: String, help: String) {
        self.answer(Reply::Rejected(Rejection::NotWatched { reason, help }));
    }

    fn answer(self, reply: Reply) {
        // The client may have disconnected; the files are watched anyway.
        let _ = self.reply.send(reply);
    }
}

/// Connects the supervisor to the task that reads the files.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    asks: mpsc::Sender<WatchRequest>,
    asked: Arc<Mutex<Option<mpsc::Receiver<WatchRequest>>>>,
}

impl Default for Reader {
    fn default() -> Self {
        let (asks, asked) = mpsc::channel(1);
        Self { asks, asked: Arc::new(Mutex::new(Some(asked))) }
    }
}

impl Reader {
    /// Returns the receiver of requests, including earlier ones; `None` if it was taken already.
    pub fn hear(&self) -> Option<mpsc::Receiver<WatchRequest>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Requests to watch the files, and waits for the reply.
    pub async fn watch(&self, reading: Reading) -> Reply {
        let (reply, answer) = oneshot::channel();
        let ask = async {
            self.asks.send(WatchRequest { reading, reply }).await.ok()?;
            answer.await.ok()
        };
        let answered = tokio::time::timeout(REPLY_TIMEOUT, ask).await.ok().flatten();
        answered.unwrap_or_else(|| {
            Reply::Rejected(Rejection::NotWatched {
                reason: "it does something else at the moment".to_owned(),
                help: "try again in a moment".to_owned(),
            })
        })
    }
}
