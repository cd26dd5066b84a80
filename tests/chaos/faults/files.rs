//! What sameport keeps on disk and in bpffs is removed, or damaged.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    super::{cost::Cost::Nothing, scene::Scene, support::wait},
    Fault,
    Replaces::Nobody,
    fault,
};

pub const FAULTS: &[Fault] = &[
    fault("state file removed", Nothing, Nobody, 20, |scene| remove(scene, &["json"])),
    fault("control socket removed", Nothing, Nobody, 20, |scene| remove(scene, &["sock"])),
    fault("lock removed", Nothing, Nobody, 20, |scene| remove(scene, &["lock"])),
    fault("control socket and lock removed", Nothing, Nobody, 20, |scene| remove(scene, &["sock", "lock"])),
    fault("`docker rm` of the supervisor's lock", Nothing, Nobody, 20, |scene| {
        scene.project.docker.run(&["rm", &scene.project.engine_lock()]);
    }),
    fault("folder of socket, lock, state and log removed", Nothing, Nobody, 20, |scene| {
        remove_folder(&scene.project.path("sameport"));
    }),
    fault("state file damaged, SIGKILL to the supervisor, then `up -d`", Nothing, Nobody, 20, |scene| {
        scene.project.kill_supervisor();
        let path = scene.kept_file("json");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..scene.rng.usize(..whole.len())]).unwrap();
        scene.up();
    }),
    fault("a pin removed from bpffs", Nothing, Nobody, 20, |scene| {
        let mut files = files_in(&pinned(scene));
        files.sort();
        let file = &files[scene.rng.usize(..files.len())];
        fs::remove_file(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }),
    fault("the project's pins removed from bpffs", Nothing, Nobody, 20, |scene| {
        remove_folder(&pinned(scene));
    }),
];

fn remove(scene: &mut Scene, kinds: &[&str]) {
    kinds.iter().for_each(|kind| fs::remove_file(scene.kept_file(kind)).unwrap());
}

fn pinned(scene: &Scene) -> PathBuf {
    Path::new("/sys/fs/bpf/sameport").join(&scene.project.name)
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .flat_map(|entry| match entry.file_type().unwrap().is_dir() {
            true => files_in(&entry.path()),
            false => vec![entry.path()],
        })
        .collect()
}

/// Removes a folder, in which the supervisor may put something back at the same moment.
fn remove_folder(path: &Path) {
    wait::within(Duration::from_secs(5), "its folder is removed", || {
        fs::remove_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))
    });
}
