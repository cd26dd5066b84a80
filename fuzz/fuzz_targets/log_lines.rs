//! See [`sameport_fuzz::log_lines`].

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| sameport_fuzz::log_lines(data));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    sameport_fuzz::replay(sameport_fuzz::log_lines)
}
