//! What somebody removes, unmounts or detaches is seen and had back within a second, and whoever asks meanwhile is answered.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    net::TcpStream,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::{
    maps::MapInfo,
    programs::links::{FdLink, PinnedLink},
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use sameport::kernel::{
    capability, pins,
    steering::{KernelSteering, Steering as _},
};

use super::{
    agent::Agent,
    pod::Pod,
    server::{PORT, StopAtEnd, answers, ask, http, shared, stay},
    support::{apart::apart, wait::slowly},
};

/// A replica beyond those that are there.
pub const MORE: u32 = 9;
/// So soon all is as before.
pub const SOON: Duration = Duration::from_secs(1);

pub fn root() -> PathBuf {
    capability::mounted("bpf").unwrap().join("sameport")
}

pub fn set() -> PathBuf {
    root().join("_host_2")
}

pub fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// What is pinned: maps and links by their numbers, and where symbolic links point to.
pub fn pinned(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut pinned = BTreeMap::new();
    for path in below(folder) {
        if let Ok(target) = fs::read_link(&path) {
            pinned.insert(path, target.display().to_string());
        } else if path.is_dir() {
            pinned.extend(self::pinned(&path));
        } else if is_link(&path) {
            // It may be gone by now.
            let id =
                PinnedLink::from_pin(&path).ok().and_then(|link| Some(FdLink::from(link).info().ok()?.id()));
            let attached = if pins::is_attached(&path) { "attached" } else { "detached" };
            pinned.insert(path, format!("{id:?} {attached}"));
        } else if let Ok(info) = MapInfo::from_pin(&path) {
            pinned.insert(path, info.id().to_string());
        }
    }
    pinned
}

pub fn is_link(path: &Path) -> bool {
    path.file_name().unwrap().to_str().unwrap().starts_with("link_")
}

/// All but the numbers of links: those of programs that were attached again are new.
fn without_links(pinned: BTreeMap<PathBuf, String>) -> BTreeMap<PathBuf, String> {
    let known = |(path, what): (PathBuf, String)| {
        let what = if is_link(&path) { what.split(' ').next_back().unwrap().to_owned() } else { what };
        (path, what)
    };
    pinned.into_iter().map(known).collect()
}

pub fn half(mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    paths.sort();
    paths.into_iter().step_by(2).collect()
}

/// Removes a folder with all that is in it, also what is put back into it meanwhile.
pub fn remove_all(folder: &Path) {
    for _ in 0..100 {
        below(folder)
            .iter()
            .filter(|path| path.is_dir() && !path.is_symlink())
            .for_each(|path| remove_all(path));
        below(folder).iter().for_each(|path| drop(fs::remove_file(path)));
        match fs::remove_dir(folder) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
            removed => return removed.unwrap(),
        }
    }
    panic!("{} is filled again and again", folder.display());
}

pub fn pod(replicas: u32) -> Pod {
    let mut pod = Pod::new();
    pod.declared.insert(PORT);
    (1..=replicas).for_each(|slot| pod.start(slot, &mut http()));
    pod.listening(replicas as usize, PORT);
    pod
}

/// Waits until something is so, and says how long that took.
pub fn soon<T: PartialEq + std::fmt::Debug>(what: &str, wanted: &T, now: impl Fn() -> T) {
    let begin = Instant::now();
    loop {
        let found = now();
        if found == *wanted {
            eprintln!("{what}: {:?}", begin.elapsed());
            return;
        }
        assert!(begin.elapsed() < slowly(SOON), "{what}: {found:#?}\n{wanted:#?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Somebody asks all the time. Returns for how long nobody answered, at most, and how many requests failed.
pub fn asked(pod: &mut Pod, work: impl FnOnce(&mut Pod)) -> (Duration, u32) {
    let (netns, stop) = (pod.netns(), AtomicBool::new(false));
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            let (mut gap, mut failed, mut answered) = (Duration::ZERO, 0, Instant::now());
            let work = || {
                while !stop.load(Ordering::Relaxed) {
                    let answer = TcpStream::connect(shared()).and_then(|mut stream| {
                        stream.set_read_timeout(Some(slowly(Duration::from_secs(5))))?;
                        ask(&mut stream)
                    });
                    if answer.is_ok_and(|answer| !answer.is_empty()) {
                        gap = gap.max(answered.elapsed());
                        answered = Instant::now();
                    } else {
                        failed += 1;
                    }
                    thread::sleep(Duration::from_millis(2));
                }
                Ok(())
            };
            netns.within(work).unwrap();
            (gap.max(answered.elapsed()), failed)
        });
        let guard = StopAtEnd(&stop);
        work(pod);
        drop(guard);
        client.join().unwrap()
    })
}

/// A replica more shares the port.
pub fn is_shared(pod: &mut Pod, open: u64) {
    pod.start(MORE, &mut http());
    pod.listening(3, PORT);
    // Whoever has a connection open comes later.
    let answered: Vec<_> = answers(pod, 60).into_keys().collect();
    assert!(answered.contains(&MORE.to_string()) && (open > 0 || answered.len() == 3), "{answered:?}");
}

/// It does, and all that is open is counted; then it goes.
pub fn is_steered(pod: &mut Pod, open: u64) {
    is_shared(pod, open);
    let mut clients: Vec<_> = (0..3).map(|_| pod.connect(shared()).unwrap()).collect();
    clients.iter_mut().for_each(|client| drop(stay(client)));
    let live = || pod.live(PORT).into_values().sum::<u64>();
    soon("all that is open is counted", &(open + 3), live);
    drop(clients);
    soon("so are its ends", &open, live);
    pod.remove(MORE);
    pod.listening(2, PORT);
}

/// What is removed in these ways is there again.
fn is_had_back(what: &str, pod: &mut Pod, open: u64, remove: impl FnOnce(&Pod)) {
    let before = pinned(&root());
    let (_, failed) = asked(pod, |pod| {
        remove(pod);
        soon(what, &before, || pinned(&root()));
        thread::sleep(Duration::from_millis(50));
    });
    assert_eq!(failed, 0, "{what}");
    assert_eq!(pod.report().error, None, "{what}");
    is_steered(pod, open);
}

#[test]
fn pins_that_are_removed_are_there_again() {
    apart(|| {
        let mut pod = pod(2);
        let mut client = pod.connect(shared()).unwrap();
        stay(&mut client);
        let (host, project) = (set(), pod.pinned(""));
        let of_pod = pod.pinned_of_pod("");
        let maps =
            |folder: &Path| below(folder).into_iter().filter(|path| !is_link(path)).collect::<Vec<_>>();
        let links =
            |folder: &Path| below(folder).into_iter().filter(|path| is_link(path)).collect::<Vec<_>>();
        let unlink = |paths: Vec<PathBuf>| paths.iter().for_each(|path| fs::remove_file(path).unwrap());
        for (what, gone) in [
            ("one of the host's links", vec![host.join("link_sameport_bind4")]),
            ("one of the host's maps", vec![host.join("sp_origins")]),
            ("the host's build", vec![host.join("build")]),
            ("half of the host's maps", half(maps(&host))),
            ("half of the host's links", half(links(&host))),
            ("half of the host's pins", half(below(&host))),
            ("all of the host's links", links(&host)),
            ("all of the host's maps", maps(&host)),
            ("all of the host's pins", below(&host)),
            ("the pod's link", links(&of_pod)),
            ("one of the pod's maps", vec![of_pod.join("sp_counts")]),
            ("half of the pod's pins", half(below(&of_pod))),
            ("all of the pod's pins", below(&of_pod)),
            ("the project's mark", vec![project.join("layout")]),
        ] {
            is_had_back(what, &mut pod, 1, |_| unlink(gone));
        }
        for folder in [of_pod, host, project, root()] {
            is_had_back(&folder.display().to_string(), &mut pod, 1, |_| remove_all(&folder));
        }
        drop(client);
        soon("nothing is open", &0, || pod.live(PORT).into_values().sum::<u64>());
        drop(pod);
        assert_eq!(below(&root()), [] as [PathBuf; 0]);
    });
}

/// bpffs is mounted at the root of the host's, too: nothing must be pinned there.
fn unmount_all() {
    while capability::mounted("bpf").is_some() {
        unmount("/sys/fs/bpf", UnmountFlags::DETACH).unwrap();
    }
}

fn mount_another() {
    mount("bpf", "/sys/fs/bpf", "bpf", MountFlags::empty(), Some(c"mode=0700")).unwrap();
}

#[test]
fn what_is_unmounted_is_mounted_again() {
    apart(|| {
        let mut pod = pod(2);
        let mut client = pod.connect(shared()).unwrap();
        stay(&mut client);
        let paths = Path::new("/sys/fs/bpf/sameport");
        let before = pinned(paths);
        for (what, unmount) in [
            ("unmounted", unmount_all as fn()),
            ("hidden by another one", mount_another),
            ("shown again", || unmount("/sys/fs/bpf", UnmountFlags::DETACH).unwrap()),
        ] {
            let (_, failed) = asked(&mut pod, |_| {
                unmount();
                soon(what, &before, || pinned(paths));
                // It is seen that it is another place, too.
                thread::sleep(SOON);
                assert_eq!(pinned(paths), before);
            });
            assert_eq!((failed, pod.report().error), (0, None), "{what}");
            is_steered(&mut pod, 1);
        }
        drop((client, pod));
        assert_eq!(below(&root()), [] as [PathBuf; 0]);
    });
}

#[test]
fn programs_that_are_detached_are_attached_again() {
    apart(|| {
        let mut pod = pod(2);
        let mut client = pod.connect(shared()).unwrap();
        stay(&mut client);
        let links: Vec<_> = below(&set())
            .into_iter()
            .chain(below(&pod.pinned_of_pod("")))
            // One of its kind cannot be detached by force.
            .filter(|path| is_link(path) && !path.ends_with("link_sameport_compat"))
            .collect();
        assert!(links.len() > 10, "{links:?}");
        let mut cases: Vec<_> = links.iter().map(|link| vec![link.clone()]).collect();
        cases.push(links);
        for links in cases {
            let before = without_links(pinned(&root()));
            links.iter().for_each(|link| pins::detach(link).unwrap());
            assert_ne!(without_links(pinned(&root())), before, "{links:?}");
            soon(&format!("{links:?}"), &before, || without_links(pinned(&root())));
            is_steered(&mut pod, 1);
        }
        // Once its pin is gone as well.
        let link = set().join("link_sameport_sockops");
        let before = without_links(pinned(&root()));
        pins::detach(&link).unwrap();
        fs::remove_file(link).unwrap();
        soon("detached and removed", &before, || without_links(pinned(&root())));
        is_steered(&mut pod, 1);
    });
}

/// The program of a group of listeners can be taken away by the supervisor's own, who are not kept from it, and before there was
/// something that keeps others: `sameport_migrate` has to be had back.
#[test]
fn listeners_that_lose_their_program_have_it_back() {
    let mut pod = Pod::new();
    pod.declared.insert(PORT);
    let mut agents: Vec<_> = (1..=2).map(|slot| pod.agent(slot)).collect();
    pod.settled();
    for agent in &mut agents {
        agent.call("listen", serde_json::json!({"address": "0.0.0.0", "port": PORT.1, "label": "usual"}));
    }
    pod.listening(2, PORT);
    // In the control group of this test, which supervises.
    let mut insider = Agent::start("insider", pod.sandbox(), None);
    let place = serde_json::json!({"address": "0.0.0.0", "port": PORT.1, "label": "usual", "reuseport": 1});
    insider.call("listen", place);
    insider.call("detach", serde_json::json!({"label": "usual"}));
    // It fails where there is none.
    assert_eq!(insider.try_to("detach", serde_json::json!({"label": "usual"})), Err("ENOENT".to_owned()));
    thread::sleep(slowly(SOON));
    insider.call("detach", serde_json::json!({"label": "usual"}));
}

#[test]
fn those_who_share_do_not_fight() {
    apart(|| {
        let mut pods = [pod(2), pod(2), pod(2)];
        let all = || pinned(&root());
        let before = all();
        for gone in [half(below(&set())), below(&set())] {
            gone.iter().for_each(|path| fs::remove_file(path).unwrap());
            soon("it is there again", &before, all);
        }
        pins::detach(&set().join("link_sameport_bind4")).unwrap();
        soon("it is attached again", &without_links(before.clone()), || without_links(all()));
        thread::sleep(Duration::from_millis(100));
        let now = all();
        thread::sleep(2 * SOON);
        assert_eq!(all(), now, "nobody does it again");
        pods.iter_mut().for_each(|pod| is_steered(pod, 0));
        let mark = set().join("build");
        let ours = fs::read_link(&mark).unwrap();
        // Another release has attached its own.
        let replace = |build: &Path| {
            fs::remove_file(&mark).unwrap();
            symlink(build, &mark).unwrap();
        };
        replace(Path::new("another"));
        let before = all();
        let number = std::process::id();
        let third = KernelSteering::start(&format!("spl{number}").parse().unwrap()).unwrap();
        assert_ne!(all()[&set().join("link_sameport_bind4")], before[&set().join("link_sameport_bind4")]);
        third.remove().unwrap();
        replace(Path::new("another"));
        let before = all();
        thread::sleep(2 * SOON);
        assert_eq!(all(), before, "they are not taken back");
        // Those of the other release who run would do it, but there are none.
        pins::detach(&set().join("link_sameport_bind4")).unwrap();
        thread::sleep(slowly(2 * SOON));
        assert_eq!(fs::read_link(&mark).unwrap(), ours);
        assert!(pins::is_attached(&set().join("link_sameport_bind4")));
        pods.iter_mut().for_each(|pod| is_steered(pod, 0));
    });
}
