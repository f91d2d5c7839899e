//! For how long a thread has done this library's work.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::clock;

/// For how long a thread has done this library's work; written by it alone.
#[derive(Debug, Default)]
pub(crate) struct OwnTime {
    /// Since when it does; 0 if it does not.
    since: AtomicU64,
    spent: AtomicU64,
}

impl OwnTime {
    pub(crate) fn begin(&self) {
        self.since.store(clock::ticks(), Relaxed);
    }

    pub(crate) fn end(&self) {
        let since = self.since.swap(0, Relaxed);
        let spent = clock::ticks().saturating_sub(since);
        let before = self.spent.load(Relaxed);
        // Release: pairs with the acquire in `spent_ns`, so that who sees this time does
        // not see its beginning too.
        self.spent.store(before.saturating_add(spent), Release);
    }

    /// In all until now; at the end of a piece of work it can seem less for a moment.
    pub(crate) fn spent_ns(&self) -> u64 {
        let spent = self.spent.load(Acquire);
        let since = self.since.load(Relaxed);
        let ns = |from, to| clock::ns_from_to(from, to).unwrap_or(0);
        let goes_on_ns = match since {
            0 => 0,
            since => ns(since, clock::ticks()),
        };
        ns(0, spent).saturating_add(goes_on_ns)
    }
}
