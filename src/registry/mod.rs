//! The bounded owner of what all watchdogs share: labels, and a slot and recorders per thread.
//!
//! It is one for the process, because a future may be made before any watchdog
//! is, and threads are shared by runtimes. Nothing in it is ever freed; all of
//! it is bounded, and a thread that ends leaves its entry to the next one.
//!
//! # Locks
//! A poll takes none of a watchdog's: threads and places are kept without a lock. Two
//! locks are left. That of the labels' ids is for threads that make watched futures;
//! that of the demands is for watchdogs that start or stop. No thread holds both.

mod demand;
mod labels;
mod own_time;
mod parking;
mod ready;
mod tag;
mod thread;
mod threads;
mod timed_place;

use std::collections::HashMap;
use std::panic::Location;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::escape::cut_name;
use crate::histogram::Histogram;
use crate::registry::thread::Counted;
use crate::sync::AtomicU32;

use demand::Demands;
use labels::Labels;
use threads::Threads;

pub(crate) use demand::{Demand, DemandGuard};
pub(crate) use labels::{Label, MAX_LABELS};
pub(crate) use ready::{note_tracking, stocks, uses_tracking};
pub(crate) use tag::{LabelId, Place, RuntimeId, TIMED, Tag, Timing, runtime_in};
pub(crate) use thread::Thread;
pub(crate) use threads::MAX_THREADS;

/// All that watchdogs of this process share.
#[derive(Debug)]
pub(crate) struct Registry {
    timing: AtomicU32,
    demands: Demands,
    labels: Labels,
    threads: Threads,
    stalls: AtomicU64,
    untracked: AtomicU64,
}

static REGISTRY: Registry = Registry::new();

/// A lock whose holder panicked still guards data that is valid: every change
/// under these locks is a single push, insert or removal.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The registry of this process.
#[inline]
pub(crate) fn registry() -> &'static Registry {
    &REGISTRY
}

impl Registry {
    const fn new() -> Self {
        Registry {
            timing: AtomicU32::new(Timing::NONE.0),
            demands: Demands::new(),
            labels: Labels::new(),
            threads: Threads::new(),
            stalls: AtomicU64::new(0),
            untracked: AtomicU64::new(0),
        }
    }

    pub(crate) fn timing(&self) -> Timing {
        Timing(self.timing.load(Relaxed))
    }

    const fn demands(&self) -> &Demands {
        &self.demands
    }

    /// Only under the lock of the demands.
    fn set_timing(&self, timing: Timing) {
        // Release: pairs with the acquire in `TimedPlace::refresh`.
        self.timing.store(timing.0, Release);
        for (_, thread) in self.threads.iter() {
            thread.refresh(&self.timing);
        }
    }

    /// Whether there is a watchdog, whatever it demands.
    pub(crate) fn is_watched(&self) -> bool {
        self.demands.any.load(Relaxed)
    }

    /// Whether all watched futures are to be tracked.
    pub(crate) fn tracks_all(&self) -> bool {
        self.demands.track.load(Relaxed)
    }

    /// The id of a name at a location; that of `other` where there are too many.
    pub(crate) fn label(&self, name: &str, location: &'static Location<'static>) -> LabelId {
        self.labels.id(Label {
            name: cut_name(name).into(),
            location: Some(location),
        })
    }

    /// What a label stands for; neither locks nor allocates, but for the first `other`.
    pub(crate) fn label_of(&self, id: LabelId) -> Option<&Label> {
        self.labels.get(id)
    }

    /// How many futures were labelled `other` because there were too many names.
    pub(crate) fn folded_labels(&self) -> u64 {
        self.labels.overflows()
    }

    /// An entry for the calling thread; `None` where there are too many threads.
    pub(crate) fn enrol(&self) -> Option<&'static Thread> {
        let thread = self.threads.take(self.is_watched())?;
        thread.take();
        thread.parking.forget();
        thread.set_polls_apart(false);
        thread.set_may_hand_over(false);
        thread.set_place(Place::UNKNOWN, &self.timing);
        Some(thread)
    }

    /// Takes back the entry of a thread that ends.
    pub(crate) fn dismiss(&self, thread: &Thread) {
        thread.tid.store(0, Release);
        thread.set_polls_apart(false);
        thread.set_place(Place::UNKNOWN, &self.timing);
        // Release: the next owner starts where this one has stopped writing.
        thread.taken.store(false, Release);
    }

    /// How many threads could not be watched because there were too many.
    pub(crate) fn refused_threads(&self) -> u64 {
        self.threads.refused()
    }

    /// A number that no stall of this process has had, from 1 on.
    pub(crate) fn next_stall_id(&self) -> u64 {
        self.stalls.fetch_add(1, Relaxed) + 1
    }

    /// The thread of this number.
    pub(crate) fn thread(&self, number: usize) -> Option<&'static Thread> {
        self.threads.get(number)
    }

    /// Makes known what a thread is. A worker has one thread: whoever else has
    /// claimed it has handed it on (`block_in_place`).
    pub(crate) fn claim(&self, thread: &Thread, place: Place) {
        if thread.place() == place.pack() {
            return;
        }
        thread.set_place(place, &self.timing);
        if place.worker.is_some() {
            for (_, other) in self.threads.iter() {
                if !std::ptr::eq(thread, other) {
                    // Unless it has gone on to another place by itself.
                    other.replace_place(place, Place::UNKNOWN, &self.timing);
                }
            }
        }
    }

    /// Calls `f` with each thread that was ever enrolled and its stable number.
    pub(crate) fn for_each_thread(&self, mut f: impl FnMut(usize, &'static Thread)) {
        for (number, thread) in self.threads.iter() {
            f(number, thread);
        }
    }

    /// What all threads have counted, by label; labels without a poll are left out.
    pub(crate) fn polls_by_label(&self) -> HashMap<LabelId, Histogram> {
        let mut merged = HashMap::new();
        self.for_each_thread(|_, thread| thread.add_counted(Counted::Polls, &mut merged));
        merged
    }

    /// How long tracked futures waited to be polled, by label.
    pub(crate) fn delays_by_label(&self) -> HashMap<LabelId, Histogram> {
        let mut merged = HashMap::new();
        self.for_each_thread(|_, thread| thread.add_counted(Counted::Delays, &mut merged));
        merged
    }

    /// One future more is not tracked because there are too many.
    pub(crate) fn refuse_tracking(&self) {
        self.untracked.fetch_add(1, Relaxed);
    }

    /// How many futures were not tracked because there were too many.
    pub(crate) fn untracked(&self) -> u64 {
        self.untracked.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_tags_keep_what_they_pack() {
        for runtime in [0, 1, u32::MAX] {
            for worker in [None, Some(0), Some(1), Some(u16::MAX - 1)] {
                let place = Place {
                    runtime: RuntimeId(runtime),
                    worker,
                };
                assert_eq!(Place::unpack(place.pack()), place);
                let label = LabelId(255);
                // A poll has the runtime in both words.
                let own = label.pack() | u64::from(runtime);
                let tag = Tag::pack(own, place.pack());
                assert_eq!(Tag::unpack(tag), Tag { label, place });
                assert_eq!(tag & TIMED, 0);
                assert_eq!(Tag::unpack(tag | TIMED), Tag { label, place });
            }
        }
    }

    #[test]
    fn the_most_demanding_watchdog_decides() {
        // A registry of its own: the process's is shared with other tests.
        let registry = Registry::new();
        // Forgotten, because a guard withdraws its demand from the process's registry.
        let thread = Thread::new();
        let place = Place {
            runtime: RuntimeId(7),
            worker: Some(3),
        };
        let runtime = |key| runtime_in(key) == place.runtime;
        thread.set_place(place, &registry.timing);
        assert_eq!(thread.key(), place.pack());
        for (timing, granted) in [
            (Timing::NONE, Timing::NONE),
            (Timing(100), Timing(100)),
            (Timing(10), Timing(10)),
            (Timing::EACH, Timing::EACH),
            (Timing::NONE, Timing::EACH),
        ] {
            std::mem::forget(registry.demand(Demand {
                timing,
                track: false,
            }));
            assert_eq!(registry.timing(), granted);
            thread.set_place(place, &registry.timing);
            assert_eq!(thread.place(), place.pack());
            if granted != Timing::EACH {
                assert_eq!(runtime(thread.key()), granted == Timing::NONE);
            }
        }
    }

    #[test]
    fn one_in_so_many_polls_is_due() {
        let thread = Thread::new();
        let due = |timing| (0..100_000).filter(|_| thread.is_due(timing)).count();
        assert_eq!(due(Timing::NONE), 0);
        assert_eq!(due(Timing::EACH), 100_000);
        for one_in in [2, 10, 100] {
            let expected = 100_000 / one_in as usize;
            let got = due(Timing(one_in));
            // The gaps' spread is about their mean: five times its error.
            assert!(got.abs_diff(expected) < 5 * 320, "1 in {one_in}: {got}");
        }
    }

    #[test]
    fn names_beyond_the_bound_are_folded_and_counted() {
        let registry = Registry::new();
        let here = Location::caller();
        let first = registry.label("name 1", here);
        for n in 2..MAX_LABELS {
            registry.label(&format!("name {n}"), here);
        }
        assert_eq!(registry.folded_labels(), 0);
        assert_eq!(registry.label("one too many", here), labels::OTHER);
        assert_eq!(registry.folded_labels(), 1);
        assert_eq!(registry.label("name 1", here), first);
        assert_eq!(&*registry.label_of(labels::OTHER).unwrap().name, "other");
        assert_eq!(&*registry.label_of(first).unwrap().name, "name 1");
        // The same name made elsewhere is another label.
        assert_ne!(Location::caller(), here);
    }
}
