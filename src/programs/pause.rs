//! The program of the sandbox container: holds the namespaces of a pod open, and does nothing else.
//!
//! It is process 1 of its container. It therefore reaps orphaned processes, which would stay zombies otherwise, and
//! waits for its stop signals explicitly, because the kernel does not deliver unhandled signals to process 1. It uses
//! no standard library, no heap and no libc: `build.rs` compiles it, and `sameport` embeds the result.

#![no_std]
#![no_main]
#![allow(unsafe_code)]

mod bare;

use bare::syscall;

const SIGINT: u64 = 2;
const SIGTERM: u64 = 15;
const SIGCHLD: u64 = 17;
const SIG_BLOCK: usize = 0;
const WNOHANG: usize = 1;
/// Size of the kernel's signal set, in bytes.
const SET: usize = 8;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const RT_SIGPROCMASK: usize = 14;
    pub const WAIT4: usize = 61;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    pub const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const EXIT_GROUP: usize = 94;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const RT_SIGTIMEDWAIT: usize = 137;
    pub const WAIT4: usize = 260;
}

extern "C" fn main() -> ! {
    let bit = |signal: u64| 1u64 << (signal - 1);
    let signals = bit(SIGINT) | bit(SIGTERM) | bit(SIGCHLD);
    let set = &raw const signals as usize;
    // SAFETY: `set` points to a signal set of SET bytes that lives as long as the process.
    unsafe { syscall(number::RT_SIGPROCMASK, SIG_BLOCK, set, 0, SET) };
    loop {
        // SAFETY: as above; the signal information and the timeout are null pointers.
        let signal = unsafe { syscall(number::RT_SIGTIMEDWAIT, set, 0, 0, SET) };
        if signal == SIGINT as isize || signal == SIGTERM as isize {
            // SAFETY: ends the process; no memory is accessed.
            unsafe { syscall(number::EXIT_GROUP, 0, 0, 0, 0) };
        }
        // SAFETY: waits for any child; the status and the resource usage are null pointers.
        while unsafe { syscall(number::WAIT4, usize::MAX, 0, WNOHANG, 0) } > 0 {}
    }
}
