//! Moments at which everything is looked at that nobody tells of. They are the same for all that looks: to wake an idle processor
//! costs more than such a look.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

/// The time between two such moments: what is mended by a look is mended within a second.
pub const TICK: Duration = Duration::from_millis(800);

/// Any of these moments.
static ONE: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The first such moment after that time.
#[must_use]
pub fn after(time: Instant) -> Instant {
    let since = time.saturating_duration_since(*ONE).as_nanos();
    let ticks = u32::try_from(since / TICK.as_nanos() + 1).unwrap_or(u32::MAX);
    *ONE + TICK * ticks
}

/// Waits for the next such moment.
pub async fn next() {
    tokio::time::sleep_until(after(Instant::now()).into()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_within_a_tick_is_told_the_same_moment() {
        let first = after(Instant::now());
        let ms = Duration::from_millis;
        assert_eq!(after(first), first + TICK);
        assert_eq!(after(first + ms(1)), first + TICK);
        assert_eq!(after(first + TICK - ms(1)), first + TICK);
        assert_eq!(after(first + TICK * 1_000_000), first + TICK * 1_000_001);
    }
}
