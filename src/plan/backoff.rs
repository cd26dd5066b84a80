//! How long to wait before the next try.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

/// The pause before the first try again.
pub const FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
pub const LONGEST: Duration = Duration::from_secs(30);

/// The pause after `failures` failures in a row: doubling from [`FIRST`] to [`LONGEST`], up to a fifth shorter.
///
/// The jitter keeps replicas that failed together from coming back together. It is drawn from `seed` alone, so
/// that a plan made twice is the same plan.
#[must_use]
pub fn pause(failures: u32, seed: &impl Hash) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let full = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    let mut hasher = DefaultHasher::new();
    (seed, failures).hash(&mut hasher);
    let shortened = u32::try_from(hasher.finish() % 200).unwrap_or_default();
    full.saturating_sub(full * shortened / 1000).max(FIRST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        for (failures, at_least, at_most) in
            [(1, 100, 100), (2, 160, 200), (3, 320, 400), (9, 20_480, 25_600), (10, 24_000, 30_000)]
        {
            for seed in 0..50 {
                let pause = pause(failures, &seed).as_millis();
                assert!((at_least..=at_most).contains(&pause), "{failures} failures: {pause} ms");
            }
        }
        assert!(pause(u32::MAX, &0) <= LONGEST);
    }

    #[test]
    fn replicas_that_failed_together_come_back_apart() {
        let distinct: std::collections::BTreeSet<_> = (0..20).map(|seed| pause(8, &seed)).collect();
        assert!(distinct.len() > 15);
    }
}
