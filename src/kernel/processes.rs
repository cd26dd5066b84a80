//! The processes of a container, by its control group, and the sockets that they hold open.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

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

/// A descriptor of our own for a socket that one of these processes has open; none if none of them has it (any
/// more). Whoever gets it has to close it soon: as long as it is open, so is the socket.
///
/// # Errors
/// When we may not look into the processes (`CAP_SYS_PTRACE`).
pub fn duplicate(processes: &[u32], inode: u64) -> Result<Option<OwnedFd>, KernelError> {
    for pid in processes {
        let Some(number) = descriptor(*pid, inode)? else { continue };
        let Some(id) = i32::try_from(*pid).ok().and_then(Pid::from_raw) else { continue };
        let taken = pidfd_open(id, PidfdFlags::empty())
            .and_then(|process| pidfd_getfd(process, number, PidfdGetfdFlags::empty()));
        match taken {
            // It may have closed it, and opened another one under the same number.
            Ok(socket) if rustix::fs::fstat(&socket).is_ok_and(|stat| stat.st_ino == inode) => {
                return Ok(Some(socket));
            }
            Ok(_) | Err(rustix::io::Errno::SRCH | rustix::io::Errno::BADF) => {}
            Err(errno) => {
                return Err(KernelError::io(format!("take a socket of process {pid}"))(errno.into()));
            }
        }
    }
    Ok(None)
}

/// The number under which a process has a socket open.
fn descriptor(pid: u32, inode: u64) -> Result<Option<i32>, KernelError> {
    let wanted = format!("socket:[{inode}]");
    let list = match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(list) => list,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(KernelError::io(format!("look at the sockets of process {pid}"))(error)),
    };
    for entry in list.flatten() {
        if fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str()) {
            return Ok(entry.file_name().to_str().and_then(|name| name.parse().ok()));
        }
    }
    Ok(None)
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
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let inode = target.to_str().and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']'));
            if let Some(inode) = inode.and_then(|inode| inode.parse().ok())
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
    use std::{net::TcpListener, os::fd::AsFd};

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
