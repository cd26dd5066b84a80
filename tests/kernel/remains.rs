//! What is left of pins that somebody removed while no supervisor ran is taken over as a whole, or not at all.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use sameport::kernel::steering::{KernelSteering, Steering as _};

use super::{
    lost::{MORE, SOON, asked, below, half, is_link, is_shared, is_steered, pod, root, set, soon},
    server::{PORT, shared, stay},
    support::{apart::apart, wait::slowly},
};

/// Nobody had descriptors of what was lost.
#[test]
fn the_next_one_takes_all_or_makes_it_anew() {
    apart(|| {
        let mut pod = pod(2);
        let (host, of_pod) = (set(), pod.pinned_of_pod(""));
        let links =
            |folder: &Path| below(folder).into_iter().filter(|path| is_link(path)).collect::<Vec<_>>();
        let maps =
            |folder: &Path| below(folder).into_iter().filter(|path| !is_link(path)).collect::<Vec<_>>();
        let odd = |paths: Vec<PathBuf>| half(paths.into_iter().rev().collect());
        let both = |of: &dyn Fn(&Path) -> Vec<PathBuf>| [of(&host), of(&of_pod)].concat();
        for (what, gone) in [
            ("half of the host's pins", half(below(&host))),
            ("half of the pod's pins", half(below(&of_pod))),
            ("half of both", half(both(&below))),
            ("the other half of both", odd(both(&below))),
            ("half of the pod's maps, and its link", [half(maps(&of_pod)), links(&of_pod)].concat()),
            ("half of the host's maps, and its links", [half(maps(&host)), links(&host)].concat()),
            ("half of both's maps, and all links", [half(both(&maps)), both(&links)].concat()),
            ("all links", both(&links)),
            ("all of the host", below(&host)),
            ("all of the pod", below(&of_pod)),
            ("all", both(&below)),
        ] {
            let mut client = pod.connect(shared()).unwrap();
            stay(&mut client);
            pod.steering = None;
            let (gap, failed) = asked(&mut pod, |pod| {
                gone.iter().for_each(|path| fs::remove_file(path).unwrap());
                pod.steering = Some(KernelSteering::start(&pod.project).unwrap());
                pod.tell();
                pod.listening(2, PORT);
                thread::sleep(Duration::from_millis(200));
            });
            println!("{what}: {failed} failed, nobody answered for {gap:?}");
            assert!(gap < slowly(SOON), "{what}: {gap:?}");
            drop(client);
            // While the program that counts was detached, and nobody kept it, ends were not counted.
            if gone.iter().all(|path| !path.starts_with(&host) || !is_link(path)) {
                soon("nothing is open", &0, || pod.live(PORT).into_values().sum::<u64>());
                is_steered(&mut pod, 0);
            } else {
                is_shared(&mut pod, 1);
                pod.remove(MORE);
                pod.listening(2, PORT);
                // The next case begins with none.
                pod.steering.take().unwrap().remove().unwrap();
                pod.succeed();
                pod.listening(2, PORT);
            }
        }
        drop(pod);
        assert_eq!(below(&root()), [] as [PathBuf; 0]);
    });
}
