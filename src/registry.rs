//! The bounded owner of what all watchdogs share: labels, and a slot and recorders per thread.
//!
//! It is one for the process, because a future may be made before any watchdog
//! is, and threads are shared by runtimes. Nothing in it is ever freed; all of
//! it is bounded, and a thread that ends leaves its entry to the next one.

use std::collections::HashMap;
use std::panic::Location;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use crate::histogram::{Histogram, Recorder};
use crate::slot::{Seq, Slot};

/// How many different names (with location) are told apart.
pub(crate) const MAX_LABELS: usize = 256;
/// How many threads at once can have their polls watched.
const MAX_THREADS: usize = 1024;
/// The label of everything beyond [`MAX_LABELS`].
const OTHER: LabelId = LabelId(0);

/// How much a watched poll does beyond publishing itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Timing {
    /// No clock is read, unless a watchdog has asked for the end of this poll.
    Untimed = 0,
    /// One reading at the start and one at the end, for the histogram.
    Exact = 1,
}

/// Where a watched future was made, and what it was called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Label {
    pub(crate) name: Box<str>,
    /// `None` for the label that stands for all beyond the bound.
    pub(crate) location: Option<&'static Location<'static>>,
}

/// Which label; an index that stays valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct LabelId(u16);

impl LabelId {
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Which runtime: tokio's id; 0 for a thread outside any.
///
/// tokio counts runtimes up from 1 (tokio 1.54, `runtime/task/list.rs`), so the
/// lower 32 bits tell them apart until one process has made four billion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct RuntimeId(pub(crate) u32);

impl RuntimeId {
    /// No runtime's.
    pub(crate) const NEVER: RuntimeId = RuntimeId(u32::MAX);
}

/// Label, worker and runtime of a poll in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) label: LabelId,
    pub(crate) place: Place,
}

/// Which runtime a thread works for at the moment, and as which of its workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) runtime: RuntimeId,
    pub(crate) worker: Option<u16>,
}

impl Place {
    pub(crate) const fn pack(self) -> u64 {
        let worker = match self.worker {
            // Saturating: the last number stands for no worker that exists.
            Some(worker) => worker.saturating_add(1) as u64,
            None => 0,
        };
        (self.runtime.0 as u64) << 32 | worker << 16
    }

    /// The runtime of a packed place.
    #[inline]
    pub(crate) const fn runtime_in(word: u64) -> RuntimeId {
        RuntimeId((word >> 32) as u32)
    }

    pub(crate) const fn unpack(word: u64) -> Self {
        Place {
            runtime: Self::runtime_in(word),
            worker: ((word >> 16) as u16).checked_sub(1),
        }
    }
}

impl Tag {
    pub(crate) const fn unpack(word: u64) -> Self {
        Tag {
            label: LabelId(word as u16),
            place: Place::unpack(word),
        }
    }

    /// `place` is packed already: a poll has it at hand that way.
    #[inline]
    pub(crate) const fn pack(label: LabelId, place: u64) -> u64 {
        place | label.0 as u64
    }
}

/// What one thread owns: its slot, its recorders, and who it is.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) slot: Slot,
    recorders: Box<[OnceLock<Box<Recorder>>]>,
    /// [`Place`], packed; written by the thread itself, or by the one that has
    /// taken its worker over.
    place: AtomicU64,
    /// The operating system's id; 0 where it is not known.
    tid: AtomicI32,
    /// The audit whose poll is in progress; 0 for none. Written by the thread itself.
    audit: AtomicU64,
    /// Its number in the slot.
    audited_seq: AtomicU64,
    taken: AtomicBool,
}

impl Thread {
    fn new() -> Self {
        Thread {
            slot: Slot::new(),
            recorders: (0..MAX_LABELS).map(|_| OnceLock::new()).collect(),
            place: AtomicU64::new(0),
            tid: AtomicI32::new(0),
            audit: AtomicU64::new(0),
            audited_seq: AtomicU64::new(0),
            taken: AtomicBool::new(true),
        }
    }

    /// Owner only: the recorder of one label.
    #[inline]
    pub(crate) fn recorder(&self, label: LabelId) -> Option<&Recorder> {
        let recorder = self.recorders.get(label.index())?;
        Some(recorder.get_or_init(new_recorder))
    }

    #[inline]
    pub(crate) fn place(&self) -> u64 {
        self.place.load(Relaxed)
    }

    pub(crate) fn set_place(&self, place: Place) {
        self.place.store(place.pack(), Relaxed);
    }

    /// The operating system's id of the thread that owns this entry now.
    pub(crate) fn tid(&self) -> Option<i32> {
        let tid = self.tid.load(Acquire);
        (tid != 0).then_some(tid)
    }

    /// The audited poll in progress: its audit, 0 for none, and its number.
    pub(crate) fn audited(&self) -> (u64, Seq) {
        // Acquire: pairs with the release in `set_audited`. Between the two loads
        // another poll may begin; whoever looks, looks again at the end.
        (self.audit.load(Acquire), self.audited_seq.load(Relaxed))
    }

    pub(crate) fn set_audited(&self, (audit, seq): (u64, Seq)) {
        self.audited_seq.store(seq, Relaxed);
        self.audit.store(audit, Release);
    }

    fn take(&self) {
        self.tid.store(crate::os::thread_id(), Release);
    }

    pub(crate) fn leave(&self) {
        self.tid.store(0, Release);
        self.set_place(Place::default());
        // Release: the next owner starts where this one has stopped writing.
        self.taken.store(false, Release);
    }
}

#[cold]
fn new_recorder() -> Box<Recorder> {
    Box::new(Recorder::new())
}

#[derive(Debug)]
struct Labels {
    list: Vec<Label>,
    ids: HashMap<Label, LabelId>,
}

/// All that watchdogs of this process share.
#[derive(Debug)]
pub(crate) struct Registry {
    timing: AtomicU8,
    wishes: Mutex<Wishes>,
    labels: OnceLock<RwLock<Labels>>,
    folded_labels: AtomicU64,
    threads: RwLock<Vec<&'static Thread>>,
    refused_threads: AtomicU64,
    stalls: AtomicU64,
}

/// What the running watchdogs ask of polls; the most demanding wins.
#[derive(Debug)]
struct Wishes {
    next: u64,
    list: Vec<(u64, Timing)>,
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

/// A watchdog's wish for timed polls; withdrawn at drop.
#[derive(Debug)]
pub(crate) struct TimingWish(u64);

impl Drop for TimingWish {
    fn drop(&mut self) {
        let mut wishes = lock(&REGISTRY.wishes);
        wishes.list.retain(|(id, _)| *id != self.0);
        REGISTRY.grant(&wishes);
    }
}

impl Registry {
    const fn new() -> Self {
        Registry {
            timing: AtomicU8::new(Timing::Untimed as u8),
            wishes: Mutex::new(Wishes {
                next: 0,
                list: Vec::new(),
            }),
            labels: OnceLock::new(),
            folded_labels: AtomicU64::new(0),
            threads: RwLock::new(Vec::new()),
            refused_threads: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(crate) fn timing(&self) -> Timing {
        // Relaxed: a poll that sees the change late is timed one poll later.
        match self.timing.load(Relaxed) {
            0 => Timing::Untimed,
            _ => Timing::Exact,
        }
    }

    /// Asks for timed polls for as long as the result lives.
    pub(crate) fn wish(&self, timing: Timing) -> TimingWish {
        let mut wishes = lock(&self.wishes);
        wishes.next += 1;
        let id = wishes.next;
        wishes.list.push((id, timing));
        self.grant(&wishes);
        TimingWish(id)
    }

    fn grant(&self, wishes: &Wishes) {
        let timing = wishes.list.iter().map(|(_, timing)| *timing).max();
        self.timing
            .store(timing.unwrap_or(Timing::Untimed) as u8, Relaxed);
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
                let thread: &'static Thread = Box::leak(Box::new(Thread::new()));
                threads.push(thread);
                thread
            }
            None => {
                self.refused_threads.fetch_add(1, Relaxed);
                return None;
            }
        };
        thread.take();
        Some(thread)
    }

    /// How many threads could not be watched because there were too many.
    pub(crate) fn refused_threads(&self) -> u64 {
        self.refused_threads.load(Relaxed)
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
        thread.set_place(place);
        if place.worker.is_some() {
            self.for_each_thread(|_, other| {
                if !std::ptr::eq(thread, other) && other.place() == place.pack() {
                    other.set_place(Place::default());
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
        self.for_each_thread(|_, thread| {
            for (id, recorder) in (0..).zip(thread.recorders.iter()) {
                if let Some(recorder) = recorder.get() {
                    let histogram = merged.entry(LabelId(id)).or_insert_with(Histogram::new);
                    recorder.add_to(histogram);
                }
            }
        });
        merged
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
                assert_eq!(
                    Tag::unpack(Tag::pack(label, place.pack())),
                    Tag { label, place }
                );
            }
        }
    }

    #[test]
    fn the_most_demanding_wish_is_granted() {
        // A registry of its own: the process's is shared with other tests.
        let registry = Registry::new();
        // Forgotten, because a wish withdraws itself from the process's registry.
        std::mem::forget(registry.wish(Timing::Exact));
        std::mem::forget(registry.wish(Timing::Untimed));
        assert_eq!(registry.timing(), Timing::Exact);
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
