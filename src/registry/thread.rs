//! What one thread owns: its slot, its recorders, and who it is.

use std::collections::HashMap;
#[cfg(tokio_unstable)]
use std::panic::Location;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64};

use crate::clock::{self, Ticks};
use crate::histogram::Histogram;
use crate::os::OwnStack;
use crate::pending::Pending;
use crate::recorder::{self, Recorder};
use crate::registry::MAX_LABELS;
use crate::registry::own_time::OwnTime;
use crate::registry::parking::Parking;
use crate::registry::ready;
use crate::registry::tag::{LabelId, Place, Timing, key};
use crate::registry::timed_place::TimedPlace;
use crate::slot::{Seq, Slot, Wanted};

/// A recorder for each label, made when it is needed.
pub(super) type Recorders = [OnceLock<Box<Recorder>>; MAX_LABELS];

/// How many different durations wait at once for a counter, on one thread: 1 KiB.
const PENDING: usize = 64;

/// What a recorder of a thread counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// How long polls took.
    Polls,
    /// How long tracked futures waited from being woken to being polled.
    Delays,
}

/// In what [`Pending`] keeps of a duration, beside its label.
const IS_DELAY: u16 = 1 << 15;
const _: () = assert!(MAX_LABELS <= IS_DELAY as usize);

/// What one thread owns: its slot, its recorders, and who it is.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) slot: Slot,
    recorders: Recorders,
    /// How long tracked futures waited from being woken to being polled.
    delays: OnceLock<Box<Recorders>>,
    /// [`Place`], packed, and the [`key`] that is made of it; set by the thread itself,
    /// or by the one that has taken its worker over.
    timed_place: TimedPlace,
    /// Labels of places where tasks are spawned: see [`Thread::label_at`].
    #[cfg(tokio_unstable)]
    labels_at: [LabelAt; LABELS_AT],
    /// How many polls are left until the next that is timed; owner only.
    until_sample: AtomicU32,
    /// Where [`Thread::is_due`] takes its random numbers from; owner only.
    random: AtomicU64,
    /// What the hooks of parking tell of the worker that this thread runs.
    pub(super) parking: Parking,
    /// For how long it has done this library's work.
    pub(crate) own_work: OwnTime,
    /// Polls watched futures without being a worker; nobody tells when it does.
    may_hand_over: AtomicBool,
    polls_apart: AtomicBool,
    /// The operating system's id; 0 where it is not known.
    pub(super) tid: AtomicI32,
    /// Where its stack lies; written by the thread itself.
    pub(crate) stack: OwnStack,
    /// The audit whose poll is in progress; 0 for none. Written by the thread itself.
    audit: AtomicU64,
    /// Its number in the slot.
    audited_seq: AtomicU64,
    pub(super) taken: AtomicBool,
    /// Durations that wait for a recorder, or for a chunk of one.
    pending: Pending<PENDING>,
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
    pub(super) fn new() -> Self {
        Thread {
            slot: Slot::new(),
            recorders: [const { OnceLock::new() }; MAX_LABELS],
            delays: OnceLock::new(),
            timed_place: TimedPlace::new(0),
            #[cfg(tokio_unstable)]
            labels_at: [const { LabelAt::new() }; LABELS_AT],
            until_sample: AtomicU32::new(0),
            random: AtomicU64::new(0x9E37_79B9_7F4A_7C15),
            parking: Parking::default(),
            own_work: OwnTime::default(),
            polls_apart: AtomicBool::new(false),
            may_hand_over: AtomicBool::new(false),
            tid: AtomicI32::new(0),
            stack: OwnStack::new(),
            audit: AtomicU64::new(0),
            audited_seq: AtomicU64::new(0),
            taken: AtomicBool::new(true),
            pending: Pending::new(),
        }
    }

    /// An entry for a thread that is new, where there is a watchdog: from the stock.
    /// `None` where none is left. Allocates nothing.
    pub(super) fn from_stock() -> Option<Box<Self>> {
        ready::THREADS.take()
    }

    /// Owner only: counts the poll in progress, if it was paced and there is no more
    /// to its end; whether it did. Where there is no counter yet for a poll of this
    /// duration, `first` is to [count it](Self::record_first).
    ///
    /// Without a call in the common case, so that it saves no registers.
    #[inline]
    pub(crate) fn record_paced(
        &self,
        wanted: Wanted,
        label: impl FnOnce() -> LabelId,
        first: impl FnOnce(u64),
    ) -> bool {
        if let Some(start) = self.slot.paced(wanted)
            && let Some(recorder) = self.recorder_cell(label()).get()
            && let Some(ns) = clock::ns_from_to(start, clock::counter_ticks())
        {
            if !recorder.try_record(ns) {
                // Not by another reading of the clock, which might have its place
                // already, and leave this one without for ever.
                first(ns);
            }
            return true;
        }
        false
    }

    /// Owner only: counts the first poll of such a duration, or keeps it until there is
    /// a counter.
    #[cold]
    pub(crate) fn record_first(&self, label: LabelId, ns: u64) {
        self.count(Counted::Polls, label, ns, 1);
    }

    /// Owner only: counts a poll that began at `start`, for as many as it stands for.
    pub(crate) fn record(&self, label: LabelId, start: Ticks, end: Ticks, one_in: u32) {
        let ns = clock::ns_from_to(start, end).unwrap_or(0);
        let times = u64::from(one_in.max(1));
        let recorder = self.recorder_cell(label).get();
        if !recorder.is_some_and(|recorder| recorder.try_record_many(ns, times)) {
            self.count(Counted::Polls, label, ns, times);
        }
    }

    /// Owner only: counts how long a tracked future waited to be polled, once woken.
    pub(crate) fn record_delay(&self, label: LabelId, ns: u64) {
        self.count(Counted::Delays, label, ns, 1);
    }

    /// Owner only: counts a duration, or keeps it until there is a counter for it.
    ///
    /// Allocates nothing. A duration for which there is no room to wait is left out, and
    /// counted as such.
    #[cold]
    fn count(&self, counted: Counted, label: LabelId, ns: u64, times: u64) {
        if self.try_count(counted, label, ns, times) {
            // There may be one by now for those that wait, too.
            self.pending.settle(|what, ns, times| {
                let (counted, label) = of_pending(what);
                self.try_count(counted, label, ns, times)
            });
        } else if !self.pending.add(to_pending(counted, label), ns, times) {
            recorder::leave_uncounted(times);
        }
    }

    fn try_count(&self, counted: Counted, label: LabelId, ns: u64, times: u64) -> bool {
        let cell = match counted {
            Counted::Polls => Some(self.recorder_cell(label)),
            Counted::Delays => recorder::fill(&self.delays, &ready::TABLES)
                .map(|delays| &delays[label.index() % MAX_LABELS]),
        };
        cell.and_then(Recorder::of)
            .is_some_and(|recorder| recorder.record_from_stock(ns, times))
    }

    /// Adds, by label, what it has counted and what waits to be; labels without any are
    /// left out.
    pub(super) fn add_counted(&self, counted: Counted, merged: &mut HashMap<LabelId, Histogram>) {
        let recorded = || {
            let mut by_label = HashMap::new();
            let recorders = match counted {
                Counted::Polls => Some(&self.recorders),
                Counted::Delays => self.delays.get().map(Box::as_ref),
            };
            for (id, recorder) in (0..).zip(recorders.into_iter().flatten()) {
                if let Some(recorder) = recorder.get() {
                    let histogram = by_label.entry(LabelId(id)).or_insert_with(Histogram::new);
                    histogram.add_recorder(recorder);
                }
            }
            by_label
        };
        let by_label = self.pending.read(recorded, |by_label, what, ns, times| {
            let (waits_for, label) = of_pending(what);
            if waits_for == counted {
                let histogram = by_label.entry(label).or_insert_with(Histogram::new);
                histogram.record_many(ns, times);
            }
        });
        for (label, histogram) in by_label {
            let all = merged.entry(label).or_insert_with(Histogram::new);
            all.merge(&histogram);
        }
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
        self.timed_place.key()
    }

    /// Its packed place.
    pub(crate) fn place(&self) -> u64 {
        self.timed_place.place()
    }

    pub(crate) const fn parking(&self) -> &Parking {
        &self.parking
    }

    /// Whether it is a worker that can be handed over to another thread within a poll, by
    /// `block_in_place`: that of a multi-thread runtime.
    pub(crate) fn may_hand_over(&self) -> bool {
        self.may_hand_over.load(Relaxed)
    }

    /// Owner only.
    pub(crate) fn set_may_hand_over(&self, may: bool) {
        self.may_hand_over.store(may, Relaxed);
    }

    /// Whether watched futures are polled on it, and it is no worker of a multi-thread
    /// runtime.
    pub(crate) fn polls_apart(&self) -> bool {
        self.polls_apart.load(Relaxed)
    }

    /// Owner only.
    pub(crate) fn set_polls_apart(&self, apart: bool) {
        self.polls_apart.store(apart, Relaxed);
    }

    pub(super) fn set_place(&self, place: Place, timing: &AtomicU32) {
        self.timed_place.set(place.pack(), timing, key_of);
    }

    /// Sets the place if it is still this one.
    pub(super) fn replace_place(&self, seen: Place, place: Place, timing: &AtomicU32) {
        self.timed_place
            .replace(seen.pack(), place.pack(), timing, key_of);
    }

    /// The timing has changed.
    pub(super) fn refresh(&self, timing: &AtomicU32) {
        self.timed_place.refresh(timing, key_of);
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

    pub(super) fn take(&self) {
        self.stack.note();
        self.tid.store(crate::os::thread_id(), Release);
    }
}

fn key_of(place: u64, timing: u32) -> u64 {
    key::of(Place::unpack(place), Timing(timing))
}

const fn to_pending(counted: Counted, label: LabelId) -> u16 {
    match counted {
        Counted::Polls => label.0,
        Counted::Delays => label.0 | IS_DELAY,
    }
}

const fn of_pending(what: u16) -> (Counted, LabelId) {
    let counted = if what & IS_DELAY == 0 {
        Counted::Polls
    } else {
        Counted::Delays
    };
    (counted, LabelId(what & !IS_DELAY))
}
