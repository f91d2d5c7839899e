//! What a poll may need of the registry, in stock.

use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use crate::recorder::in_memory;
use crate::registry::thread::{Recorders, Thread};
use crate::registry::{MAX_LABELS, registry};
use crate::stock::{Restock, Stock};

/// How many entries, at most, are ready for threads that are new.
const MOST_THREADS: usize = 64;
/// How many threads' tables of delays are ready: 32 KiB, where futures are tracked.
const READY_TABLES: usize = 8;

pub(super) static THREADS: Stock<Box<Thread>, MOST_THREADS> =
    Stock::new(|| in_memory(Thread::new()), ready_threads);
pub(super) static TABLES: Stock<Box<Recorders>, READY_TABLES> = Stock::new(
    || in_memory([const { OnceLock::new() }; MAX_LABELS]),
    || if uses_tracking() { READY_TABLES } else { 0 },
);

/// Whether a future of this process was ever to be tracked.
static TRACKING: AtomicBool = AtomicBool::new(false);

/// A future is to be tracked: its polls will need what tracking has in stock.
pub(crate) fn note_tracking() {
    TRACKING.store(true, Relaxed);
}

/// Whether futures are tracked in this process, or may soon be.
pub(crate) fn uses_tracking() -> bool {
    TRACKING.load(Relaxed) || registry().tracks_all()
}

/// Twice as many as run at once, some 7 KiB each: most programs have no more that poll.
fn ready_threads() -> usize {
    static READY: OnceLock<usize> = OnceLock::new();
    // Asked for while stocks are filled, before the thread that looks can ask for it.
    *READY.get_or_init(|| {
        let cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        cpus.saturating_mul(2).clamp(8, MOST_THREADS)
    })
}

/// What threads need in polls.
pub(crate) fn stocks() -> [&'static dyn Restock; 2] {
    [&THREADS, &TABLES]
}
