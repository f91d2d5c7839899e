//! What a thread's polls compare at once, kept in step with what it is made of.
//!
//! A poll reads one word, the key. It is made of two inputs that change apart: the
//! thread's place, which the thread itself or the one that takes its worker over
//! changes, and the timing that all watchdogs ask for together. None of those may wait
//! for another: a thread changes its place within a user's poll. So there is no lock:
//! whoever changes an input makes the key anew, and once more until neither input has
//! changed while it did.
//!
//! Why the key that stays is made of the inputs that stay. Let the last store of a key
//! be X's, and suppose an input has changed since X read it. X has looked at the inputs
//! again after its store, behind a fence, and found them as they were. So the change,
//! by Y, is followed by Y's own fence, which comes after X's. Then Y's store of a key,
//! after that fence, comes after X's, before X's fence (C++20, "coherence-ordered
//! before" and fences): X's was not the last.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use crate::sync::{AtomicU32, AtomicU64, fence};

/// A packed place and the key that is made of it.
#[derive(Debug)]
pub(crate) struct TimedPlace {
    place: AtomicU64,
    key: AtomicU64,
}

/// Makes a key of a packed place and a timing.
type KeyOf = fn(u64, u32) -> u64;

impl TimedPlace {
    pub(crate) fn new(place: u64) -> Self {
        TimedPlace {
            place: AtomicU64::new(place),
            key: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(crate) fn key(&self) -> u64 {
        // Acquire: pairs with the release in `refresh`. A key that has polls timed comes with
        // the clock that they are timed by.
        self.key.load(Acquire)
    }

    pub(crate) fn place(&self) -> u64 {
        self.place.load(Relaxed)
    }

    pub(crate) fn set(&self, place: u64, timing: &AtomicU32, key_of: KeyOf) {
        self.place.store(place, Relaxed);
        self.refresh(timing, key_of);
    }

    /// Sets the place if it is still the one that the caller has seen.
    pub(crate) fn replace(&self, seen: u64, place: u64, timing: &AtomicU32, key_of: KeyOf) {
        let replaced = self.place.compare_exchange(seen, place, Relaxed, Relaxed);
        if replaced.is_ok() {
            self.refresh(timing, key_of);
        }
    }

    /// Makes the key anew, after an input has changed.
    pub(crate) fn refresh(&self, timing: &AtomicU32, key_of: KeyOf) {
        // Acquire: pairs with the release in `Registry::set_timing`; whoever makes the key hands
        // on what the one that changed the timing had done before, the clock.
        let inputs = || (self.place.load(Relaxed), timing.load(Acquire));
        fence(SeqCst);
        let mut now = inputs();
        loop {
            self.key.store(key_of(now.0, now.1), Release);
            fence(SeqCst);
            let later = inputs();
            if later == now {
                return;
            }
            now = later;
        }
    }
}
