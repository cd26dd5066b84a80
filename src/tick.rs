//! Moments at which everything is looked at that nobody tells of. They are the same for all that looks: to wake an idle processor
//! costs more than such a look.

use std::{
    sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

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

/// A look at something; whether somebody has to hear of what it finds. It takes next to no time.
type Look = Box<dyn FnMut() -> bool + Send>;

/// Looks at all that is watched at each of these moments.
///
/// On a thread of its own: a timer of tokio's wakes its threads several times for each moment, and each task that it wakes may wake
/// another thread.
#[derive(Clone)]
pub struct Ticker(Option<Arc<Watched>>);

/// What a thread looks at.
#[derive(Default)]
struct Watched {
    looks: Mutex<Vec<(Weak<Notify>, Look)>>,
    has_thread: OnceLock<bool>,
}

/// Something that is looked at as long as this is there.
pub struct Watch(Kind);

enum Kind {
    /// By the thread of a ticker, which tells.
    Thread(Arc<Notify>),
    /// By whoever waits, by the clock of tokio.
    Timer { next: Instant, look: Look },
}

impl Ticker {
    /// The name of its thread.
    pub const THREAD: &str = "ticks";

    /// One with a thread, as long as there is something to look at. Without one, as in a process that may have no more of them,
    /// it goes by tokio's clock.
    #[must_use]
    pub fn by_thread() -> Self {
        Self(Some(Arc::default()))
    }

    /// One that goes by tokio's clock, which tests can stop.
    #[must_use]
    pub fn by_tokio() -> Self {
        Self(None)
    }

    /// Has something looked at.
    #[must_use]
    pub fn watch(&self, look: impl FnMut() -> bool + Send + 'static) -> Watch {
        let look = Box::new(look);
        Watch(match self.0.as_ref().filter(|watched| watched.has_thread()) {
            Some(watched) => {
                let found = Arc::new(Notify::new());
                watched.lock().push((Arc::downgrade(&found), look));
                Kind::Thread(found)
            }
            None => Kind::Timer { next: after(now()), look },
        })
    }
}

impl std::fmt::Debug for Ticker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ticker").field(&self.0.is_some()).finish()
    }
}

impl Watched {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Weak<Notify>, Look)>> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a thread looks; it begins with the first question.
    fn has_thread(self: &Arc<Self>) -> bool {
        *self.has_thread.get_or_init(|| {
            let watched = Arc::downgrade(self);
            let begun = thread::Builder::new().name(Ticker::THREAD.to_owned()).spawn(move || look_at_each(&watched));
            begun
                .inspect_err(|error| {
                    tracing::warn!(%error, "no thread looks at what nobody tells of; it is done in another way");
                })
                .is_ok()
        })
    }

    fn look(&self) {
        self.lock().retain_mut(|(found, look)| {
            let Some(found) = found.upgrade() else { return false };
            if look() {
                found.notify_one();
            }
            true
        });
    }
}

fn look_at_each(watched: &Weak<Watched>) {
    loop {
        thread::sleep(after(Instant::now()).saturating_duration_since(Instant::now()));
        let Some(watched) = watched.upgrade() else { return };
        watched.look();
    }
}

impl Watch {
    /// Waits until a look finds something. It is told again at the next moment, as long as it is found. Who gives up waiting
    /// misses nothing.
    pub async fn found(&mut self) {
        match &mut self.0 {
            Kind::Thread(found) => found.notified().await,
            Kind::Timer { next, look } => loop {
                tokio::time::sleep_until((*next).into()).await;
                *next = after(now());
                if look() {
                    return;
                }
            },
        }
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// The time by the clock that tokio sleeps by.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use tokio::time::timeout;

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

    #[tokio::test]
    async fn what_a_look_finds_is_told_as_long_as_it_is_found() {
        for ticker in [Ticker::by_thread(), Ticker::by_tokio()] {
            let there = Arc::new(AtomicBool::new(false));
            let looks = Arc::new(AtomicU32::new(0));
            let (seen, count) = (Arc::clone(&there), Arc::clone(&looks));
            let mut watch = ticker.watch(move || {
                count.fetch_add(1, Ordering::Relaxed);
                seen.load(Ordering::Relaxed)
            });
            assert!(timeout(TICK * 3 / 2, watch.found()).await.is_err(), "{ticker:?}: there is nothing");
            assert!((1..=2).contains(&looks.load(Ordering::Relaxed)), "{ticker:?}: {looks:?}");
            there.store(true, Ordering::Relaxed);
            for _ in 0..2 {
                timeout(TICK * 5, watch.found()).await.unwrap();
            }
            // What was found before somebody waited for it again may be told once more.
            there.store(false, Ordering::Relaxed);
            let _ = timeout(TICK * 3 / 2, watch.found()).await;
            assert!(timeout(TICK * 3 / 2, watch.found()).await.is_err(), "{ticker:?}: it is well again");
        }
    }

    #[test]
    fn nothing_is_looked_at_and_no_thread_is_left_once_nobody_wants_it() {
        let (ticker, looks) = (Ticker::by_thread(), Arc::new(()));
        let kept = Arc::clone(&looks);
        let watch = ticker.watch(move || Arc::strong_count(&kept) > 100);
        let watched = Arc::downgrade(ticker.0.as_ref().unwrap());
        assert_eq!(Arc::strong_count(&looks), 2);
        drop(watch);
        soon("it is forgotten", || Arc::strong_count(&looks) == 1);
        drop(ticker);
        soon("the thread has let go", || watched.upgrade().is_none());
    }

    fn soon(what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < TICK * 10, "{what}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}
