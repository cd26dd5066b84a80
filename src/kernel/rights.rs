//! Least privilege: of root's rights a supervisor keeps what steering takes, and only the threads that steer have
//! them in force.
//!
//! Capabilities (capabilities(7)) belong to threads, and are passed on to threads that are made later.

use caps::{CapSet, Capability, CapsHashSet};

use super::KernelError;

/// What steering takes.
const STEERING: [Capability; 6] = [
    // Load programs, and attach them to networks and control groups.
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    // Enter the networks of pods, and mount bpffs. It is the one that may do most, and there is no lesser one.
    Capability::CAP_SYS_ADMIN,
    // Give a listener of ours to the user who shares the port, and open it below 1024.
    Capability::CAP_CHOWN,
    Capability::CAP_NET_BIND_SERVICE,
    // Read the number of maps that programs name (`BPF_MAP_GET_FD_BY_ID` and types want it on some kernels).
    Capability::CAP_PERFMON,
];

/// What all threads keep in force.
const ALWAYS: [Capability; 2] = [
    // Read files of users who call us by `sudo`.
    Capability::CAP_DAC_READ_SEARCH,
    // Look into processes of replicas, whose users may be others: which network they see, which listeners they have.
    Capability::CAP_SYS_PTRACE,
];

/// Whether this thread may do what steering takes. What other projects have made may be open to whoever has fewer rights, and
/// would let it begin what it cannot finish.
///
/// # Errors
/// When a right is missing.
pub fn check() -> Result<(), KernelError> {
    let has = |right| caps::has_cap(None, CapSet::Effective, right).unwrap_or(false);
    let may_load = has(Capability::CAP_BPF) || has(Capability::CAP_SYS_ADMIN);
    if may_load && has(Capability::CAP_NET_ADMIN) {
        return Ok(());
    }
    let source = std::io::Error::from_raw_os_error(libc::EPERM);
    Err(KernelError::Denied { what: "load BPF programs".to_owned(), source })
}

/// Drops what a supervisor never needs, for this thread and all that it will make, and puts out of force what only
/// the threads that steer need. To be called before there are other threads. For whoever has no rights nothing changes.
///
/// # Errors
/// When the kernel does not let go of them.
pub fn confine() -> Result<(), KernelError> {
    let fail = |error: caps::errors::CapsError| KernelError::Unsupported {
        what: "drop rights".to_owned(),
        reason: error.to_string(),
    };
    let had = caps::read(None, CapSet::Permitted).map_err(fail)?;
    let wanted: CapsHashSet = STEERING.into_iter().chain(ALWAYS).collect();
    let kept: CapsHashSet = had.intersection(&wanted).copied().collect();
    let in_force: CapsHashSet = ALWAYS.into_iter().filter(|right| kept.contains(right)).collect();
    // What can be acquired by running another program is dropped first: it takes a right that goes with the rest.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(fail)? {
        for right in caps::all() {
            if !wanted.contains(&right) && caps::has_cap(None, CapSet::Bounding, right).unwrap_or(false) {
                caps::drop(None, CapSet::Bounding, right).map_err(fail)?;
            }
        }
    }
    caps::set(None, CapSet::Effective, &in_force).map_err(fail)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(fail)
}

/// Puts in force, for this thread, all that it was allowed to keep.
///
/// # Errors
/// When the kernel does not let us.
pub fn raise() -> Result<(), KernelError> {
    let fail = |error: caps::errors::CapsError| KernelError::Unsupported {
        what: "take up rights".to_owned(),
        reason: error.to_string(),
    };
    let kept = caps::read(None, CapSet::Permitted).map_err(fail)?;
    caps::set(None, CapSet::Effective, &kept).map_err(fail)
}
