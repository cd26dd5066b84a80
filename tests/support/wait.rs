//! Waiting with a deadline that tells what was seen.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long anything may take on a busy machine.
pub const LONG: Duration = Duration::from_secs(90);

/// A time that a test's outcome depends on: how long something may take, or how long servers are busy. `SAMEPORT_SLOWNESS=N`
/// makes it N times as long, on a machine that is emulated.
pub fn slowly(time: Duration) -> Duration {
    let slowness = std::env::var("SAMEPORT_SLOWNESS").map(|times| times.parse().expect("a number"));
    time * slowness.unwrap_or(1)
}

/// Whether this machine is an emulated one, on which what happens at one instant elsewhere takes its time.
pub fn is_emulated() -> bool {
    slowly(Duration::from_secs(1)) > Duration::from_secs(1)
}

/// Looks again and again until there is something; what `look` says in the meantime is shown when time is up.
pub fn until<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    within(slowly(LONG).min(4 * LONG), what, look)
}

/// The same where it matters how long it takes.
pub fn within<T>(most: Duration, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let begin = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if begin.elapsed() > most => {
                panic!("waited {most:?} until {what}; what was seen at last:\n{seen}")
            }
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// For a `look` that only says yes or no.
pub fn check(holds: bool, seen: impl std::fmt::Debug) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{seen:#?}")) }
}
