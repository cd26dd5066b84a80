//! Watches files for changes of their content.

use std::{io, path::PathBuf, time::Duration};

use tokio::time::Instant;

use super::{Files, folders::Folders};

/// How long no event must occur before files are compared: a program may write a file in several steps, or several
/// files.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// The longest delay of a comparison while events keep occurring.
const PATIENCE: Duration = Duration::from_secs(2);
/// Interval of comparisons while a directory cannot be watched.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Interval of comparisons otherwise: the kernel reports no changes by other hosts on network file systems.
const RESCAN_INTERVAL: Duration = Duration::from_secs(30);

/// Watches files, including ones that do not exist.
#[derive(Debug)]
pub struct Watch {
    files: Files,
    folders: Folders,
    /// Set after an event, until the files are compared.
    doubt: Option<PendingCheck>,
    report: Report,
}

#[derive(Clone, Copy, Debug)]
struct PendingCheck {
    since: Instant,
    look_at: Instant,
}

/// Whether directories can be watched.
#[derive(Debug)]
enum Report {
    None,
    /// Not returned by `Watch::changed` yet.
    New(WatchError),
    Reported,
}

/// Why files cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// A stream can be read only once, and so does not change.
    #[error("cannot watch {}: it is not a file", if path.as_os_str() == "-" { "standard input".into() } else { path.display().to_string() })]
    Stream {
        /// The path of the stream; `-` is standard input.
        path: PathBuf,
    },
    /// The user has reached the limit of inotify instances.
    #[error(
        "cannot watch files: too many programs of this user do so already (fs.inotify.max_user_instances)"
    )]
    Watchers,
    /// The user has reached the limit of inotify watches.
    #[error(
        "cannot watch {}: this user's programs watch too many files already (fs.inotify.max_user_watches)",
        folder.display()
    )]
    Folders {
        /// The directory that is not watched.
        folder: PathBuf,
    },
    /// A directory cannot be watched.
    #[error("cannot watch {}: {source}", folder.display())]
    Folder {
        /// The path of the directory.
        folder: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The kernel does not support watching.
    #[error("cannot watch files: {0}")]
    Unsupported(io::Error),
}

impl WatchError {
    /// What the user can do about it.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::Stream { .. } => "write it to a file, and name that with `-f` or `--env-file`",
            Self::Watchers => "raise it: `sysctl fs.inotify.max_user_instances=512`; or do without `--watch`",
            Self::Folders { .. } => {
                "raise it: `sysctl fs.inotify.max_user_watches=524288`; or do without `--watch`"
            }
            Self::Folder { .. } => {
                "give the user who runs sameport access to that folder, or leave out `--watch`"
            }
            Self::Unsupported(_) => "leave out `--watch`: SIGHUP makes sameport read the file again",
        }
    }
}

impl Watch {
    /// Watches files from now on. Changes are relative to `files`.
    ///
    /// # Errors
    /// If one of them cannot be watched.
    pub fn new(files: Files) -> Result<Self, WatchError> {
        if let Some(path) = files.stream() {
            return Err(WatchError::Stream { path: path.to_owned() });
        }
        let mut watch =
            Self { files: Files::default(), folders: Folders::new()?, doubt: None, report: Report::None };
        watch.follow(files);
        match std::mem::replace(&mut watch.report, Report::None) {
            Report::New(error) => Err(error),
            Report::None | Report::Reported => Ok(watch),
        }
    }

    /// Replaces the known contents by `files`, which were read since. If they cannot be watched, [`Watch::changed`]
    /// returns that error, and the files are compared periodically.
    pub fn follow(&mut self, files: Files) {
        self.files = files;
        self.arm();
        // Changes from before the watch cause no event.
        self.doubt(Instant::now());
    }

    /// Waits until the content of a file differs from the known one. Afterwards, pass what was read to
    /// [`Watch::follow`]. Cancel safe: it can be dropped and called again.
    ///
    /// # Errors
    /// Once, if files can no longer be watched. Call it again to keep waiting.
    pub async fn changed(&mut self) -> Result<(), WatchError> {
        loop {
            if let Report::New(_) = self.report
                && let Report::New(error) = std::mem::replace(&mut self.report, Report::Reported)
            {
                return Err(error);
            }
            let look_at = match (&self.doubt, &self.report) {
                (Some(doubt), _) => doubt.look_at,
                (None, Report::None) => Instant::now() + RESCAN_INTERVAL,
                (None, Report::New(_) | Report::Reported) => Instant::now() + POLL_INTERVAL,
            };
            tokio::select! {
                stirred = self.folders.stirred() => match stirred {
                    Ok(()) => self.doubt(Instant::now()),
                    Err(error) => {
                        self.fail(WatchError::Unsupported(error));
                        tokio::time::sleep(POLL_INTERVAL).await;
                        self.doubt(Instant::now());
                    }
                },
                () = tokio::time::sleep_until(look_at) => {
                    self.doubt = None;
                    // Watching before comparing leaves no gap.
                    self.arm();
                    if self.files.have_changed() {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn doubt(&mut self, now: Instant) {
        let since = self.doubt.map_or(now, |doubt| doubt.since);
        self.doubt = Some(PendingCheck { since, look_at: (now + DEBOUNCE).min(since + PATIENCE) });
    }

    fn arm(&mut self) {
        match self.folders.arm(self.files.paths()) {
            Ok(()) => self.report = Report::None,
            Err(error) => self.fail(error),
        }
    }

    fn fail(&mut self, error: WatchError) {
        if let Report::None = self.report {
            self.report = Report::New(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use tempfile::TempDir;

    use super::*;

    /// Limit for a change to be reported on a busy machine.
    const LONG: Duration = Duration::from_secs(20);
    /// Long enough for a change to be reported.
    const WHILE: Duration = Duration::from_millis(700);

    struct Watched {
        folder: TempDir,
        watch: Watch,
        paths: Vec<PathBuf>,
    }

    impl Watched {
        /// Watches these paths in a temporary directory that `make` fills.
        fn new(paths: &[&str], make: impl FnOnce(&Path)) -> Self {
            let folder = tempfile::tempdir().unwrap();
            make(folder.path());
            let paths: Vec<_> = paths.iter().map(|path| folder.path().join(path)).collect();
            let watch = Watch::new(Files::at(paths.clone())).unwrap();
            Self { folder, watch, paths }
        }

        fn path(&self, path: &str) -> PathBuf {
            self.folder.path().join(path)
        }

        fn write(&self, path: &str, text: &str) {
            fs::write(self.path(path), text).unwrap();
        }

        /// Waits for a change and accepts the new content.
        async fn changes(&mut self, how: &str) {
            let told = tokio::time::timeout(LONG, self.watch.changed()).await;
            told.unwrap_or_else(|_| panic!("nothing is told: {how}")).unwrap();
            self.watch.follow(Files::at(self.paths.clone()));
        }

        async fn stays(&mut self, how: &str) {
            let told = tokio::time::timeout(WHILE, self.watch.changed()).await;
            assert!(told.is_err(), "{how}: {told:?}");
        }
    }

    fn one_file(folder: &Path) {
        fs::write(folder.join("file"), "1").unwrap();
    }

    #[tokio::test]
    async fn a_rewritten_file_has_changed() {
        let mut watched = Watched::new(&["file"], one_file);
        watched.stays("nothing happens").await;
        watched.write("file", "2");
        watched.changes("truncated and written").await;
        watched.stays("it is known by now").await;
        watched.write("file", "3");
        watched.changes("once more").await;
    }

    #[tokio::test]
    async fn a_file_that_takes_the_place_of_another_has_changed_and_each_later_one() {
        let mut watched = Watched::new(&["file"], one_file);
        for text in ["2", "3", "4"] {
            watched.write("file.new", text);
            fs::rename(watched.path("file.new"), watched.path("file")).unwrap();
            watched.changes("renamed over it").await;
        }
        fs::rename(watched.path("file"), watched.path("file~")).unwrap();
        watched.write("file", "5");
        watched.changes("as vim does it").await;
        watched.write("file", "6");
        watched.changes("written in place again").await;
    }

    #[tokio::test]
    async fn removed_and_created_files_have_changed() {
        let mut watched = Watched::new(&["file", "later"], one_file);
        watched.write("later", "1");
        watched.changes("it appears").await;
        fs::remove_file(watched.path("file")).unwrap();
        watched.changes("it disappears").await;
        watched.write("file", "1");
        watched.changes("it is back").await;
    }

    #[tokio::test]
    async fn a_file_in_missing_folders_is_reported_once_it_exists() {
        let mut watched = Watched::new(&["a/b/file"], |_| {});
        fs::create_dir(watched.path("a")).unwrap();
        watched.stays("only a folder").await;
        fs::create_dir(watched.path("a/b")).unwrap();
        watched.write("a/b/file", "1");
        watched.changes("in a new folder").await;
        fs::rename(watched.path("a"), watched.path("old")).unwrap();
        fs::create_dir_all(watched.path("a/b")).unwrap();
        watched.write("a/b/file", "2");
        watched.changes("in a folder that took the place of another").await;
        watched.write("a/b/file", "3");
        watched.changes("in that one").await;
    }

    #[tokio::test]
    async fn links_are_followed_at_every_step_as_kubernetes_swaps_them() {
        let mut watched = Watched::new(&["file"], |folder| {
            for version in ["v1", "v2"] {
                fs::create_dir(folder.join(version)).unwrap();
                fs::write(folder.join(version).join("file"), version).unwrap();
            }
            symlink("v1", folder.join("..data")).unwrap();
            symlink("..data/file", folder.join("file")).unwrap();
        });
        watched.stays("nothing happens").await;
        symlink("v2", watched.path("..tmp")).unwrap();
        fs::rename(watched.path("..tmp"), watched.path("..data")).unwrap();
        watched.changes("the link to the folder is another").await;
        watched.write("v1/file", "unused");
        watched.stays("what no link leads to any more").await;
        watched.write("v2/file", "3");
        watched.changes("the file behind the links").await;
        fs::remove_file(watched.path("file")).unwrap();
        symlink("v1/file", watched.path("file")).unwrap();
        watched.changes("the link to the file is another").await;
    }

    #[tokio::test]
    async fn equal_content_is_not_reported() {
        let mut watched = Watched::new(&["file"], one_file);
        watched.write("file", "1");
        watched.stays("written as it was").await;
        fs::set_permissions(watched.path("file"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        watched.stays("other rights").await;
        watched.write("other", "1");
        watched.stays("another file").await;
        watched.write("file", "2");
        watched.write("file", "1");
        watched.stays("changed and changed back").await;
    }

    #[tokio::test]
    async fn a_change_before_the_watch_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "1").unwrap();
        let read = Files::at([path.clone()]);
        fs::write(&path, "2").unwrap();
        let mut watch = Watch::new(read).unwrap();
        tokio::time::timeout(LONG, watch.changed()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_change_is_reported_after_a_cancelled_wait() {
        let mut watched = Watched::new(&["file"], one_file);
        watched.stays("nothing happens").await;
        watched.write("file", "2");
        for _ in 0..3 {
            let _ = tokio::time::timeout(Duration::from_millis(20), watched.watch.changed()).await;
        }
        watched.changes("while nobody waited").await;
    }

    #[tokio::test]
    async fn constant_writes_do_not_delay_reports_forever() {
        let mut watched = Watched::new(&["file"], one_file);
        let path = watched.path("file");
        let busy = tokio::spawn(async move {
            for n in 0.. {
                fs::write(&path, format!("{n} and more")).unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        watched.changes("always written to").await;
        busy.abort();
    }

    #[test]
    fn streams_are_rejected() {
        let error = Watch::new(Files::at([PathBuf::from("-")])).unwrap_err();
        assert_eq!(error.to_string(), "cannot watch standard input: it is not a file");
    }
}
