//! The processes of a container, by its control group, and the sockets that they hold open.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, chownat};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::{KernelError, capability};

/// The control group (version 2) of a container, and those below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its folder.
    path: PathBuf,
    /// Its id: what `bpf_get_current_cgroup_id` says of its processes.
    pub id: u64,
}

impl Cgroup {
    /// That of a process.
    ///
    /// # Errors
    /// When there is no such process, or this host has no control groups of version 2.
    pub fn of(pid: u32) -> Result<Self, KernelError> {
        let fail = || KernelError::io(format!("find the control group of process {pid}"));
        let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(fail())?;
        // Version 2 has number 0 and no name, also beside version 1.
        let own = table.lines().find_map(|line| line.strip_prefix("0::"));
        let unsupported = |reason: &str| KernelError::Unsupported {
            what: "find the control group of a replica".to_owned(),
            reason: reason.to_owned(),
        };
        let own = own.ok_or_else(|| unsupported("this host has no control groups of version 2"))?;
        let root = capability::mounted("cgroup2").ok_or_else(|| unsupported("cgroup2 is not mounted"))?;
        let path = root.join(own.trim_start_matches('/'));
        let id = fs::metadata(&path).map_err(fail())?.ino();
        Ok(Self { path, id })
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its id and those of the groups below it, where a container makes groups of its own.
    #[must_use]
    pub fn ids(&self) -> Vec<u64> {
        folders(&self.path).iter().filter_map(|path| Some(fs::metadata(path).ok()?.ino())).collect()
    }

    /// Its processes, also those in groups below it. Empty once it has ended.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let lists = folders(&self.path)
            .into_iter()
            .filter_map(|path| fs::read_to_string(path.join("cgroup.procs")).ok());
        lists.flat_map(|list| list.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>()).collect()
    }
}

/// A folder and all below it.
fn folders(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    let mut next = 0;
    while let Some(folder) = found.get(next) {
        let below = fs::read_dir(folder).into_iter().flatten().flatten();
        let below: Vec<_> =
            below.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()).collect();
        found.extend(below);
        next += 1;
    }
    found
}

/// What came of looking for something.
#[derive(Debug)]
pub enum Found<T> {
    /// There it is.
    Here(T),
    /// It is nowhere (any more).
    Nowhere,
    /// It was not looked everywhere yet.
    NotYet,
}

/// Looks for sockets among the descriptors of some processes. It goes through them once, as far as it has to: there may be
/// very many.
#[derive(Debug)]
pub struct Search {
    processes: std::vec::IntoIter<u32>,
    current: Option<(u32, fs::ReadDir)>,
    /// By inode: a process that has it open, and under which number.
    seen: BTreeMap<u64, (u32, i32)>,
    is_over: bool,
    is_interrupted: bool,
    /// Whether it began before the present look: what was opened since, it has not seen.
    is_old: bool,
}

impl Search {
    /// A search that begins.
    #[must_use]
    pub fn new(processes: Vec<u32>) -> Self {
        Self {
            processes: processes.into_iter(),
            current: None,
            seen: BTreeMap::new(),
            is_over: false,
            is_interrupted: false,
            is_old: false,
        }
    }

    /// Whether there was not enough time, so that it is to go on later.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.is_interrupted
    }

    /// Ends a look. Returns whether it is of use for the next one: there was not enough time, or it has found more than was
    /// asked for so far.
    pub fn end_look(&mut self) -> bool {
        self.is_old = true;
        self.is_interrupted || !self.seen.is_empty()
    }

    /// Whether it may have missed what has been opened meanwhile.
    #[must_use]
    pub fn is_old(&self) -> bool {
        self.is_old
    }

    /// A descriptor of our own for a socket. Whoever gets it has to close it soon: as long as it is open, so is the socket.
    /// It is looked for as long as there is time; of the others that are passed, those are noted that are wanted.
    ///
    /// # Errors
    /// When we may not look into the processes (`CAP_SYS_PTRACE`).
    pub fn duplicate(
        &mut self,
        inode: u64,
        wanted: &BTreeSet<u64>,
        has_time: impl Fn() -> bool,
    ) -> Result<Found<OwnedFd>, KernelError> {
        match self.find(inode, wanted, has_time)? {
            Found::Here((pid, number)) => Ok(take(pid, number, inode)?.map_or(Found::Nowhere, Found::Here)),
            Found::Nowhere => Ok(Found::Nowhere),
            Found::NotYet => Ok(Found::NotYet),
        }
    }

    /// The same as a [`Handle`]: it does not keep the socket open.
    ///
    /// # Errors
    /// As [`Search::duplicate`].
    pub fn handle(
        &mut self,
        inode: u64,
        wanted: &BTreeSet<u64>,
        has_time: impl Fn() -> bool,
    ) -> Result<Found<Handle>, KernelError> {
        match self.find(inode, wanted, has_time)? {
            Found::Here((pid, number)) => {
                let handle = Handle::open(&format!("/proc/{pid}/fd/{number}"), inode)?;
                Ok(handle.map_or(Found::Nowhere, Found::Here))
            }
            Found::Nowhere => Ok(Found::Nowhere),
            Found::NotYet => Ok(Found::NotYet),
        }
    }

    /// A process that has a socket open, and under which number.
    fn find(
        &mut self,
        inode: u64,
        wanted: &BTreeSet<u64>,
        has_time: impl Fn() -> bool,
    ) -> Result<Found<(u32, i32)>, KernelError> {
        self.is_interrupted = false;
        loop {
            if let Some(place) = self.seen.remove(&inode) {
                return Ok(Found::Here(place));
            }
            if self.is_over {
                return Ok(Found::Nowhere);
            }
            if !has_time() {
                self.is_interrupted = true;
                return Ok(Found::NotYet);
            }
            self.go_on(wanted)?;
        }
    }

    /// Looks at one more descriptor.
    fn go_on(&mut self, wanted: &BTreeSet<u64>) -> Result<(), KernelError> {
        if let Some((pid, list)) = &mut self.current {
            match list.next() {
                Some(Ok(entry)) => {
                    let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
                    if let (Some(inode), Some(number)) = (socket(&entry.path()), number)
                        && wanted.contains(&inode)
                    {
                        self.seen.insert(inode, (*pid, number));
                    }
                }
                // The process has ended.
                Some(Err(_)) | None => self.current = None,
            }
            return Ok(());
        }
        let Some(pid) = self.processes.next() else {
            self.is_over = true;
            return Ok(());
        };
        match fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(list) => self.current = Some((pid, list)),
            Err(error) if is_gone(&error) => {}
            Err(error) => {
                return Err(KernelError::io(format!("look at the sockets of process {pid}"))(error));
            }
        }
        Ok(())
    }
}

/// Points to a socket, and does not keep it open (`O_PATH`): closed by its program, it is closed.
#[derive(Debug)]
pub struct Handle(OwnedFd);

impl Handle {
    /// That of an open socket.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn of(socket: &OwnedFd) -> Result<Option<Self>, KernelError> {
        let Ok(stat) = rustix::fs::fstat(socket) else { return Ok(None) };
        Self::open(&format!("/proc/self/fd/{}", socket.as_raw_fd()), stat.st_ino)
    }

    /// That of the socket of this inode, if the link leads to it still.
    fn open(link: &str, inode: u64) -> Result<Option<Self>, KernelError> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = match rustix::fs::open(link, flags, Mode::empty()) {
            Ok(file) => file,
            Err(errno) if is_gone(&errno.into()) => return Ok(None),
            Err(errno) => return Err(KernelError::io(format!("open {link}"))(errno.into())),
        };
        let is_it = rustix::fs::fstat(&file).is_ok_and(|stat| {
            stat.st_ino == inode && FileType::from_raw_mode(stat.st_mode) == FileType::Socket
        });
        Ok(is_it.then_some(Self(file)))
    }

    /// The descriptor that it takes.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Makes it that user's. The owner of a socket's inode is the user whom the kernel compares (`sockfs_setattr`).
    ///
    /// # Errors
    /// When we may not (`CAP_CHOWN`).
    pub fn belong_to(&self, user: u32) -> Result<(), KernelError> {
        match chownat(&self.0, "", Some(Uid::from_raw(user)), None::<Gid>, AtFlags::EMPTY_PATH) {
            // It is closed.
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(errno) => Err(KernelError::io(format!("give a socket to user {user}"))(errno.into())),
        }
    }
}

/// Descriptors of a replica that are looked at for a file: whoever has more has it elsewhere.
const MOST_DESCRIPTORS: usize = 65_536;

/// Whether one of these processes has a file open for writing: that of this device and inode.
#[must_use]
pub fn has_open_for_writing(processes: &[u32], file: (u64, u64)) -> bool {
    let lists = processes.iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok());
    let mut open = lists.flatten().flatten().take(MOST_DESCRIPTORS);
    open.any(|entry| {
        let is_it = fs::metadata(entry.path()).is_ok_and(|at| (at.dev(), at.ino()) == file);
        // The permissions of the link are those with which it was opened.
        let mode = || fs::symlink_metadata(entry.path()).map_or(0, |link| link.mode());
        is_it && mode() & 0o200 != 0
    })
}

/// Whether one of these processes has one of these sockets open.
///
/// # Errors
/// When we may not look into them.
pub fn hold_one_of(processes: &[u32], inodes: &BTreeSet<u64>) -> io::Result<bool> {
    for pid in processes {
        let list = match fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(list) => list,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        let mut open = list.flatten().take(MOST_DESCRIPTORS);
        if open.any(|entry| socket(&entry.path()).is_some_and(|inode| inodes.contains(&inode))) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The inode of the socket that a link in `/proc/PID/fd` names, if it is one.
fn socket(link: &Path) -> Option<u64> {
    let target = fs::read_link(link).ok()?;
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// A descriptor of our own for a socket that a process had open under that number; none if it has not any more.
fn take(pid: u32, number: i32, inode: u64) -> Result<Option<OwnedFd>, KernelError> {
    let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    let taken = pidfd_open(id, PidfdFlags::empty())
        .and_then(|process| pidfd_getfd(process, number, PidfdGetfdFlags::empty()));
    match taken {
        // It may have closed it, and opened another one under the same number.
        Ok(socket) if rustix::fs::fstat(&socket).is_ok_and(|stat| stat.st_ino == inode) => Ok(Some(socket)),
        Ok(_) | Err(rustix::io::Errno::SRCH | rustix::io::Errno::BADF) => Ok(None),
        Err(errno) => Err(KernelError::io(format!("take a socket of process {pid}"))(errno.into())),
    }
}

/// A descriptor of our own for a socket that one of these processes has open; none if none of them has it (any
/// more).
///
/// # Errors
/// As [`Search::duplicate`].
pub fn duplicate(processes: &[u32], inode: u64) -> Result<Option<OwnedFd>, KernelError> {
    match Search::new(processes.to_vec()).duplicate(inode, &BTreeSet::from([inode]), || true)? {
        Found::Here(socket) => Ok(Some(socket)),
        Found::Nowhere | Found::NotYet => Ok(None),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// Which processes of this host have sockets open: id and name of one for each.
#[must_use]
pub fn holders(inodes: &BTreeSet<u64>) -> BTreeMap<u64, (u32, String)> {
    let mut found = BTreeMap::new();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        if found.len() == inodes.len() {
            break;
        }
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            if let Some(inode) = socket(&entry.path())
                && inodes.contains(&inode)
            {
                found.entry(inode).or_insert_with(|| (pid, name(pid)));
            }
        }
    }
    found
}

/// The name of a process, or nothing once it is gone.
#[must_use]
pub fn name(pid: u32) -> String {
    let mut text = String::new();
    let read =
        fs::File::open(format!("/proc/{pid}/comm")).and_then(|mut file| file.read_to_string(&mut text));
    read.map(|_| text.trim().to_owned()).unwrap_or_default()
}

/// What the processes of a replica do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Whether a signal has stopped one of them.
    pub stopped: bool,
    /// Whether a signal has stopped all of them.
    pub frozen: bool,
    /// The processor time that they have used so far.
    pub cpu: Duration,
}

/// In which `/proc/PID/stat` tells processor time: `USER_HZ`, which is 100 everywhere but on machines of the past.
const TICKS: u64 = 100;

/// What a container's first process and those that come from it do. `members` are all processes of its control group:
/// commands that somebody runs in it, as a health check does, come from elsewhere and do not count.
#[must_use]
pub fn pulse(first: u32, members: &[u32]) -> Pulse {
    let seen: BTreeMap<u32, Stat> = members.iter().filter_map(|pid| Some((*pid, stat(*pid)?))).collect();
    let is_ours = |pid: u32| {
        let up = std::iter::successors(Some(pid), |pid| seen.get(pid).map(|stat| stat.parent));
        // Parents are no circle; yet they were not all looked at in the same moment.
        up.take(seen.len() + 1).any(|pid| pid == first)
    };
    let own: Vec<_> = seen.iter().filter(|(pid, _)| is_ours(**pid)).map(|(_, stat)| stat).collect();
    let is_stopped = |stat: &&Stat| stat.state == "T";
    let ticks = own.iter().map(|stat| stat.ticks).sum::<u64>();
    Pulse {
        stopped: own.iter().any(is_stopped),
        frozen: !own.is_empty() && own.iter().all(is_stopped),
        cpu: Duration::from_millis(ticks.saturating_mul(1000 / TICKS)),
    }
}

struct Stat {
    state: String,
    parent: u32,
    ticks: u64,
}

/// What `/proc/PID/stat` tells (proc(5)); none once the process is gone.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything, also brackets.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<_> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Stat {
        state: (*fields.first()?).to_owned(),
        parent: fields.get(1)?.parse().ok()?,
        ticks: number(11)?.saturating_add(number(12)?),
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_socket_is_found_by_its_inode_and_duplicated() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = rustix::fs::fstat(&listener).unwrap().st_ino;
        let own = std::process::id();
        let copy = duplicate(&[u32::MAX, own], inode).unwrap().unwrap();
        assert_eq!(
            rustix::net::sockopt::socket_cookie(copy.as_fd()).unwrap(),
            rustix::net::sockopt::socket_cookie(&listener).unwrap()
        );
        assert_eq!(duplicate(&[own], 1).unwrap().map(|_| ()), None);
        let holders = holders(&BTreeSet::from([inode, 1]));
        assert_eq!(holders.keys().collect::<Vec<_>>(), [&inode]);
        assert_eq!(holders[&inode].0, own);
    }

    #[test]
    fn a_socket_is_given_to_another_user_by_what_does_not_keep_it_open() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let inode = rustix::fs::fstat(&listener).unwrap().st_ino;
        let mut search = Search::new(vec![std::process::id()]);
        let found = search.handle(inode, &BTreeSet::from([inode]), || true).unwrap();
        let Found::Here(handle) = found else { panic!("{found:?}") };
        handle.belong_to(1234).unwrap();
        assert_eq!(rustix::fs::fstat(&listener).unwrap().st_uid, 1234);
        drop(listener);
        TcpListener::bind(address).unwrap();
        handle.belong_to(0).unwrap();
    }

    #[test]
    fn a_search_without_time_goes_on_later_and_finds_what_is_wanted() {
        let listeners: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let inodes: Vec<_> = listeners.iter().map(|l| rustix::fs::fstat(l).unwrap().st_ino).collect();
        let wanted = inodes.iter().copied().collect();
        let mut search = Search::new(vec![u32::MAX, std::process::id()]);
        let mut pauses = 0;
        for inode in inodes.iter().rev() {
            let steps = std::cell::Cell::new(0);
            let few = || steps.replace(steps.get() + 1) < 2;
            while let Found::NotYet = search.duplicate(*inode, &wanted, few).unwrap() {
                assert!(search.is_interrupted());
                steps.set(0);
                pauses += 1;
            }
            assert!(!search.is_interrupted());
        }
        assert!(pauses > 0);
        let gone = search.duplicate(1, &BTreeSet::from([1]), || true).unwrap();
        assert!(matches!(gone, Found::Nowhere));
    }

    #[test]
    fn a_process_that_works_one_that_sleeps_and_one_that_is_stopped_are_told_apart() {
        let spawn =
            |script: &str| std::process::Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
        let (mut works, mut sleeps) = (spawn("while :; do :; done"), spawn("sleep 60; :"));
        let wait = |what: &str, holds: &dyn Fn() -> bool| {
            let begin = std::time::Instant::now();
            while !holds() {
                assert!(begin.elapsed() < Duration::from_secs(60), "{what}");
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        let own = std::process::id();
        let of = |pid: u32| pulse(pid, &[pid, own]);
        wait("processor time is seen", &|| of(works.id()).cpu >= Duration::from_millis(200));
        assert!(of(sleeps.id()).cpu < Duration::from_millis(100));
        assert!(!of(sleeps.id()).stopped && !of(works.id()).stopped);
        let stop = nix::unistd::Pid::from_raw(i32::try_from(sleeps.id()).unwrap());
        nix::sys::signal::kill(stop, nix::sys::signal::Signal::SIGSTOP).unwrap();
        wait("it is stopped", &|| of(sleeps.id()).stopped);
        assert!(of(sleeps.id()).frozen);
        let both = pulse(own, &[own, sleeps.id()]);
        assert!(both.stopped && !both.frozen, "it is a child of ours, which runs");
        assert_eq!(pulse(sleeps.id(), &[works.id()]), Pulse::default(), "one that comes from elsewhere");
        for child in [&mut works, &mut sleeps] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_process_is_in_its_own_control_group() {
        let Ok(cgroup) = Cgroup::of(std::process::id()) else { return };
        assert!(cgroup.processes().contains(&std::process::id()));
        assert!(cgroup.ids().contains(&cgroup.id));
    }
}
