//! The table of threads whose polls are watched: never locked, never shrunk.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicU64, AtomicUsize};

use super::thread::Thread;

/// How many threads at once can have their polls watched.
pub(crate) const MAX_THREADS: usize = 1024;

/// Entries by number. One that is made stays; a thread that ends leaves its entry to
/// the next.
#[derive(Debug)]
pub(super) struct Threads {
    entries: [OnceLock<&'static Thread>; MAX_THREADS],
    /// How many numbers have been given away; the entry may still be on its way.
    numbered: AtomicUsize,
    refused: AtomicU64,
}

impl Threads {
    pub(super) const fn new() -> Self {
        Threads {
            entries: [const { OnceLock::new() }; MAX_THREADS],
            numbered: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// An entry for the calling thread alone; `None` where there are too many threads.
    ///
    /// One from stock, if there is a watchdog: the thread is within its first poll. Only
    /// where more threads are new at once than there are in stock, one is made here, as a
    /// poll that nobody can see would be worse.
    pub(super) fn take(&self, is_watched: bool) -> Option<&'static Thread> {
        let free = |thread: &&'static Thread| {
            // Acquire: pairs with the release in `Registry::dismiss`.
            let taken = thread.taken.compare_exchange(false, true, Acquire, Relaxed);
            taken.is_ok()
        };
        self.iter()
            .map(|(_, thread)| thread)
            .find(free)
            .or_else(|| {
                let next = |numbered| (numbered < MAX_THREADS).then_some(numbered + 1);
                // Relaxed: the number is only a place; the entry there is published by `set`.
                let Ok(number) = self.numbered.fetch_update(Relaxed, Relaxed, next) else {
                    self.refused.fetch_add(1, Relaxed);
                    return None;
                };
                let in_stock = is_watched.then(Thread::from_stock).flatten();
                let entry = in_stock.unwrap_or_else(|| Box::new(Thread::new()));
                let entry: &'static Thread = Box::leak(entry);
                // Empty until now: no number is given away twice.
                let _ = self.entries.get(number)?.set(entry);
                Some(entry)
            })
    }

    pub(super) fn get(&self, number: usize) -> Option<&'static Thread> {
        self.entries.get(number)?.get().copied()
    }

    /// All that were ever made, with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &'static Thread)> {
        let numbered = self.numbered.load(Relaxed).min(MAX_THREADS);
        let entries = self.entries.iter().take(numbered).enumerate();
        entries.filter_map(|(number, entry)| Some((number, *entry.get()?)))
    }

    /// How many threads could not be watched because there were too many.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Release;

    use super::*;

    #[test]
    fn threads_beyond_the_bound_are_refused_and_counted_until_one_ends() {
        let threads = Threads::new();
        let all: Vec<_> = (0..MAX_THREADS + 3).map(|_| threads.take(false)).collect();
        assert_eq!(all.iter().flatten().count(), MAX_THREADS);
        assert_eq!(threads.refused(), 3);
        assert_eq!(threads.iter().count(), MAX_THREADS);
        let ended = all[7].unwrap();
        ended.taken.store(false, Release);
        assert!(std::ptr::eq(threads.take(true).unwrap(), ended));
        assert!(threads.take(false).is_none());
    }
}
