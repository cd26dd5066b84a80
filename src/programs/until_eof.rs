//! The program of a lock container: runs until its standard input reaches end-of-file, and does nothing else.
//!
//! The owner of the lock holds the input open. When the owner or its host ends, the engine closes the input. As process
//! 1, the program is ended by no signal except SIGKILL. It is built like `pause.rs`.

#![no_std]
#![no_main]
#![allow(unsafe_code)]

mod bare;

use bare::syscall;

const STDIN: usize = 0;
const EINTR: isize = 4;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const READ: usize = 0;
    pub const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const READ: usize = 63;
    pub const EXIT_GROUP: usize = 94;
}

extern "C" fn main() -> ! {
    let mut buffer = [0u8; 64];
    loop {
        // SAFETY: the buffer has the given length and lives as long as the process.
        let read = unsafe { syscall(number::READ, STDIN, &raw mut buffer as usize, buffer.len(), 0) };
        if read == 0 || (read < 0 && read != -EINTR) {
            // SAFETY: ends the process; no memory is accessed.
            unsafe { syscall(number::EXIT_GROUP, 0, 0, 0, 0) };
        }
    }
}
