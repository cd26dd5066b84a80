//! Runtime support for programs without a standard library: the entry point and system calls.

use core::arch::{asm, global_asm};

// The kernel enters here with the arguments on the stack and no return address. A function expects a stack that is
// aligned to 16 bytes.
#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "and rsp, -16", "call {main}", main = sym super::main);

#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, xzr", "mov x30, xzr", "bl {main}", main = sym super::main);

/// Makes a system call.
///
/// # Safety
/// The arguments must be valid for the call; pointers must point to what the kernel expects.
#[cfg(target_arch = "x86_64")]
pub unsafe fn syscall(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    // SAFETY: the registers follow the kernel's calling convention, which preserves all but rcx and r11.
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

/// Makes a system call.
///
/// # Safety
/// The arguments must be valid for the call; pointers must point to what the kernel expects.
#[cfg(target_arch = "aarch64")]
pub unsafe fn syscall(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    // SAFETY: the registers follow the kernel's calling convention, which preserves all others.
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

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
