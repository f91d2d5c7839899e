//! Watchdogs that sleep until there is something to watch.
//!
//! A watchdog whose workers are all parked need not look. It makes known that it
//! sleeps, looks once more, and sleeps without a timer; a worker that wakes looks
//! whether somebody sleeps. Each does its own store before the other's load, with a
//! sequentially consistent fence between, so one of them sees the other: either the
//! watchdog sees that the worker is awake, or the worker that the watchdog sleeps.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, fence};

use crate::os::AutoResetEvent;
use crate::registry::RuntimeId;

/// How many watchdogs can sleep at once; others look at each tick.
const MAX_ASLEEP: usize = 64;

/// How many watchdogs sleep.
static ASLEEP: AtomicUsize = AtomicUsize::new(0);
/// A table, not a list behind a lock: a worker that wakes must not wait for a watchdog.
static BEDS: [Bed; MAX_ASLEEP] = [const { Bed::new() }; MAX_ASLEEP];

/// Where one watchdog sleeps.
#[derive(Debug)]
struct Bed {
    /// The number of the runtime that the watchdog looks at, and 1; 0 while it is free.
    runtime: AtomicU64,
    woken: AtomicBool,
    event: AutoResetEvent,
}

impl Bed {
    const fn new() -> Self {
        Bed {
            runtime: AtomicU64::new(0),
            woken: AtomicBool::new(false),
            event: AutoResetEvent::new(),
        }
    }
}

const fn key_of(runtime: RuntimeId) -> u64 {
    runtime.0 as u64 + 1
}

/// To be called when something has begun that a watchdog of this runtime must see;
/// of [no runtime](RuntimeId::default), any watchdog.
#[inline]
pub(crate) fn wake(runtime: RuntimeId) {
    // After the stores that tell of what has begun: see the module.
    fence(SeqCst);
    if ASLEEP.load(Relaxed) > 0 {
        wake_those(runtime);
    }
}

#[cold]
fn wake_those(runtime: RuntimeId) {
    for bed in &BEDS {
        let of = bed.runtime.load(Relaxed);
        let meant = runtime == RuntimeId::default() || of == key_of(runtime);
        if of != 0 && meant && !bed.woken.swap(true, Release) {
            bed.event.set();
        }
    }
}

/// Known to sleep, until it is dropped.
#[derive(Debug)]
pub(crate) struct Sleep(&'static Bed);

impl Sleep {
    /// The calling thread is about to sleep; it has to look once more before it does.
    /// `None` where too many sleep.
    pub(crate) fn begin(runtime: RuntimeId) -> Option<Self> {
        let take = |bed: &&Bed| {
            let taken = bed
                .runtime
                .compare_exchange(0, key_of(runtime), Acquire, Relaxed);
            taken.is_ok()
        };
        let bed = BEDS.iter().find(take)?;
        bed.woken.store(false, Relaxed);
        ASLEEP.fetch_add(1, Relaxed);
        // Before the loads of the look that follows: see the module.
        fence(SeqCst);
        Some(Sleep(bed))
    }

    pub(crate) fn is_over(&self) -> bool {
        // Acquire: pairs with the release in `wake_those`.
        self.0.woken.load(Acquire)
    }

    /// Sleeps until it is woken; may return earlier.
    pub(crate) fn wait(&self) {
        self.0.event.wait(None);
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        ASLEEP.fetch_sub(1, Relaxed);
        // Release: pairs with the acquire in `begin`.
        self.0.runtime.store(0, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_sleeper_is_woken_by_its_own_runtime_or_by_none() {
        let (mine, other) = (RuntimeId(u32::MAX - 70), RuntimeId(u32::MAX - 71));
        let sleep = Sleep::begin(mine).unwrap();
        wake(other);
        assert!(!sleep.is_over());
        wake(mine);
        assert!(sleep.is_over());
        drop(sleep);
        let sleep = Sleep::begin(mine).unwrap();
        wake(RuntimeId::default());
        assert!(sleep.is_over());
        drop(sleep);
        assert!(
            BEDS.iter()
                .all(|bed| bed.runtime.load(Relaxed) != key_of(mine))
        );
    }

    #[test]
    fn who_begins_and_who_falls_asleep_never_miss_each_other() {
        let runtime = RuntimeId(u32::MAX - 72);
        let begun = AtomicUsize::new(0);
        let rounds = 20_000;
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=rounds {
                    begun.store(round, Relaxed);
                    wake(runtime);
                }
            });
            let mut seen = 0;
            while seen < rounds {
                let sleep = Sleep::begin(runtime).unwrap();
                while begun.load(Relaxed) == seen && !sleep.is_over() {
                    // Would hang here.
                    sleep.wait();
                }
                seen = begun.load(Relaxed);
            }
        });
    }
}
