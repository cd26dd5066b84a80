//! Releases side by side on one host: what one of them does, or that it goes, costs the traffic of the other nothing; and
//! the last one of a layout takes all of it away.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use sameport::kernel::capability;
use tempfile::TempDir;

use super::{
    older::{self, Older, Origin},
    support::{
        apart::apart,
        load::Load,
        project::{Project, web},
        wait::{self, check},
    },
};

const HOOKS: &[u8] = include_bytes!("../../src/kernel/bpf/hooks.bpf.o");
/// Of the head of an ELF file: bytes that mean nothing.
const PADDING: usize = 9;
/// Requests a second to each project, a new connection each.
const RATE: u32 = 100;

/// Another release of the same layout: this one's program, in which the programs of the kernel that all projects share are
/// other ones, by a byte that means nothing. So a supervisor of each takes those of the other for foreign.
struct OtherBuild {
    folder: TempDir,
}

impl OtherBuild {
    fn new() -> Self {
        let mut program = fs::read(env!("CARGO_BIN_EXE_sameport")).unwrap();
        let found: Vec<_> = starts(&program, HOOKS);
        assert!(!found.is_empty(), "the object is in the program");
        found.iter().for_each(|at| program[at + PADDING] ^= 1);
        let folder = tempfile::tempdir().unwrap();
        let build = Self { folder };
        fs::write(build.folder.path().join("bytes"), program).unwrap();
        // A file that this process has open for writing could not be run: others of its threads begin processes, which have
        // its descriptors for a moment.
        let from = build.folder.path().join("bytes");
        let status =
            Command::new("install").args(["-m", "755"]).arg(from).arg(build.path()).status().unwrap();
        assert!(status.success());
        build
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("sameport")
    }
}

/// Where some bytes begin among others.
fn starts(bytes: &[u8], wanted: &[u8]) -> Vec<usize> {
    let first = |from: usize| bytes[from..].iter().position(|byte| *byte == wanted[0]).map(|at| from + at);
    let mut found = Vec::new();
    let mut at = first(0);
    while let Some(here) = at {
        if bytes[here..].starts_with(wanted) {
            found.push(here);
        }
        at = first(here + 1);
    }
    found
}

fn this() -> PathBuf {
    env!("CARGO_BIN_EXE_sameport").into()
}

fn root() -> PathBuf {
    capability::mounted("bpf").unwrap().join("sameport")
}

fn names() -> Vec<String> {
    let entries = fs::read_dir(root()).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Which release's programs are in force for all projects of this layout.
fn in_force() -> String {
    fs::read_link(root().join("_host_2/build")).unwrap().to_str().unwrap().to_owned()
}

/// Two replicas of nginx, supervised by a release.
fn begin(release: &Path) -> Project {
    let project = Project::new(&web(2));
    older::run(&project, release, &["up", "-d", "--wait"]);
    project.serves(2);
    project
}

/// Has another supervisor take a project over, as after an upgrade or, for an older release, a downgrade.
fn hand_over(project: &Project, release: &Path) {
    let (before, pid) = (project.processes(), project.supervisor());
    // A supervisor of the same protocol is not replaced by `up`.
    project.kill_supervisor();
    older::run(project, release, &["up", "-d", "--wait"]);
    assert_eq!(project.processes(), before, "nothing was restarted");
    assert_ne!(project.supervisor(), pid);
    let program = fs::read_link(format!("/proc/{}/exe", project.supervisor().unwrap())).unwrap();
    assert_eq!(program, release);
}

/// Does something while both are asked: no request may fail.
fn unnoticed<T>(projects: &[&Project], what: &str, work: impl FnOnce() -> T) -> T {
    let loads: Vec<_> = projects.iter().map(|project| Load::start(project.outside(), RATE)).collect();
    thread::sleep(Duration::from_millis(300));
    let done = work();
    thread::sleep(Duration::from_secs(1));
    for (load, project) in loads.into_iter().zip(projects) {
        let report = load.finish();
        eprintln!(
            "{what}: {}: {} answered, {} failed",
            project.name,
            report.answered(),
            report.failures.len()
        );
        assert!(report.failures.is_empty(), "{what}: {}: {report}", project.name);
        assert!(report.answered() > 50, "{what}: {report}");
    }
    done
}

/// A replica more shares the port with the others.
fn grows(project: &Project, release: &Path, replicas: usize) {
    older::run(project, release, &["scale", &format!("web={replicas}")]);
    project.serves(replicas);
}

fn down(project: &Project, release: &Path) {
    older::run(project, release, &["down", "-v", "-t", "1"]);
    wait::until("its pins are gone", || check(!names().contains(&project.name), names()));
}

/// Whoever comes last has its programs in force for both; whoever goes first, and whichever is upgraded or goes back, the
/// other one's traffic goes on.
#[test]
fn two_builds_of_one_layout_stand_side_by_side() {
    apart(|| {
        let other = OtherBuild::new();
        let (old, new) = (other.path(), this());
        let first = begin(&old);
        let of_old = in_force();
        let second = unnoticed(&[&first], "the newer one comes", || begin(&new));
        let of_new = in_force();
        assert_ne!(of_old, of_new);
        unnoticed(&[&first, &second], "both grow", || {
            grows(&first, &old, 3);
            grows(&second, &new, 3);
        });
        unnoticed(&[&first, &second], "the newer one goes back", || hand_over(&second, &old));
        assert_eq!(in_force(), of_old);
        unnoticed(&[&first, &second], "both are upgraded", || {
            hand_over(&first, &new);
            hand_over(&second, &new);
        });
        assert_eq!(in_force(), of_new);
        unnoticed(&[&first, &second], "one goes back", || hand_over(&first, &old));
        unnoticed(&[&first], "the newer one ends first", || down(&second, &new));
        assert_eq!(names(), ["_host_2", &first.name]);
        unnoticed(&[&first], "the older one goes on", || grows(&first, &old, 4));
        let second = unnoticed(&[&first], "the newer one comes again", || begin(&new));
        unnoticed(&[&second], "the older one ends first", || down(&first, &old));
        unnoticed(&[&second], "the newer one goes on", || grows(&second, &new, 3));
        down(&second, &new);
        assert_eq!(names(), [""; 0], "the last one removes all");
    });
}

/// The older release has programs of its own for each project, of layout 1, beside those of this one.
#[test]
fn two_layouts_stand_side_by_side() {
    apart(|| {
        for origin in Origin::all() {
            println!("{origin:?}");
            let new = this();
            let (one, two) = (Older::supervised(origin.clone()), Older::supervised(origin.clone()));
            let (older, upgraded) = (&one.project, &two.project);
            assert!(!names().contains(&"_host_2".to_owned()));
            let newer = unnoticed(&[older, upgraded], "the newer one comes", || begin(&new));
            unnoticed(&[older, upgraded, &newer], "the newer one grows", || grows(&newer, &new, 3));
            unnoticed(&[older, upgraded, &newer], "an older one is upgraded", || {
                older::run(upgraded, &new, &["up", "-d", "--wait"]);
            });
            unnoticed(&[older, upgraded], "the newer one ends first", || down(&newer, &new));
            let newer = unnoticed(&[older, upgraded], "the newer one comes again", || begin(&new));
            unnoticed(&[upgraded, &newer], "an older one ends first", || one.down());
            assert_eq!(names(), sorted(["_host_2", &newer.name, &upgraded.name]));
            unnoticed(&[&newer], "the upgraded one ends", || down(upgraded, &new));
            unnoticed(&[&newer], "the newer one goes on", || grows(&newer, &new, 4));
            down(&newer, &new);
            assert_eq!(names(), [""; 0], "the last one of its layout removes all");
        }
    });
}

/// The newer release goes, and the older one goes on: nothing that they shared is missing.
#[test]
fn the_newer_layout_goes_and_the_older_one_stays() {
    apart(|| {
        for origin in Origin::all() {
            println!("{origin:?}");
            let new = this();
            let older = Older::supervised(origin);
            let newer = begin(&new);
            unnoticed(&[&older.project], "the newer one ends", || down(&newer, &new));
            assert_eq!(
                names(),
                [older.project.name.as_str()],
                "the last one of its layout removes all of it"
            );
            unnoticed(&[&older.project], "the older one goes on", || ());
            older.down();
            assert_eq!(names(), [""; 0]);
        }
    });
}

fn sorted<const N: usize>(names: [&str; N]) -> Vec<&str> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names
}
