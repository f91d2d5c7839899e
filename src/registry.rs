//! The bounded owner of what all watchdogs share: labels, and a slot and recorders per thread.
//!
//! It is one for the process, because a future may be made before any watchdog
//! is, and threads are shared by runtimes. Nothing in it is ever freed; all of
//! it is bounded, and a thread that ends leaves its entry to the next one.

use std::collections::HashMap;
use std::panic::Location;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use crate::clock;
use crate::histogram::{Histogram, Recorder};
use crate::slot::{Seq, Slot};

/// How many different names (with location) are told apart.
pub(crate) const MAX_LABELS: usize = 256;
/// How many threads at once can have their polls watched.
const MAX_THREADS: usize = 1024;
/// The label of everything beyond [`MAX_LABELS`].
const OTHER: LabelId = LabelId(0);

/// Which polls are timed: none (0), each (1), or one in so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timing(pub(crate) u32);

impl Timing {
    pub(crate) const NONE: Timing = Timing(0);
    pub(crate) const EACH: Timing = Timing(1);

    /// The more demanding of two comes first.
    const fn rank(self) -> u32 {
        // None, which is 0, becomes the last.
        self.0.wrapping_sub(1)
    }
}

/// What a poll compares with what its future remembers, and what it then is: a
/// thread's packed place, in one word with what is to be done for [`Timing`].
///
/// Equal in its lower half, the runtime: this poll is like the last one, and it
/// is timed if the sign is set, for which processors have a branch of its own.
/// Where it depends on more, no future's runtime is equal.
mod key {
    use super::{Place, RuntimeId, Timing, clock};

    /// Each poll is timed, by the time stamp counter. It is also what a slot has in
    /// the tag of a poll with a start.
    pub(crate) const TIMED: u64 = 1 << 63;
    /// Not a runtime's, and not [`RuntimeId::NEVER`].
    const ASK: RuntimeId = RuntimeId(u32::MAX - 1);

    pub(super) fn of(place: Place, timing: Timing) -> u64 {
        match timing {
            Timing::NONE => place.pack(),
            Timing::EACH if clock::is_counter() => place.pack() | TIMED,
            _ => u64::from(ASK.0),
        }
    }
}
pub(crate) use key::TIMED;

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
    /// That of a thread which has not been asked yet, and so no future's.
    pub(crate) const UNKNOWN: RuntimeId = RuntimeId(u32::MAX - 2);
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
    pub(crate) const UNKNOWN: Place = Place {
        runtime: RuntimeId::UNKNOWN,
        worker: None,
    };

    pub(crate) const fn pack(self) -> u64 {
        let worker = match self.worker {
            // Saturating: the last number stands for no worker that exists.
            Some(worker) => worker.saturating_add(1) as u64,
            None => 0,
        };
        self.runtime.0 as u64 | worker << 32
    }

    pub(crate) const fn unpack(word: u64) -> Self {
        Place {
            runtime: runtime_in(word),
            worker: ((word >> 32) as u16).checked_sub(1),
        }
    }
}

/// The runtime of a packed place or tag: its lower half, which a poll compares at once.
#[inline]
pub(crate) const fn runtime_in(word: u64) -> RuntimeId {
    RuntimeId(word as u32)
}

impl Tag {
    pub(crate) const fn unpack(word: u64) -> Self {
        Tag {
            label: LabelId(((word & !TIMED) >> 48) as u16),
            place: Place::unpack(word),
        }
    }

    /// Both are packed already: a poll has them at hand that way. They may each
    /// name the runtime, if it is the same.
    #[inline]
    pub(crate) const fn pack(label: u64, place: u64) -> u64 {
        label | place
    }
}

impl LabelId {
    /// As it stands in a packed tag.
    pub(crate) const fn pack(self) -> u64 {
        (self.0 as u64) << 48
    }
}

/// What a worker's thread tells when it parks and wakes; written by it alone.
#[derive(Debug, Default)]
pub(crate) struct Parking {
    hooked: AtomicBool,
    awake_since: AtomicU64,
    busy_ns: AtomicU64,
}

impl Parking {
    /// Owner only: it is about to park.
    pub(crate) fn parks(&self) {
        self.hooked.store(true, Relaxed);
        self.awake_since.store(0, Relaxed);
    }

    /// Owner only: it has woken, at this time, and has worked for so long before.
    pub(crate) fn wakes(&self, now: clock::Ticks, busy_ns: u64) {
        self.busy_ns.store(busy_ns, Relaxed);
        // Release: pairs with the acquire in `awake_since`.
        self.awake_since.store(now, Release);
    }

    fn forget(&self) {
        self.hooked.store(false, Relaxed);
        self.awake_since.store(0, Relaxed);
    }

    /// Whether the hooks are called on this thread.
    pub(crate) fn is_hooked(&self) -> bool {
        self.hooked.load(Relaxed)
    }

    /// When the turn began in which the worker has not yet told that it has worked
    /// for more than this; `None` where that is not known.
    pub(crate) fn awake_since(&self, busy_ns: u64) -> Option<clock::Ticks> {
        let since = self.awake_since.load(Acquire);
        (since != 0 && self.busy_ns.load(Relaxed) == busy_ns).then_some(since)
    }
}

/// What one thread owns: its slot, its recorders, and who it is.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) slot: Slot,
    recorders: [OnceLock<Box<Recorder>>; MAX_LABELS],
    /// How long tracked futures waited from being woken to being polled.
    delays: OnceLock<Box<[OnceLock<Box<Recorder>>; MAX_LABELS]>>,
    /// [`key`]; written with `place`, and where a watchdog starts or stops.
    key: AtomicU64,
    /// [`Place`], packed; set by the thread itself, or by the one that has taken
    /// its worker over.
    place: AtomicU64,
    /// Labels of places where tasks are spawned: see [`Thread::label_at`].
    #[cfg(tokio_unstable)]
    labels_at: [LabelAt; LABELS_AT],
    /// How many polls are left until the next that is timed; owner only.
    until_sample: AtomicU32,
    /// Where [`Thread::is_due`] takes its random numbers from; owner only.
    random: AtomicU64,
    /// What the hooks of parking tell of the worker that this thread runs.
    parking: Parking,
    /// Polls watched futures without being a worker; nobody tells when it does.
    polls_apart: AtomicBool,
    /// The operating system's id; 0 where it is not known.
    tid: AtomicI32,
    /// The audit whose poll is in progress; 0 for none. Written by the thread itself.
    audit: AtomicU64,
    /// Its number in the slot.
    audited_seq: AtomicU64,
    taken: AtomicBool,
}

/// How many of them a thread remembers.
#[cfg(tokio_unstable)]
const LABELS_AT: usize = 64;

/// The label of a place in the program, which stands for itself by its address.
#[cfg(tokio_unstable)]
#[derive(Debug)]
struct LabelAt {
    place: std::sync::atomic::AtomicUsize,
    label: std::sync::atomic::AtomicU16,
}

#[cfg(tokio_unstable)]
impl LabelAt {
    const fn new() -> Self {
        LabelAt {
            place: std::sync::atomic::AtomicUsize::new(0),
            label: std::sync::atomic::AtomicU16::new(0),
        }
    }
}

#[cfg(tokio_unstable)]
impl Thread {
    /// Owner only: the label of tasks that are spawned here, if it is remembered.
    ///
    /// A place that falls on the same entry as another takes turns with it; that
    /// costs a search, and happens to few of a few dozen places.
    pub(crate) fn label_at(&self, place: &'static Location<'static>) -> Option<LabelId> {
        let address = std::ptr::from_ref(place).addr();
        let entry = &self.labels_at[Self::entry_of(address)];
        let known = entry.place.load(Relaxed) == address;
        known.then(|| LabelId(entry.label.load(Relaxed)))
    }

    /// Owner only: for [`Thread::label_at`].
    pub(crate) fn remember_label(&self, place: &'static Location<'static>, label: LabelId) {
        let address = std::ptr::from_ref(place).addr();
        let entry = &self.labels_at[Self::entry_of(address)];
        entry.place.store(address, Relaxed);
        entry.label.store(label.0, Relaxed);
    }

    /// A location is 24 bytes or so; multiplied by the golden ratio's bits, the
    /// highest bits of neighbours differ (Knuth, TAOCP 3, 6.4).
    const fn entry_of(address: usize) -> usize {
        let hash = (address as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (hash >> (u64::BITS - LABELS_AT.ilog2())) as usize % LABELS_AT
    }
}

impl Thread {
    fn new() -> Self {
        Thread {
            slot: Slot::new(),
            recorders: [const { OnceLock::new() }; MAX_LABELS],
            delays: OnceLock::new(),
            key: AtomicU64::new(0),
            place: AtomicU64::new(0),
            #[cfg(tokio_unstable)]
            labels_at: [const { LabelAt::new() }; LABELS_AT],
            until_sample: AtomicU32::new(0),
            random: AtomicU64::new(0x9E37_79B9_7F4A_7C15),
            parking: Parking::default(),
            polls_apart: AtomicBool::new(false),
            tid: AtomicI32::new(0),
            audit: AtomicU64::new(0),
            audited_seq: AtomicU64::new(0),
            taken: AtomicBool::new(true),
        }
    }

    /// Owner only: the recorder of one label.
    pub(crate) fn recorder(&self, label: LabelId) -> &Recorder {
        self.recorder_cell(label).get_or_init(new_recorder)
    }

    /// Polling thread only: of how long tracked futures of one label waited to be
    /// polled, once woken.
    pub(crate) fn delay_recorder(&self, label: LabelId) -> &Recorder {
        let delays = self
            .delays
            .get_or_init(|| Box::new([const { OnceLock::new() }; MAX_LABELS]));
        delays[label.index() % MAX_LABELS].get_or_init(new_recorder)
    }

    /// The recorder of one label, if there is one already.
    #[inline]
    pub(crate) fn recorder_if_made(&self, label: LabelId) -> Option<&Recorder> {
        self.recorder_cell(label).get().map(Box::as_ref)
    }

    #[inline]
    fn recorder_cell(&self, label: LabelId) -> &OnceLock<Box<Recorder>> {
        // No label is beyond the bound, which the compiler is told by this.
        &self.recorders[label.index() % MAX_LABELS]
    }

    /// Owner only: whether the poll that begins is one of those that are timed.
    pub(crate) fn is_due(&self, timing: Timing) -> bool {
        match timing {
            Timing::NONE => false,
            Timing::EACH => true,
            Timing(_) if self.skips_sample() => false,
            Timing(one_in) => {
                self.until_sample.store(self.next_gap(one_in), Relaxed);
                true
            }
        }
    }

    /// Owner only: whether one in so many polls is timed and this is none of them,
    /// so far as that is known without asking more.
    #[inline]
    pub(crate) fn skips_sample(&self) -> bool {
        let left = self.until_sample.load(Relaxed);
        if left == 0 {
            return false;
        }
        self.until_sample.store(left - 1, Relaxed);
        true
    }

    /// How many polls to leave out: on average one less than `one_in`, at random,
    /// so that a program whose polls repeat in a pattern is not seen at the same
    /// place of it each time.
    #[cold]
    fn next_gap(&self, one_in: u32) -> u32 {
        // xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
        let mut x = self.random.load(Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.store(x, Relaxed);
        let span = 2 * u64::from(one_in) - 1;
        u32::try_from((x >> 32) % span).unwrap_or(one_in)
    }

    /// See [`key`].
    #[inline]
    pub(crate) fn key(&self) -> u64 {
        // Relaxed: a poll that sees a change late is timed one poll later.
        self.key.load(Relaxed)
    }

    /// Its packed place.
    pub(crate) fn place(&self) -> u64 {
        self.place.load(Relaxed)
    }

    pub(crate) const fn parking(&self) -> &Parking {
        &self.parking
    }

    /// Whether watched futures are polled on it although it is no worker.
    pub(crate) fn polls_apart(&self) -> bool {
        self.polls_apart.load(Relaxed)
    }

    /// Owner only.
    pub(crate) fn set_polls_apart(&self, apart: bool) {
        self.polls_apart.store(apart, Relaxed);
    }

    /// Only under the lock of the registry's wishes.
    fn set(&self, place: Place, timing: Timing) {
        self.place.store(place.pack(), Relaxed);
        self.key.store(key::of(place, timing), Relaxed);
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
    timing: AtomicU32,
    watched: AtomicBool,
    tracked: AtomicBool,
    wishes: Mutex<Wishes>,
    labels: OnceLock<RwLock<Labels>>,
    folded_labels: AtomicU64,
    threads: RwLock<Vec<&'static Thread>>,
    refused_threads: AtomicU64,
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
            stalls: AtomicU64::new(0),
            untracked: AtomicU64::new(0),
        }
    }

    pub(crate) fn timing(&self) -> Timing {
        Timing(self.timing.load(Relaxed))
    }

    /// Asks for this for as long as the result lives.
    pub(crate) fn wish(&self, wish: Wish) -> Wished {
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
        self.for_each_thread(|_, thread| add_all(&thread.recorders, &mut merged));
        merged
    }

    /// How long tracked futures waited to be polled, by label.
    pub(crate) fn delays_by_label(&self) -> HashMap<LabelId, Histogram> {
        let mut merged = HashMap::new();
        self.for_each_thread(|_, thread| {
            if let Some(delays) = thread.delays.get() {
                add_all(&delays[..], &mut merged);
            }
        });
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

fn add_all(recorders: &[OnceLock<Box<Recorder>>], merged: &mut HashMap<LabelId, Histogram>) {
    for (id, recorder) in (0..).zip(recorders) {
        if let Some(recorder) = recorder.get() {
            let histogram = merged.entry(LabelId(id)).or_insert_with(Histogram::new);
            recorder.add_to(histogram);
        }
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
