//! Watchdogs that sleep until there is something to watch.
//!
//! A watchdog whose workers are all parked need not look. It makes known that it
//! sleeps, looks once more, and sleeps without a timer; a worker that wakes looks
//! whether somebody sleeps. Each does its own store before the other's load, with a
//! sequentially consistent fence between, so one of them sees the other: either the
//! watchdog sees that the worker is awake, or the worker that the watchdog sleeps.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize, fence};
use std::sync::{Arc, Mutex};
use std::thread::Thread;

use crate::registry::{RuntimeId, lock};

/// How many watchdogs sleep.
static ASLEEP: AtomicUsize = AtomicUsize::new(0);
static SLEEPERS: Mutex<Vec<Sleeper>> = Mutex::new(Vec::new());

#[derive(Debug)]
struct Sleeper {
    runtime: RuntimeId,
    thread: Thread,
    woken: Arc<AtomicBool>,
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
    for sleeper in &*lock(&SLEEPERS) {
        let meant = runtime == RuntimeId::default() || runtime == sleeper.runtime;
        if meant && !sleeper.woken.swap(true, Release) {
            sleeper.thread.unpark();
        }
    }
}

/// Known to sleep, until it is dropped.
#[derive(Debug)]
pub(crate) struct Sleep {
    woken: Arc<AtomicBool>,
}

impl Sleep {
    /// The calling thread is about to sleep; it has to look once more before it does.
    pub(crate) fn begin(runtime: RuntimeId) -> Self {
        let woken = Arc::new(AtomicBool::new(false));
        lock(&SLEEPERS).push(Sleeper {
            runtime,
            thread: std::thread::current(),
            woken: Arc::clone(&woken),
        });
        ASLEEP.fetch_add(1, Relaxed);
        // Before the loads of the look that follows: see the module.
        fence(SeqCst);
        Sleep { woken }
    }

    pub(crate) fn is_over(&self) -> bool {
        // Acquire: pairs with the release in `wake_those`.
        self.woken.load(Acquire)
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        ASLEEP.fetch_sub(1, Relaxed);
        lock(&SLEEPERS).retain(|sleeper| !Arc::ptr_eq(&sleeper.woken, &self.woken));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_sleeper_is_woken_by_its_own_runtime_or_by_none() {
        let (mine, other) = (RuntimeId(u32::MAX - 70), RuntimeId(u32::MAX - 71));
        let sleep = Sleep::begin(mine);
        wake(other);
        assert!(!sleep.is_over());
        wake(mine);
        assert!(sleep.is_over());
        drop(sleep);
        let sleep = Sleep::begin(mine);
        wake(RuntimeId::default());
        assert!(sleep.is_over());
        drop(sleep);
        assert!(!lock(&SLEEPERS).iter().any(|s| s.runtime == mine));
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
                let sleep = Sleep::begin(runtime);
                while begun.load(Relaxed) == seen && !sleep.is_over() {
                    // Would hang here.
                    thread::park();
                }
                seen = begun.load(Relaxed);
            }
        });
    }
}
