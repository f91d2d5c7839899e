//! The bounded owner of what all watchdogs share: labels, and a slot and recorders per thread.
//!
//! It is one for the process, because a future may be made before any watchdog
//! is, and threads are shared by runtimes. Nothing in it is ever freed; all of
//! it is bounded, and a thread that ends leaves its entry to the next one.

mod parking;
mod ready;
mod tag;
mod thread;

use std::collections::HashMap;
use std::panic::Location;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use crate::histogram::Histogram;
use crate::registry::thread::Counted;

pub(crate) use ready::{note_tracking, stocks, uses_tracking};
pub(crate) use tag::{LabelId, Place, RuntimeId, TIMED, Tag, Timing, runtime_in};
pub(crate) use thread::Thread;

/// How many different names (with location) are told apart.
pub(crate) const MAX_LABELS: usize = 256;
/// How many threads at once can have their polls watched.
const MAX_THREADS: usize = 1024;
/// The label of everything beyond [`MAX_LABELS`].
const OTHER: LabelId = LabelId(0);

/// Where a watched future was made, and what it was called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Label {
    pub(crate) name: Box<str>,
    /// `None` for the label that stands for all beyond the bound.
    pub(crate) location: Option<&'static Location<'static>>,
}

#[derive(Debug)]
struct Labels {
    list: Vec<Label>,
    ids: HashMap<Label, LabelId>,
}

/// All that watchdogs of this process share.
#[derive(Debug)]
pub(crate) struct Registry {
    timing: AtomicU32,
    watched: AtomicBool,
    tracked: AtomicBool,
    wishes: Mutex<Wishes>,
    labels: OnceLock<RwLock<Labels>>,
    folded_labels: AtomicU64,
    threads: RwLock<Vec<&'static Thread>>,
    refused_threads: AtomicU64,
    unseen_polls: AtomicU64,
    stalls: AtomicU64,
    untracked: AtomicU64,
}

/// What the running watchdogs ask of polls; the most demanding wins.
#[derive(Debug)]
struct Wishes {
    next: u64,
    list: Vec<(u64, Wish)>,
}

/// What one watchdog asks of polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) timing: Timing,
    /// Whether all watched futures are to be tracked that begin from now on.
    pub(crate) track: bool,
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

/// A watchdog's wish; withdrawn at drop.
#[derive(Debug)]
pub(crate) struct Wished(u64);

impl Drop for Wished {
    fn drop(&mut self) {
        let mut wishes = lock(&REGISTRY.wishes);
        wishes.list.retain(|(id, _)| *id != self.0);
        REGISTRY.grant(&wishes);
    }
}

impl Registry {
    const fn new() -> Self {
        Registry {
            timing: AtomicU32::new(Timing::NONE.0),
            watched: AtomicBool::new(false),
            tracked: AtomicBool::new(false),
            wishes: Mutex::new(Wishes {
                next: 0,
                list: Vec::new(),
            }),
            labels: OnceLock::new(),
            folded_labels: AtomicU64::new(0),
            threads: RwLock::new(Vec::new()),
            refused_threads: AtomicU64::new(0),
            unseen_polls: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
            untracked: AtomicU64::new(0),
        }
    }

    pub(crate) fn timing(&self) -> Timing {
        Timing(self.timing.load(Relaxed))
    }

    /// Asks for this for as long as the result lives.
    pub(crate) fn wish(&self, wish: Wish) -> Wished {
        // So that a thread that enrols in a poll need not make it longer.
        let mut threads = self.threads.write().unwrap_or_else(PoisonError::into_inner);
        threads.reserve(MAX_THREADS);
        drop(threads);
        let mut wishes = lock(&self.wishes);
        wishes.next += 1;
        let id = wishes.next;
        wishes.list.push((id, wish));
        self.grant(&wishes);
        Wished(id)
    }

    fn grant(&self, wishes: &Wishes) {
        let timings = wishes.list.iter().map(|(_, wish)| wish.timing);
        let timing = timings.min_by_key(|timing| timing.rank());
        self.watched.store(timing.is_some(), Relaxed);
        let track = wishes.list.iter().any(|(_, wish)| wish.track);
        self.tracked.store(track, Relaxed);
        let timing = timing.unwrap_or(Timing::NONE);
        self.timing.store(timing.0, Relaxed);
        self.for_each_thread(|_, thread| thread.set(Place::unpack(thread.place()), timing));
    }

    /// Whether there is a watchdog, whatever it wishes.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.load(Relaxed)
    }

    /// Whether all watched futures are to be tracked.
    pub(crate) fn tracks_all(&self) -> bool {
        self.tracked.load(Relaxed)
    }

    fn labels(&self) -> &RwLock<Labels> {
        self.labels.get_or_init(|| {
            RwLock::new(Labels {
                list: vec![Label {
                    name: "other".into(),
                    location: None,
                }],
                ids: HashMap::new(),
            })
        })
    }

    /// The id of a name at a location; [`OTHER`] where there are too many.
    pub(crate) fn label(&self, name: &str, location: &'static Location<'static>) -> LabelId {
        let label = Label {
            name: name.into(),
            location: Some(location),
        };
        let labels = self.labels();
        if let Some(id) = labels
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .ids
            .get(&label)
        {
            return *id;
        }
        let mut labels = labels.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = labels.ids.get(&label) {
            return *id;
        }
        let next = labels.list.len();
        match u16::try_from(next) {
            Ok(id) if next < MAX_LABELS => {
                let id = LabelId(id);
                labels.list.push(label.clone());
                labels.ids.insert(label, id);
                id
            }
            _ => {
                self.folded_labels.fetch_add(1, Relaxed);
                OTHER
            }
        }
    }

    /// What a label stands for.
    pub(crate) fn label_of(&self, id: LabelId) -> Option<Label> {
        let labels = self.labels().read().unwrap_or_else(PoisonError::into_inner);
        labels.list.get(id.index()).cloned()
    }

    /// How many futures were labelled `other` because there were too many names.
    pub(crate) fn folded_labels(&self) -> u64 {
        self.folded_labels.load(Relaxed)
    }

    /// An entry for the calling thread; `None` where there are too many threads.
    pub(crate) fn enrol(&self) -> Option<&'static Thread> {
        let reuse = |thread: &&&'static Thread| {
            // Acquire: pairs with the release in `leave`.
            thread
                .taken
                .compare_exchange(false, true, Acquire, Relaxed)
                .is_ok()
        };
        let mut threads = self.threads.write().unwrap_or_else(PoisonError::into_inner);
        let found = threads.iter().find(reuse).copied();
        let thread = match found {
            Some(thread) => thread,
            None if threads.len() < MAX_THREADS => {
                // Without a watchdog nothing is in stock, and nobody takes note of a poll
                // that is late.
                let thread = if self.is_watched() {
                    let Some(thread) = Thread::from_stock() else {
                        // Its next poll may find one.
                        self.unseen_polls.fetch_add(1, Relaxed);
                        return None;
                    };
                    thread
                } else {
                    Box::new(Thread::new())
                };
                let thread: &'static Thread = Box::leak(thread);
                threads.push(thread);
                thread
            }
            None => {
                self.refused_threads.fetch_add(1, Relaxed);
                return None;
            }
        };
        thread.take();
        drop(threads);
        thread.parking.forget();
        thread.set_polls_apart(false);
        self.place(thread, Place::UNKNOWN);
        Some(thread)
    }

    /// Takes back the entry of a thread that ends.
    pub(crate) fn dismiss(&self, thread: &Thread) {
        thread.tid.store(0, Release);
        thread.set_polls_apart(false);
        self.place(thread, Place::UNKNOWN);
        // Release: the next owner starts where this one has stopped writing.
        thread.taken.store(false, Release);
    }

    fn place(&self, thread: &Thread, place: Place) {
        let _wishes = lock(&self.wishes);
        thread.set(place, self.timing());
    }

    /// How many threads could not be watched because there were too many.
    pub(crate) fn refused_threads(&self) -> u64 {
        self.refused_threads.load(Relaxed)
    }

    /// How many polls were not watched because no entry for their thread was in stock.
    #[allow(dead_code, reason = "for health, which does not tell it yet")]
    pub(crate) fn unseen_polls(&self) -> u64 {
        self.unseen_polls.load(Relaxed)
    }

    /// A number that no stall of this process has had, from 1 on.
    pub(crate) fn next_stall_id(&self) -> u64 {
        self.stalls.fetch_add(1, Relaxed) + 1
    }

    /// The thread of this number.
    pub(crate) fn thread(&self, number: usize) -> Option<&'static Thread> {
        let threads = self.threads.read().unwrap_or_else(PoisonError::into_inner);
        threads.get(number).copied()
    }

    /// Makes known what a thread is. A worker has one thread: whoever else has
    /// claimed it has handed it on (`block_in_place`).
    pub(crate) fn claim(&self, thread: &Thread, place: Place) {
        if thread.place() == place.pack() {
            return;
        }
        self.place(thread, place);
        if place.worker.is_some() {
            self.for_each_thread(|_, other| {
                if !std::ptr::eq(thread, other) && other.place() == place.pack() {
                    self.place(other, Place::UNKNOWN);
                }
            });
        }
    }

    /// Calls `f` with each thread that was ever enrolled and its stable number.
    pub(crate) fn for_each_thread(&self, mut f: impl FnMut(usize, &'static Thread)) {
        let threads = self.threads.read().unwrap_or_else(PoisonError::into_inner);
        for (number, thread) in threads.iter().enumerate() {
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
    fn the_most_demanding_wish_is_granted() {
        // A registry of its own: the process's is shared with other tests.
        let registry = Registry::new();
        // Forgotten, because a wish withdraws itself from the process's registry.
        let thread = Thread::new();
        let place = Place {
            runtime: RuntimeId(7),
            worker: Some(3),
        };
        let runtime = |key| runtime_in(key) == place.runtime;
        registry.place(&thread, place);
        assert_eq!(thread.key(), place.pack());
        for (timing, granted) in [
            (Timing::NONE, Timing::NONE),
            (Timing(100), Timing(100)),
            (Timing(10), Timing(10)),
            (Timing::EACH, Timing::EACH),
            (Timing::NONE, Timing::EACH),
        ] {
            std::mem::forget(registry.wish(Wish {
                timing,
                track: false,
            }));
            assert_eq!(registry.timing(), granted);
            registry.place(&thread, place);
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
        assert_eq!(registry.label("one too many", here), OTHER);
        assert_eq!(registry.folded_labels(), 1);
        assert_eq!(registry.label("name 1", here), first);
        assert_eq!(&*registry.label_of(OTHER).unwrap().name, "other");
        assert_eq!(&*registry.label_of(first).unwrap().name, "name 1");
        // The same name made elsewhere is another label.
        assert_ne!(Location::caller(), here);
    }
}
