//! The programs and maps that all projects of a host share are one set: it is used as a whole, or made anew as a whole,
//! whoever died in the middle of making it or letting it go, and whatever somebody has removed by hand.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use aya::maps::MapInfo;
use sameport::{
    kernel::{
        Pins, capability,
        steering::{KernelSteering, Steering as _},
    },
    spec::ProjectName,
};

use super::{
    pod::Pod,
    server::{PORT, answers, http, shared, stay},
    support::{
        apart::apart,
        wait::{self, check},
    },
};

static PROJECTS: AtomicU32 = AtomicU32::new(0);

/// The name of a project without pods.
fn name() -> ProjectName {
    let number = PROJECTS.fetch_add(1, Ordering::Relaxed);
    format!("sps{}-{number}", std::process::id()).parse().unwrap()
}

fn root() -> PathBuf {
    capability::mounted("bpf").unwrap().join("sameport")
}

fn set() -> PathBuf {
    root().join("_host_2")
}

fn names(folder: PathBuf) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The maps of the set, each with its number; and the names of its links.
fn pinned() -> (BTreeMap<String, u32>, Vec<String>) {
    let (links, maps): (Vec<_>, Vec<_>) =
        names(set()).into_iter().filter(|name| name != "build").partition(|name| name.starts_with("link_"));
    let id = |name: String| MapInfo::from_pin(set().join(&name)).map(|info| (name, info.id()));
    (maps.into_iter().map(id).collect::<Result<_, _>>().unwrap(), links)
}

fn remove(names: impl IntoIterator<Item = impl AsRef<str>>) {
    names.into_iter().for_each(|name| fs::remove_file(set().join(name.as_ref())).unwrap());
}

/// The half of some names.
fn half<T: Clone>(names: impl IntoIterator<Item = T>) -> Vec<T> {
    names.into_iter().step_by(2).collect()
}

fn pod(replicas: u32) -> Pod {
    let mut pod = Pod::new();
    (1..=replicas).for_each(|slot| pod.start(slot, &mut http()));
    pod.listening(replicas as usize, PORT);
    pod
}

/// Lets a replica more start, and looks whether all share the port and are counted.
fn is_steered(pod: &mut Pod, replicas: u32) {
    pod.start(replicas, &mut http());
    pod.listening(replicas as usize, PORT);
    let all: Vec<_> = (1..=replicas).map(|slot| slot.to_string()).collect();
    assert_eq!(answers(pod, 20 * replicas).into_keys().collect::<Vec<_>>(), all);
    let mut clients: Vec<_> = (0..replicas).map(|_| pod.connect(shared()).unwrap()).collect();
    clients.iter_mut().for_each(|client| drop(stay(client)));
    let live = pod.live(PORT);
    assert!(live.values().all(|live| *live == 1), "{live:?}");
    drop(clients);
    idle(pod);
}

fn idle(pod: &Pod) {
    wait::until("their ends are counted", || {
        let live = pod.live(PORT);
        check(live.values().all(|live| *live == 0), live)
    });
}

/// What is missing is had back from what still uses it, while a project serves; nobody begins with other maps than the rest.
#[test]
fn a_set_in_use_that_lacks_pins_is_completed() {
    apart(|| {
        let mut pod = pod(1);
        let (maps, links) = pinned();
        let mut client = pod.connect(shared()).unwrap();
        stay(&mut client);
        let mut replicas = 1;
        let all: Vec<String> = maps.keys().chain(&links).cloned().collect();
        for gone in [
            half(maps.keys()),
            half(&links),
            vec![&links[0]],
            // The program that counts is still there: nothing else uses some of the maps.
            [half(maps.keys()), half(&links)].concat(),
        ] {
            remove(&gone);
            let other = KernelSteering::start(&name()).unwrap();
            assert_eq!(pinned(), (maps.clone(), links.clone()), "without {gone:?}");
            assert_eq!(pod.live(PORT)[&1], 1, "what is open is counted on");
            other.remove().unwrap();
            assert_eq!(pinned(), (maps.clone(), links.clone()), "without {gone:?}");
        }
        drop(client);
        idle(&pod);
        replicas += 1;
        is_steered(&mut pod, replicas);
        // Whoever leaves does not mind either.
        remove(half(&all));
        let other = pod.project.clone();
        drop(pod);
        assert!(!Pins::exist(&other));
        assert_eq!(names(root()), [""; 0]);
    });
}

/// Those who run have what is gone; whoever begins meanwhile waits for them, and makes it anew only where nothing is left.
#[test]
fn a_set_that_is_gone_is_had_back_from_those_who_run() {
    apart(|| {
        let mut pod = pod(1);
        let (maps, links) = pinned();
        let mut client = pod.connect(shared()).unwrap();
        stay(&mut client);
        let begin_with_links: Vec<_> =
            links.iter().chain(&half(maps.keys().cloned().collect::<Vec<_>>())).cloned().collect();
        remove(begin_with_links);
        KernelSteering::start(&name()).unwrap().remove().unwrap();
        assert_eq!(pinned(), (maps.clone(), links.clone()));
        assert_eq!(pod.live(PORT)[&1], 1, "what is open is counted on");
        remove(names(set()));
        // They may be sooner.
        let _ = fs::remove_dir(set());
        let other = KernelSteering::start(&name()).unwrap();
        wait::until("all have one set", || {
            let now = pinned();
            check(now.0.len() == maps.len() && now.1 == links, now)
        });
        wait::until("the pod is entered in it", || {
            let live = pod.live(PORT);
            let sum = live.values().sum::<u64>();
            check(!live.is_empty() && (pinned().0 == maps || sum == 0), live)
        });
        drop(client);
        idle(&pod);
        is_steered(&mut pod, 2);
        other.remove().unwrap();
        is_steered(&mut pod, 3);
        drop(pod);
        assert_eq!(names(root()), [""; 0]);
    });
}

/// What whoever died in the middle of making the set, replacing its programs or letting it go has left.
#[test]
fn what_somebody_left_half_done_is_done_again() {
    apart(|| {
        let begin = || {
            let steering = KernelSteering::start(&name()).unwrap();
            (pinned(), steering)
        };
        let leave = |steering: KernelSteering| {
            steering.remove().unwrap();
            assert_eq!(names(root()), [""; 0], "the last one removes all");
        };
        let ((maps, links), steering) = begin();
        leave(steering);
        let all = |(now_maps, now_links): (BTreeMap<String, u32>, Vec<String>)| {
            assert_eq!(
                (now_maps.keys().collect::<Vec<_>>(), now_links),
                (maps.keys().collect(), links.clone())
            );
        };
        for (what, gone) in [
            (
                "half of its maps were made",
                links.iter().chain(&half(maps.keys().cloned().collect::<Vec<_>>())).cloned().collect(),
            ),
            ("all of its maps were made", [links.clone(), vec!["build".to_owned()]].concat()),
            ("some links were pinned", [half(links.clone()), vec!["build".to_owned()]].concat()),
            ("all but the mark was made", vec!["build".to_owned()]),
            ("links were let go", links.clone()),
            (
                "nothing was left but the folder",
                [maps.keys().cloned().collect(), links.clone(), vec!["build".to_owned()]].concat(),
            ),
        ] {
            println!("{what}");
            // A project that was killed: what it has pinned stays.
            let (killed, steering) = (name(), begin().1);
            drop(steering);
            remove(gone);
            let (now, steering) = begin();
            all(now);
            steering.remove().unwrap();
            let left: Vec<_> = names(root()).into_iter().filter(|name| name != "_host_2").collect();
            for name in left {
                Pins::clear(&name.parse().unwrap()).unwrap();
            }
            assert_eq!(names(root()), [""; 0], "{what}");
            assert!(!Pins::exist(&killed));
        }
        // In the middle of replacing a program by that of another release.
        let (_, steering) = begin();
        let link = set().join(&links[0]);
        fs::rename(&link, set().join(format!("{}_new", links[0]))).unwrap();
        fs::remove_file(set().join("build")).unwrap();
        symlink("another", set().join("build")).unwrap();
        let (now, other) = begin();
        all(now);
        assert_ne!(fs::read_link(set().join("build")).unwrap().to_str(), Some("another"));
        other.remove().unwrap();
        leave(steering);
        // Just before the end.
        let (_, steering) = begin();
        drop(steering);
        let project = names(root()).into_iter().find(|name| name != "_host_2").unwrap();
        fs::remove_file(root().join(&project).join("layout")).unwrap();
        fs::remove_dir(root().join(&project)).unwrap();
        assert_eq!(names(root()), ["_host_2"]);
        Pins::clear(&project.parse().unwrap()).unwrap();
        assert_eq!(names(root()), [""; 0]);
    });
}

/// Supervisors come and go at the same moment, some of them for the same project.
#[test]
fn who_comes_while_others_leave_has_a_whole_set() {
    const ROUNDS: u32 = 8;
    apart(|| {
        let (maps, links) = {
            let steering = KernelSteering::start(&name()).unwrap();
            let (maps, links) = pinned();
            steering.remove().unwrap();
            (maps.into_keys().collect::<Vec<_>>(), links)
        };
        let shared = name();
        thread::scope(|scope| {
            for number in 0..4 {
                let (maps, links, shared) = (&maps, &links, &shared);
                scope.spawn(move || {
                    let own = name();
                    for round in 0..ROUNDS {
                        // Two of them take turns with one project, as `down` and `up` do.
                        let project = if number < 2 { shared } else { &own };
                        let steering = match KernelSteering::start(project) {
                            // Longer than a supervisor is waited for.
                            Err(error) if number < 2 && error.to_string().contains("another supervisor") => {
                                continue;
                            }
                            started => started.unwrap(),
                        };
                        let (now, now_links) = pinned();
                        assert_eq!(now.into_keys().collect::<Vec<_>>(), *maps, "{number}, {round}");
                        let now_links: Vec<_> =
                            now_links.into_iter().filter(|link| !link.ends_with("_new")).collect();
                        assert_eq!(now_links, *links, "{number}, {round}");
                        steering.remove().unwrap();
                    }
                });
            }
        });
        assert_eq!(names(root()), [""; 0]);
    });
}
