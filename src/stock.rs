//! Ready-made things that a poll may need: taken without waiting, allocating or a page fault.
//!
//! Not a queue: crossbeam-queue 0.3.14's `ArrayQueue::pop` spins while a thread that
//! pushes is between its two stores, for as long as that thread is kept off its CPU. Here
//! each thing has a place of its own, and a place that another thread is at is passed
//! over. The locks of the places are never waited for: both sides only try them. So the
//! unlock finds nobody to wake, and makes no system call.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// At most `N` things of one kind.
pub(crate) struct Stock<T, const N: usize> {
    places: [Mutex<Option<T>>; N],
    /// At least as many as there are: raised before a thing is put down, lowered after
    /// one was taken.
    ready: AtomicUsize,
    make: fn() -> T,
    wanted: fn() -> usize,
}

/// A stock of whatever kind, to its keeper.
pub(crate) trait Restock: Sync {
    /// Whether less than half of what is wanted is there. Costs a load.
    fn is_low(&self) -> bool;
    /// Makes what is wanted. Allocates and may wait: not for polls.
    fn refill(&self);
    /// Frees all. Not for polls.
    fn clear(&self);
}

impl<T, const N: usize> Stock<T, N> {
    /// `make` leaves no page of the thing untouched; `wanted` are kept ready, at most `N`.
    pub(crate) const fn new(make: fn() -> T, wanted: fn() -> usize) -> Self {
        Stock {
            places: [const { Mutex::new(None) }; N],
            ready: AtomicUsize::new(0),
            make,
            wanted,
        }
    }

    /// One of them; `None` where none is left, or others are at all that are left.
    pub(crate) fn take(&self) -> Option<T> {
        // Relaxed throughout: a hint; the lock of its place orders a thing's making
        // before its use.
        let ready = self.ready.load(Relaxed).min(N);
        if ready == 0 {
            return None;
        }
        // Places are filled from the first on, so the last filled one is likely there.
        let (likely, others) = self.places.split_at(ready);
        let taken = likely.iter().rev().chain(others).find_map(|place| {
            let mut place = place.try_lock().ok()?;
            place.take()
        });
        if taken.is_some() {
            self.ready.fetch_sub(1, Relaxed);
        }
        taken
    }
}

impl<T: Send, const N: usize> Restock for Stock<T, N> {
    fn is_low(&self) -> bool {
        self.ready.load(Relaxed) < (self.wanted)().min(N).div_ceil(2)
    }

    fn refill(&self) {
        let mut made = None;
        for place in self.places.iter().take((self.wanted)()) {
            if place.try_lock().is_ok_and(|place| place.is_some()) {
                continue;
            }
            // Not under the lock of the place: a poll would pass it over meanwhile.
            let thing = made.take().unwrap_or_else(self.make);
            self.ready.fetch_add(1, Relaxed);
            match place.try_lock() {
                Ok(mut place) if place.is_none() => *place = Some(thing),
                // A poll looks here at this moment: for the next place.
                _ => {
                    self.ready.fetch_sub(1, Relaxed);
                    made = Some(thing);
                }
            }
        }
    }

    fn clear(&self) {
        for place in &self.places {
            let taken = place.try_lock().ok().and_then(|mut place| place.take());
            if taken.is_some() {
                self.ready.fetch_sub(1, Relaxed);
            }
        }
    }
}

impl<T, const N: usize> fmt::Debug for Stock<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stock")
            .field("ready", &self.ready)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn what_is_taken_is_made_again() {
        let stock: Stock<Box<u8>, 8> = Stock::new(|| Box::new(7), || 6);
        assert!(stock.is_low());
        assert_eq!(stock.take(), None);
        stock.refill();
        for left in (0..6).rev() {
            assert_eq!(stock.take().as_deref(), Some(&7));
            assert_eq!(stock.is_low(), left < 3, "{left} left");
        }
        assert_eq!(stock.take(), None);
        stock.refill();
        stock.clear();
        assert_eq!(stock.take(), None);
        assert!(stock.is_low());
    }

    #[test]
    fn a_place_that_another_is_at_is_passed_over() {
        let stock: Stock<u8, 2> = Stock::new(|| 7, || 2);
        stock.refill();
        let held = stock.places[1].lock();
        assert_eq!(stock.take(), Some(7));
        assert_eq!(stock.take(), None);
        drop(held);
        assert_eq!(stock.take(), Some(7));
    }

    #[test]
    fn nothing_is_given_twice_or_lost() {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        static DROPPED: AtomicUsize = AtomicUsize::new(0);
        struct Thing(usize);
        impl Drop for Thing {
            fn drop(&mut self) {
                DROPPED.fetch_add(1, Relaxed);
            }
        }
        let make = || Thing(MADE.fetch_add(1, Relaxed));
        let stock: Stock<Thing, 16> = Stock::new(make, || 16);
        let over = AtomicBool::new(false);
        let taken: Vec<Vec<Thing>> = std::thread::scope(|scope| {
            let taker = || {
                let mut taken = Vec::new();
                while !over.load(Relaxed) {
                    taken.extend(stock.take());
                }
                taken
            };
            let takers: Vec<_> = (0..3).map(|_| scope.spawn(taker)).collect();
            while MADE.load(Relaxed) < 20_000 {
                stock.refill();
            }
            over.store(true, Relaxed);
            takers
                .into_iter()
                .map(|taker| taker.join().unwrap())
                .collect()
        });
        let mut all: Vec<Thing> = taken.into_iter().flatten().collect();
        all.extend(std::iter::from_fn(|| stock.take()));
        assert_eq!(all.len() + DROPPED.load(Relaxed), MADE.load(Relaxed));
        let different: HashSet<usize> = all.iter().map(|thing| thing.0).collect();
        assert_eq!(different.len(), all.len());
    }
}
