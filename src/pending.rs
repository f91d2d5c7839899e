//! Durations whose counters are not there yet: kept, so that nothing is allocated in a poll.
//!
//! A thread that has a duration to count and finds neither a counter for it nor one
//! [in stock](crate::stock) leaves it here, and counts it when there is one again.
//!
//! # Protocol
//! Only the owner writes: it adds here, and moves from here into its counters. A
//! reader writes nothing; it reads the counters and adds to them what is here. So
//! that it finds each duration once, `moves` is odd while the owner moves some: a reader
//! that finds it odd, or changed once it has read all, has to read again. No one waits
//! for a reader.
//! - `moves` made odd comes before all that is changed in a move: a fence (release)
//!   follows its store. A reader that has seen any of that has a fence (acquire) before
//!   its second load of `moves`, which then finds it odd, or later still.
//! - `moves` made even (release) comes after all of that: a reader's first load (acquire)
//!   that finds it even has seen the whole move.
//! - Between moves an entry is only added to: its key is stored before its count
//!   (release), and loaded after it (acquire).

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::sync::{AtomicU64, fence, yield_now};

/// How often a reader reads again. The owner moves for a microsecond; in a forked child
/// it can be gone in the middle.
const TRIES: u32 = 1_000;

/// Longer durations wait as this one, some 78 hours.
const LONGEST_NS: u64 = (1 << NS_BITS) - 1;
const NS_BITS: u32 = 48;

/// At most `N` different durations that wait to be counted.
#[derive(Debug)]
pub(crate) struct Pending<const N: usize> {
    moves: AtomicU64,
    /// How many entries are in use; for the owner itself.
    used: AtomicU64,
    entries: [Entry; N],
}

/// The same duration of the same thing, however often.
#[derive(Debug)]
struct Entry {
    /// What it is of, and nanoseconds.
    key: AtomicU64,
    /// How often; 0 where the entry is free.
    times: AtomicU64,
}

impl<const N: usize> Pending<N> {
    pub(crate) fn new() -> Self {
        Pending {
            moves: AtomicU64::new(0),
            used: AtomicU64::new(0),
            entries: std::array::from_fn(|_| Entry {
                key: AtomicU64::new(0),
                times: AtomicU64::new(0),
            }),
        }
    }

    /// Owner only: keeps a duration that is of `what`; false where there is no room.
    pub(crate) fn add(&self, what: u16, ns: u64, times: u64) -> bool {
        let key = u64::from(what) << NS_BITS | ns.min(LONGEST_NS);
        for entry in &self.entries {
            let before = entry.times.load(Relaxed);
            if before == 0 {
                self.used.store(self.used.load(Relaxed) + 1, Relaxed);
                entry.key.store(key, Relaxed);
            } else if entry.key.load(Relaxed) != key {
                continue;
            }
            // Release: pairs with the acquire in `try_read`.
            entry.times.store(before.saturating_add(times), Release);
            return true;
        }
        false
    }

    /// Owner only: hands all to `count`, and keeps what that refuses.
    #[inline]
    pub(crate) fn settle(&self, count: impl FnMut(u16, u64, u64) -> bool) {
        if self.used.load(Relaxed) > 0 {
            self.settle_some(count);
        }
    }

    #[cold]
    fn settle_some(&self, mut count: impl FnMut(u16, u64, u64) -> bool) {
        let moves = self.moves.load(Relaxed);
        self.moves.store(moves.wrapping_add(1), Relaxed);
        // Pairs with the fence in `try_read`.
        fence(Release);
        for entry in &self.entries {
            let times = entry.times.load(Relaxed);
            let key = entry.key.load(Relaxed);
            if times > 0 && count(what_in(key), key & LONGEST_NS, times) {
                entry.times.store(0, Relaxed);
                self.used.store(self.used.load(Relaxed) - 1, Relaxed);
            }
        }
        // Release: pairs with the acquire in `try_read`.
        self.moves.store(moves.wrapping_add(2), Release);
    }

    /// What `counted` reads of the owner's counters, with what waits added to it.
    ///
    /// Where the owner is in the middle of a move all the while, some of what waits may
    /// be there twice, or not at all.
    pub(crate) fn read<T>(
        &self,
        mut counted: impl FnMut() -> T,
        mut add: impl FnMut(&mut T, u16, u64, u64),
    ) -> T {
        for _ in 0..TRIES {
            if let (all, true) = self.try_read(&mut counted, &mut add) {
                return all;
            }
            yield_now();
        }
        self.try_read(&mut counted, &mut add).0
    }

    /// Whether each is there once, too.
    pub(crate) fn try_read<T>(
        &self,
        counted: &mut impl FnMut() -> T,
        add: &mut impl FnMut(&mut T, u16, u64, u64),
    ) -> (T, bool) {
        // Acquire: pairs with the second release in `settle`.
        let before = self.moves.load(Acquire);
        let mut all = counted();
        for entry in &self.entries {
            // Acquire: pairs with the release in `add`.
            let times = entry.times.load(Acquire);
            if times > 0 {
                let key = entry.key.load(Relaxed);
                add(&mut all, what_in(key), key & LONGEST_NS, times);
            }
        }
        // Pairs with the fence in `settle`.
        fence(Acquire);
        let is_whole = before.is_multiple_of(2) && self.moves.load(Relaxed) == before;
        (all, is_whole)
    }
}

const fn what_in(key: u64) -> u16 {
    (key >> NS_BITS) as u16
}
