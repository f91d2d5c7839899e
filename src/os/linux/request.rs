//! Requests for copies of running threads' stacks, as the handler finds them.
//!
//! Eight at most are in flight in the process, each with a buffer and a word of state of
//! its own. A signal carries a number: `generation << 3 | entry`. No two requests have the
//! same generation, so a late signal finds that its request is over, and does nothing.
//!
//! # Protocol
//! The state of an entry is `generation << 3 | step`:
//!
//! ```text
//! FREE -> FILLING     by the asker, which owns the entry from here on
//! FILLING -> REQUESTED    by the asker: the handler may claim it
//! REQUESTED -> CLAIMED    by the handler, which owns the answer from here on
//! CLAIMED -> DONE         by the handler: the answer is the asker's
//! REQUESTED | DONE -> FILLING     by the asker, which lets a large buffer go
//! REQUESTED | DONE | FILLING -> FREE   by the asker, which takes the request back
//! CLAIMED -> ABANDONED    by the asker, which does not wait
//! ABANDONED -> FREE       by the handler
//! ```
//!
//! Each step out of REQUESTED and out of CLAIMED is a compare-exchange from a value that
//! holds the generation. So of the asker and the handler one wins, and the loser sees it:
//! - a handler that loses REQUESTED returns without having touched the entry;
//! - an asker that loses it finds CLAIMED or DONE;
//! - a handler that loses CLAIMED finds ABANDONED, and frees the entry itself. Until then
//!   nobody claims the entry, because only FREE ones are taken: the buffer has one writer.
//!
//! Edges: REQUESTED is stored with release and claimed with acquire, so the handler sees
//! what was filled in. DONE is stored with release and loaded with acquire, so the asker
//! sees the answer. FREE is stored with release and taken with acquire, so the next asker
//! writes after the last handler.

use std::mem::ManuallyDrop;
use std::ops::Range;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, AtomicUsize};

use crate::clock::Ticks;
use crate::os::Miss;
use crate::os::platform::timer::Timer;
use crate::os::platform::unwind::{Registers, StackCopy};

/// How many requests may be in flight.
const ENTRIES: usize = 8;
/// The bits that hold an entry's index in a signal's number, and the step in a state.
const BITS: u32 = 3;
const LOW: u64 = (1 << BITS) - 1;

const FREE: u64 = 0;
const FILLING: u64 = 1;
const REQUESTED: u64 = 2;
const CLAIMED: u64 = 3;
const DONE: u64 = 4;
const ABANDONED: u64 = 5;

/// How much an entry's buffer holds at first, and keeps. A larger one is let go when its
/// request is over; if the handler was still writing then, when the entry is next used.
pub(crate) const SMALL: usize = 256 * 1024;
/// The most that is copied of a stack.
pub(crate) const LARGEST: usize = 16 * 1024 * 1024;
const PAGE: usize = 4096;

static GENERATION: AtomicU64 = AtomicU64::new(1);
static TABLE: [Entry; ENTRIES] = [const { Entry::new() }; ENTRIES];

/// One request: what is wanted, and the answer.
#[derive(Debug)]
struct Entry {
    state: AtomicU64,
    tid: AtomicI32,
    /// By way of which file a signal without a number comes; -1 for none.
    file: AtomicI32,
    /// Where the thread's stack lies, and up to where it is wanted.
    low: AtomicUsize,
    high: AtomicUsize,
    up_to: AtomicUsize,
    buffer: AtomicPtr<u64>,
    /// In bytes, whole words.
    capacity: AtomicUsize,
    pc: AtomicU64,
    sp: AtomicU64,
    fp: AtomicU64,
    lr: AtomicU64,
    /// 0 where it is not known.
    kept: [AtomicU64; 6],
    /// How many bytes were wanted from the stack pointer on; [`FOREIGN`] for a stack that
    /// is not the thread's.
    length: AtomicUsize,
    task: AtomicU64,
    at: AtomicU64,
}

const FOREIGN: usize = usize::MAX;

/// What a thread has answered, besides its stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) registers: Registers,
    /// tokio's id of the task that it polled; `None` outside of any.
    pub(crate) task: Option<u64>,
    pub(crate) at: Ticks,
}

/// What comes of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Copied(Sample),
    /// There was more of the stack than the buffer holds: so many bytes in all.
    Larger(Sample, usize),
    /// The stack pointer was outside of the thread's stack.
    Foreign(Sample),
    /// There is no memory for a copy of the stack.
    NoMemory(Sample),
    /// The handler has not run yet.
    Late,
}

/// What is wanted of a thread.
#[derive(Clone, Debug)]
pub(crate) struct Want {
    pub(crate) tid: i32,
    /// Where its stack lies.
    pub(crate) bounds: Range<usize>,
    /// Up to where it is wanted.
    pub(crate) up_to: usize,
    /// How many bytes there must be room for.
    pub(crate) room: usize,
}

/// A request in flight. Dropping it takes it back, and never waits for the thread.
#[derive(Debug)]
pub(crate) struct Request {
    number: u64,
    /// What sends the signal, once it is armed.
    pub(crate) timer: Option<Timer>,
}

/// The handler's side of a request that it has claimed.
#[derive(Debug)]
pub(crate) struct Claim {
    entry: &'static Entry,
    claimed: u64,
}

impl Entry {
    const fn new() -> Self {
        Entry {
            state: AtomicU64::new(FREE),
            tid: AtomicI32::new(0),
            file: AtomicI32::new(-1),
            low: AtomicUsize::new(0),
            high: AtomicUsize::new(0),
            up_to: AtomicUsize::new(0),
            buffer: AtomicPtr::new(std::ptr::null_mut()),
            capacity: AtomicUsize::new(0),
            pc: AtomicU64::new(0),
            sp: AtomicU64::new(0),
            fp: AtomicU64::new(0),
            lr: AtomicU64::new(0),
            kept: [const { AtomicU64::new(0) }; 6],
            length: AtomicUsize::new(0),
            task: AtomicU64::new(0),
            at: AtomicU64::new(0),
        }
    }

    /// Asker only, while FILLING: has a buffer of at least so many bytes, and lets a large
    /// one go that is not needed. The pages are there afterwards: a page fault within the
    /// handler would wait for the lock of the memory map.
    ///
    /// Where there is no memory, that is a reason for no stack: an allocation that fails
    /// would end the program.
    fn make_room(&self, bytes: usize) -> Result<(), Miss> {
        let bytes = bytes.clamp(SMALL, LARGEST).next_multiple_of(PAGE);
        let capacity = self.capacity.load(Relaxed);
        if capacity >= bytes && (capacity <= SMALL || bytes > SMALL) {
            return Ok(());
        }
        self.let_go();
        let words = bytes / size_of::<u64>();
        let mut new = Vec::new();
        let reserved = new.try_reserve_exact(words);
        reserved.map_err(|_| Miss::NoMemory)?;
        // Not zeroes, which the allocator would leave to the first touch.
        new.resize(words, 1_u64);
        let mut new = ManuallyDrop::new(new);
        self.buffer.store(new.as_mut_ptr(), Relaxed);
        self.capacity
            .store(new.capacity() * size_of::<u64>(), Relaxed);
        Ok(())
    }

    /// Asker only, while FILLING: gives the buffer back.
    fn let_go(&self) {
        let words = self.capacity.swap(0, Relaxed) / size_of::<u64>();
        let buffer = self.buffer.swap(std::ptr::null_mut(), Relaxed);
        if !buffer.is_null() {
            // SAFETY: the buffer and its capacity are those of the vector that `make_room`
            // has kept from being dropped. The entry is FILLING, so no handler uses it, and
            // there is no buffer any more before that changes.
            drop(unsafe { Vec::from_raw_parts(buffer, 0, words) });
        }
    }
}

impl Request {
    /// Takes a free entry for what is wanted. The handler may answer from now on.
    pub(crate) fn new(want: &Want) -> Result<Self, Miss> {
        // Relaxed: only that no two are the same.
        let generation = GENERATION.fetch_add(1, Relaxed);
        let filling = generation << BITS | FILLING;
        let take = |entry: &&Entry| {
            let now = entry.state.load(Relaxed);
            // Acquire: pairs with the release that has freed it.
            now & LOW == FREE
                && entry
                    .state
                    .compare_exchange(now, filling, Acquire, Relaxed)
                    .is_ok()
        };
        let (index, entry) = (0..)
            .zip(&TABLE)
            .find(|(_, entry)| take(entry))
            .ok_or(Miss::Busy)?;
        if let Err(miss) = entry.make_room(want.room) {
            // Release: pairs with the acquire of the next asker's take.
            entry.state.store(generation << BITS | FREE, Release);
            return Err(miss);
        }
        entry.tid.store(want.tid, Relaxed);
        entry.file.store(-1, Relaxed);
        entry.low.store(want.bounds.start, Relaxed);
        entry.high.store(want.bounds.end, Relaxed);
        entry.up_to.store(want.up_to, Relaxed);
        // Release: pairs with the acquire in `claim`.
        entry.state.store(generation << BITS | REQUESTED, Release);
        Ok(Request {
            number: generation << BITS | index,
            timer: None,
        })
    }

    /// What its signal carries.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// Has a signal by way of this file claim it, which carries no number.
    pub(crate) fn expect_by(&self, file: i32) {
        // Release: pairs with the acquire in `claim_by`.
        self.entry().file.store(file, Release);
    }

    const fn entry(&self) -> &'static Entry {
        &TABLE[(self.number & LOW) as usize]
    }

    const fn state(&self, step: u64) -> u64 {
        self.number & !LOW | step
    }

    /// Whether the handler is done.
    pub(crate) fn is_answered(&self) -> bool {
        // Relaxed: `answer` looks again before it reads anything.
        self.entry().state.load(Relaxed) == self.state(DONE)
    }

    /// The answer, if there is one, with the stack in `into`.
    pub(crate) fn answer(&self, into: &mut StackCopy) -> Answer {
        let entry = self.entry();
        // Acquire: pairs with the release in `Claim::done`.
        if entry.state.load(Acquire) != self.state(DONE) {
            return Answer::Late;
        }
        let sample = Sample {
            registers: Registers {
                pc: entry.pc.load(Relaxed),
                sp: entry.sp.load(Relaxed),
                fp: Some(entry.fp.load(Relaxed)),
                lr: entry.lr.load(Relaxed),
                kept: entry.kept.each_ref().map(|kept| Some(kept.load(Relaxed))),
            },
            task: Some(entry.task.load(Relaxed)).filter(|task| *task != 0),
            at: entry.at.load(Relaxed),
        };
        let (length, capacity) = (entry.length.load(Relaxed), entry.capacity.load(Relaxed));
        if length == FOREIGN {
            return Answer::Foreign(sample);
        }
        if length > capacity {
            return Answer::Larger(sample, length);
        }
        // SAFETY: the buffer has `capacity` bytes, which `length` is within. The handler
        // that wrote it is done (seen with acquire above). None writes it again, nor is it
        // replaced, before this request is dropped, which takes it by value.
        let copied =
            unsafe { std::slice::from_raw_parts(entry.buffer.load(Relaxed).cast::<u8>(), length) };
        into.bytes.clear();
        if into.bytes.try_reserve_exact(length).is_err() {
            return Answer::NoMemory(sample);
        }
        into.bytes.extend_from_slice(copied);
        into.start = sample.registers.sp;
        Answer::Copied(sample)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let entry = self.entry();
        let (state, free) = (&entry.state, self.state(FREE));
        let from = |step, to| {
            // Acquire: pairs with the release in `Claim::done`, so that the handler's
            // writes come before a large buffer is let go. Release: the next asker starts
            // where this one has stopped reading.
            state
                .compare_exchange(self.state(step), to, AcqRel, Acquire)
                .is_ok()
        };
        // One after another, as the handler goes on meanwhile. At the latest DONE is what
        // the handler leaves.
        let filling = self.state(FILLING);
        if entry.capacity.load(Relaxed) <= SMALL {
            let _ =
                from(REQUESTED, free) || from(CLAIMED, self.state(ABANDONED)) || from(DONE, free);
        } else if from(REQUESTED, filling)
            || !from(CLAIMED, self.state(ABANDONED)) && from(DONE, filling)
        {
            entry.let_go();
            // Release: as above.
            state.store(free, Release);
        }
        // After that: whatever the timer still sends finds no request.
        drop(self.timer.take());
    }
}

/// For the handler: claims the request that a signal carries, if it is of this thread.
///
/// Async-signal-safe: atomics alone.
pub(crate) fn claim(number: u64, tid: i32) -> Option<Claim> {
    let entry = TABLE.get((number & LOW) as usize)?;
    let requested = number & !LOW | REQUESTED;
    let claimed = number & !LOW | CLAIMED;
    // Acquire: pairs with the release in `Request::new`. Should the entry be another
    // request's by now, the exchange fails, as no two have the same generation.
    let is_it = entry.state.load(Acquire) == requested && entry.tid.load(Relaxed) == tid;
    let claim = || {
        entry
            .state
            .compare_exchange(requested, claimed, AcqRel, Acquire)
    };
    (is_it && claim().is_ok()).then_some(Claim { entry, claimed })
}

/// For the handler: claims the request that is expected by way of a file, if it is of
/// this thread. A late signal may claim a later request of the same file and thread, for
/// which it comes as well as that one's own.
///
/// Async-signal-safe: atomics alone.
pub(crate) fn claim_by(file: i32, tid: i32) -> Option<Claim> {
    (0..).zip(&TABLE).find_map(|(index, entry): (u64, _)| {
        // Acquire: pairs with the release in `Request::new`, so that thread and file are
        // those of this generation or a later one; `claim` sees if it is a later one.
        let state = entry.state.load(Acquire);
        // Acquire: pairs with the release in `expect_by`.
        let is_it = file >= 0 && entry.file.load(Acquire) == file;
        if is_it {
            claim(state & !LOW | index, tid)
        } else {
            None
        }
    })
}

impl Claim {
    /// Copies the stack of the calling thread from its interrupted stack pointer on.
    ///
    /// Async-signal-safe: atomics, and reads within the thread's stack. No system call:
    /// one that reads memory could wait for the lock of the memory map.
    pub(crate) fn copy(&self, registers: &Registers) {
        const WORD: usize = size_of::<u64>();
        let entry = self.entry;
        entry.pc.store(registers.pc, Relaxed);
        entry.sp.store(registers.sp, Relaxed);
        entry.fp.store(registers.fp.unwrap_or(0), Relaxed);
        entry.lr.store(registers.lr, Relaxed);
        for (place, kept) in entry.kept.iter().zip(registers.kept) {
            place.store(kept.unwrap_or(0), Relaxed);
        }
        let sp = usize::try_from(registers.sp).unwrap_or(0);
        let (low, high) = (entry.low.load(Relaxed), entry.high.load(Relaxed));
        if sp < low || sp >= high || !sp.is_multiple_of(WORD) {
            return entry.length.store(FOREIGN, Relaxed);
        }
        let end = entry.up_to.load(Relaxed).min(high);
        let length = end.saturating_sub(sp) / WORD * WORD;
        entry.length.store(length, Relaxed);
        if length > entry.capacity.load(Relaxed) {
            return;
        }
        let from = std::ptr::with_exposed_provenance::<u64>(sp);
        let to = entry.buffer.load(Relaxed);
        for word in 0..length / WORD {
            // SAFETY: `from` and what follows lies between the stack pointer and the end of
            // the stack of this thread, which is mapped: the thread itself has noted the
            // bounds, and is in them. Volatile, as the words belong to the interrupted
            // code, which does not run meanwhile. `to` has `capacity` bytes, which `length`
            // is within, and is this handler's alone while the request is claimed.
            unsafe { to.add(word).write(from.add(word).read_volatile()) };
        }
    }

    /// Leaves what else is known, and hands the answer over.
    pub(crate) fn done(self, task: u64, at: Ticks) {
        let Entry { state, .. } = self.entry;
        self.entry.task.store(task, Relaxed);
        self.entry.at.store(at, Relaxed);
        let step = |step| self.claimed & !LOW | step;
        // Release: pairs with the acquire in `Request::answer`.
        let done = state.compare_exchange(self.claimed, step(DONE), AcqRel, Acquire);
        if done.is_err() {
            // ABANDONED. Release: pairs with the acquire in `Request::new`.
            state.store(step(FREE), Release);
        }
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
