//! Folders on bpffs that have our names, and that others can change.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
};

use sameport::{
    kernel::{Pins, steering::KernelSteering},
    spec::ProjectName,
};

use super::{
    lost::{asked, below, is_steered, pinned, pod, remove_all, root, set, soon},
    server::PORT,
    support::{
        apart::apart,
        wait::{self, check},
    },
};

#[test]
fn what_is_not_ours_is_named_and_left_alone() {
    apart(|| {
        let number = std::process::id();
        let name: ProjectName = format!("spf{number}").parse().unwrap();
        let folder = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path).unwrap();
        let elsewhere = Path::new("/sys/fs/bpf/elsewhere");
        folder(elsewhere);
        folder(&elsewhere.join("kept"));
        for of in [root(), set(), root().join(name.as_str())] {
            for (what, words) in [("link", "no folder"), ("owner", "user 4242"), ("mode", "mode 0777")] {
                if !root().exists() && of != root() {
                    folder(&root());
                }
                match what {
                    "link" => symlink(elsewhere, &of).unwrap(),
                    _ => folder(&of),
                }
                match what {
                    "owner" => chown(&of, Some(4242), None).unwrap(),
                    "mode" => fs::set_permissions(&of, fs::Permissions::from_mode(0o777)).unwrap(),
                    _ => {}
                }
                let before = fs::symlink_metadata(&of).unwrap();
                let error = KernelSteering::start(&name).map(drop).unwrap_err();
                let text = error.to_string();
                assert!(text.contains(&of.display().to_string()) && text.contains(words), "{text}");
                assert!(error.help().is_some(), "{text}");
                // `down` may find nothing behind it.
                if let Err(error) = Pins::clear(&name) {
                    assert!(error.to_string().contains(words), "{error}");
                }
                let after = fs::symlink_metadata(&of).unwrap();
                assert_eq!(
                    (before.permissions(), before.modified().unwrap()),
                    (after.permissions(), after.modified().unwrap())
                );
                assert!(elsewhere.join("kept").exists() && below(elsewhere).len() == 1);
                if what == "link" {
                    fs::remove_file(&of).unwrap()
                } else {
                    fs::remove_dir(&of).unwrap()
                }
                if root().exists() {
                    remove_all(&root());
                }
            }
        }
    });
}

/// What cannot be had back is told, and all goes on; once it can, it is.
#[test]
fn what_cannot_be_had_back_is_told() {
    apart(|| {
        let mut pod = pod(2);
        let before = pinned(&root());
        // Whoever makes it again may be sooner.
        let foreign = |path: &Path| {
            while symlink("/tmp", path).is_err() {
                remove_all(path);
            }
        };
        let folders = [root(), set(), pod.pinned(""), pod.pinned_of_pod("")];
        // Without the slash at the end.
        for of in folders.map(|path| path.components().collect::<PathBuf>()) {
            let (_, failed) = asked(&mut pod, |pod| {
                foreign(&of);
                wait::until("it is told", || {
                    let error = pod.report().error;
                    check(
                        error.as_ref().is_some_and(|error| error.contains(&of.display().to_string())),
                        error,
                    )
                });
                // It is none of the replicas' business.
                pod.listening(2, PORT);
                fs::remove_file(&of).unwrap();
                soon("it is there again", &before, || pinned(&root()));
                wait::until("all is well", || check(pod.report().error.is_none(), pod.report().error));
            });
            assert_eq!(failed, 0);
            is_steered(&mut pod, 0);
        }
    });
}
