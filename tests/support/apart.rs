//! Pins of a test's own.

use std::thread;

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

/// Does something where nobody else's pins are, and none of it are seen elsewhere: on a thread with a mount namespace and a
/// bpffs of its own, as are the threads and processes that it begins. So it has programs of its own at the root of the
/// control groups, beside those of others. All of it goes with the namespace, also when the test fails.
pub fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace takes root");
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            mount("bpf", "/sys/fs/bpf", "bpf", MountFlags::empty(), Some(c"mode=0700")).unwrap();
            work()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
