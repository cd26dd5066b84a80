//! The sandbox's own program: holds a pod's namespaces open, and does nothing else.
//!
//! It is process 1 of its container. So it takes its orphans' ends in, or they would stay as zombies, and it has
//! to ask for the signals that stop it, or the kernel would keep them from process 1. It has no standard library,
//! no heap and no libc: `build.rs` compiles this file alone, and the result is a part of `sameport`.

#![no_std]
#![no_main]
#![allow(unsafe_code)]

use core::arch::{asm, global_asm};

const SIGINT: u64 = 2;
const SIGTERM: u64 = 15;
const SIGCHLD: u64 = 17;
const SIG_BLOCK: usize = 0;
const WNOHANG: usize = 1;
/// Size of the kernel's signal set.
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

// The kernel enters here with the arguments on the stack and no return address; a function needs the stack
// aligned to 16 bytes.
#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "and rsp, -16", "call {main}", main = sym main);

#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, xzr", "mov x30, xzr", "bl {main}", main = sym main);

/// A system call.
///
/// # Safety
/// What the arguments mean is up to the call: pointers among them have to be what the kernel expects there.
#[cfg(target_arch = "x86_64")]
unsafe fn syscall(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    // SAFETY: the registers are those of the kernel's calling convention, which keeps all others but rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// A system call.
///
/// # Safety
/// What the arguments mean is up to the call: pointers among them have to be what the kernel expects there.
#[cfg(target_arch = "aarch64")]
unsafe fn syscall(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    // SAFETY: the registers are those of the kernel's calling convention, which keeps all others.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b, in("x2") c, in("x3") d,
            options(nostack),
        );
    }
    result
}

extern "C" fn main() -> ! {
    let bit = |signal: u64| 1u64 << (signal - 1);
    let signals = bit(SIGINT) | bit(SIGTERM) | bit(SIGCHLD);
    let set = &raw const signals as usize;
    // SAFETY: `set` points to a signal set of SET bytes that lives as long as the process.
    unsafe { syscall(number::RT_SIGPROCMASK, SIG_BLOCK, set, 0, SET) };
    loop {
        // SAFETY: as above; no information and no time limit are asked for.
        let signal = unsafe { syscall(number::RT_SIGTIMEDWAIT, set, 0, 0, SET) };
        if signal == SIGINT as isize || signal == SIGTERM as isize {
            // SAFETY: ends the process; no memory is touched.
            unsafe { syscall(number::EXIT_GROUP, 0, 0, 0, 0) };
        }
        // SAFETY: any child, and neither its status nor its usage is asked for.
        while unsafe { syscall(number::WAIT4, usize::MAX, 0, WNOHANG, 0) } > 0 {}
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
