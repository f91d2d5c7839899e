//! The one lock-free protocol: what a thread is polling right now.
//!
//! Each thread that polls watched futures owns one [`Slot`] and is its only
//! writer. Any number of observers read it without ever making the owner wait.
//!
//! # Protocol
//! `state` holds the number of polls ever begun on this thread (upper 52 bits)
//! and how many of them are in progress (lower 12 bits, more than one when
//! watched futures are nested). The owner
//! - **begins** a poll by writing `frames[depth]` and then storing `state` with
//!   one poll more and one level deeper;
//! - **ends** it by storing `state` one level up.
//!
//! An observer loads `state`, reads the frames that it names, and loads `state`
//! again. Equal: the frames are those of polls that were in progress at both
//! loads. Why no frame can be torn:
//! - the first load (acquire) pairs with the store that published the frame
//!   (release), so the fields are at least as new as that;
//! - were a field newer, it would come from a later `begin`. The fields are
//!   stored with release and loaded with acquire, so the observer would then
//!   also see the end of the poll between the two, and the second load of
//!   `state` could not give the first value any more.
//!
//! On x86-64 all of these are plain moves.
//!
//! An observer that wants to know when the poll it sees ends sets `wanted`. Only
//! then does the owner, at the end of an outermost poll, leave the exact end in
//! `finished_end`, before it stores `state`: an observer that sees a wanted poll gone
//! finds its end, or has lost the race by a hair and does without. The owner
//! takes the wish back before it stores `state`, so it cannot take back one that
//! was made for the poll after. `wanted` is also how the owner tells itself that
//! a poll is timed, so that the end of one that is neither costs one comparison.
//!
//! Times are passed in, so that the protocol can be checked without a clock.

use std::num::NonZeroU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::sync::AtomicU64;

/// How many nested polls are published; deeper ones are told as the last of these.
pub(crate) const MAX_DEPTH: usize = 8;

// Room for 4,095 nested watched futures, for which no stack is deep enough in
// practice, and for ten million polls a second for ten years.
const DEPTH_BITS: u32 = 12;
const DEPTH_MASK: u64 = (1 << DEPTH_BITS) - 1;
/// What `state` grows by when a poll begins: one poll more, one level deeper.
const BEGIN: u64 = (1 << DEPTH_BITS) + 1;

/// In a frame's tag: its `start` is of this poll. A caller of
/// [`Slot::begin_paced`] has it set already.
const STARTED: u64 = 1 << 63;
/// In a frame's tag: its `span` is of this poll.
const SPANNED: u64 = 1 << 62;

/// In `wanted`: the owner times this poll, as it does each.
const PACED: u64 = 1;
/// In `wanted`: the owner times this poll.
const TIMED: u64 = 3;
/// In `wanted`: an observer wants the end of this poll, timed or not.
const END: u64 = 2;

/// Why there is more to do at the end of a poll.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted(NonZeroU64);

/// What is known of one poll when it begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// When it began, in ticks; 0 where no clock was read.
    pub(crate) start: u64,
    /// Label, worker and runtime, packed by [`crate::registry::Tag`]; the highest
    /// two bits are the slot's.
    pub(crate) tag: u64,
    /// tokio's id of the task; 0 for none.
    pub(crate) task: u64,
    /// tracing's id of the span the future was first polled in; 0 for none.
    pub(crate) span: u64,
    /// The address of a local of the poll: where a captured stack must lead; 0 for
    /// a task's poll that tokio's hooks have told of.
    pub(crate) anchor: u64,
}

/// What tells a poll from all others of its thread, ever; never 0.
pub(crate) type Seq = u64;

/// One poll in progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Poll {
    pub(crate) seq: Seq,
    pub(crate) stamp: Stamp,
}

/// The polls that were in progress at one instant, the outermost first.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Polls {
    polls: [Poll; MAX_DEPTH],
    depth: usize,
}

impl Polls {
    pub(crate) fn as_slice(&self) -> &[Poll] {
        self.polls.get(..self.depth).unwrap_or(&[])
    }
}

#[derive(Debug)]
struct Frame {
    seq: AtomicU64,
    start: AtomicU64,
    tag: AtomicU64,
    task: AtomicU64,
    span: AtomicU64,
    anchor: AtomicU64,
}

impl Frame {
    fn new() -> Self {
        Frame {
            seq: AtomicU64::new(0),
            start: AtomicU64::new(0),
            tag: AtomicU64::new(0),
            task: AtomicU64::new(0),
            span: AtomicU64::new(0),
            anchor: AtomicU64::new(0),
        }
    }

    // Release on each field: see the module's second argument.
    #[inline]
    fn store(&self, poll: Poll) {
        let tag = poll.stamp.tag | STARTED | SPANNED;
        self.store_plain(poll.seq, tag, poll.stamp.task, poll.stamp.anchor);
        self.start.store(poll.stamp.start, Release);
        self.span.store(poll.stamp.span, Release);
    }

    /// Leaves `start` and `span` as they were; the tag says so.
    #[inline]
    fn store_plain(&self, seq: Seq, tag: u64, task: u64, anchor: u64) {
        self.seq.store(seq, Release);
        self.tag.store(tag, Release);
        self.task.store(task, Release);
        self.anchor.store(anchor, Release);
    }

    fn load(&self) -> Poll {
        let tag = self.tag.load(Acquire);
        let field = |field: &AtomicU64, bit| match tag & bit {
            0 => 0,
            _ => field.load(Acquire),
        };
        Poll {
            seq: self.seq.load(Acquire),
            stamp: Stamp {
                start: field(&self.start, STARTED),
                tag: tag & !(STARTED | SPANNED),
                task: self.task.load(Acquire),
                span: field(&self.span, SPANNED),
                anchor: self.anchor.load(Acquire),
            },
        }
    }
}

/// The polls in progress on one thread, written by it alone.
// Two cache lines, because adjacent lines are fetched in pairs: one thread's
// polls must not slow down another's.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Slot {
    state: AtomicU64,
    wanted: AtomicU64,
    frames: [Frame; MAX_DEPTH],
    finished_end: AtomicU64,
    /// Number of the poll that ended at `finished_end`; 0 while that is being written.
    finished_seq: AtomicU64,
}

impl Slot {
    pub(crate) fn new() -> Self {
        Slot {
            state: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            frames: std::array::from_fn(|_| Frame::new()),
            finished_end: AtomicU64::new(0),
            finished_seq: AtomicU64::new(0),
        }
    }

    /// Owner only: publishes that a poll begins, unless it is within another;
    /// whether it was published.
    #[inline]
    pub(crate) fn begin_plain(&self, tag: u64, task: u64, anchor: u64) -> bool {
        self.begin_outermost(tag, task, anchor, |_| ())
    }

    /// As [`Slot::begin_plain`], for a poll that is timed as each is.
    #[inline]
    pub(crate) fn begin_paced(&self, start: u64, tag: u64, task: u64, anchor: u64) -> bool {
        self.begin_outermost(tag, task, anchor, |frame| {
            frame.start.store(start, Release);
            // Relaxed: for the owner itself.
            self.wanted.store(PACED, Relaxed);
        })
    }

    #[inline]
    fn begin_outermost(&self, tag: u64, task: u64, anchor: u64, more: impl FnOnce(&Frame)) -> bool {
        // Relaxed: only the owner writes `state`, and the owner is this thread.
        let state = self.state.load(Relaxed);
        if state & DEPTH_MASK != 0 {
            return false;
        }
        let [frame, ..] = &self.frames;
        let seq = state + BEGIN;
        frame.store_plain(seq, tag, task, anchor);
        more(frame);
        // Release: pairs with the first load in `polls`.
        self.state.store(seq, Release);
        true
    }

    /// Owner only: publishes that a poll begins, at whatever depth; a start that
    /// is not 0 makes it a timed one.
    pub(crate) fn begin(&self, stamp: Stamp) {
        let state = self.state.load(Relaxed);
        let seq = state + BEGIN;
        if let Some(frame) = self.frames.get((state & DEPTH_MASK) as usize) {
            frame.store(Poll { seq, stamp });
        }
        let wanted = self.wanted.load(Relaxed);
        // Within a paced poll it makes that one a timed one too, so that
        // `is_paced` holds for that one alone. A wish for its end remains.
        if wanted == PACED || stamp.start != 0 && (state & DEPTH_MASK == 0 || wanted != END) {
            self.wanted.store(TIMED, Relaxed);
        }
        // Release: as above.
        self.state.store(seq, Release);
    }

    /// Owner only: the innermost poll in progress; 0 where it is not published.
    pub(crate) fn innermost(&self) -> Seq {
        self.innermost_frame()
            .map_or(0, |frame| frame.seq.load(Relaxed))
    }

    /// Owner only: what there is to do at the end of a poll besides [`Slot::end`], if
    /// anything.
    #[inline]
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        // Relaxed: a wish, not data; one that comes too late is lost by design.
        NonZeroU64::new(self.wanted.load(Relaxed)).map(Wanted)
    }

    /// Owner only: when the poll in progress began, if it was begun by
    /// [`Slot::begin_paced`], there was none within it, and nobody wants its end.
    #[inline]
    pub(crate) fn paced(&self, Wanted(wanted): Wanted) -> Option<u64> {
        let [frame, ..] = &self.frames;
        (wanted.get() == PACED).then(|| frame.start.load(Relaxed))
    }

    /// Owner only: when the innermost poll began; 0 where that is not known.
    pub(crate) fn start(&self) -> u64 {
        self.innermost_frame()
            .map_or(0, |frame| frame.load().stamp.start)
    }

    /// Owner only: the tag of the innermost poll; 0 for none.
    #[cfg(tokio_unstable)]
    pub(crate) fn tag(&self) -> u64 {
        self.innermost_frame()
            .map_or(0, |frame| frame.tag.load(Relaxed) & !(STARTED | SPANNED))
    }

    /// Owner only: whether the innermost poll is one that tokio's hooks have told of.
    #[cfg(tokio_unstable)]
    pub(crate) fn is_in_task(&self) -> bool {
        self.innermost_frame()
            .is_some_and(|frame| frame.anchor.load(Relaxed) == 0)
    }

    /// Owner only: whether none has begun since the innermost poll in progress has.
    #[cfg(tokio_unstable)]
    pub(crate) fn is_latest(&self) -> bool {
        self.innermost() == self.state.load(Relaxed)
    }

    fn innermost_frame(&self) -> Option<&Frame> {
        let depth = self.state.load(Relaxed) & DEPTH_MASK;
        self.frames.get(depth.checked_sub(1)? as usize)
    }

    /// Owner only, before [`Slot::end`]: leaves the end of the poll for observers,
    /// if one wants it and this is an outermost poll.
    ///
    /// One within another does not hold the thread, and its end would take that
    /// of the other's place.
    pub(crate) fn close(&self, end: u64) {
        let wanted = self.wanted.load(Relaxed);
        if self.state.load(Relaxed) & DEPTH_MASK == 1 {
            if wanted == END {
                self.leave_end(end);
            }
            self.wanted.store(0, Relaxed);
        }
    }

    #[cold]
    fn leave_end(&self, end: u64) {
        let [frame, ..] = &self.frames;
        // The same two-sided argument as for `state`: 0 first, so that a reader
        // that catches the new end cannot find the old number again.
        self.finished_seq.store(0, Relaxed);
        self.finished_end.store(end, Release);
        self.finished_seq.store(frame.seq.load(Relaxed), Release);
    }

    /// Owner only: publishes that the poll is over.
    #[inline]
    pub(crate) fn end(&self) {
        // Release: pairs with both loads in `polls`, and lets an observer that
        // sees the poll gone see its end too.
        self.state.store(self.state.load(Relaxed) - 1, Release);
    }

    /// Observer: the polls in progress; none where they change too fast to be read.
    pub(crate) fn polls(&self) -> Polls {
        // A slot that moves while it is read is not stuck, so one more try is
        // plenty, and a bound keeps the observer from being held up by an owner.
        for _ in 0..2 {
            let before = self.state.load(Acquire);
            let mut polls = Polls {
                depth: usize::min((before & DEPTH_MASK) as usize, MAX_DEPTH),
                ..Polls::default()
            };
            for (poll, frame) in polls.polls.iter_mut().zip(&self.frames).take(polls.depth) {
                *poll = frame.load();
            }
            // Relaxed: the acquire loads above order it after the fields.
            if self.state.load(Relaxed) == before {
                return polls;
            }
        }
        Polls::default()
    }

    /// Observer: how many polls have begun on this thread.
    pub(crate) fn begun(&self) -> u64 {
        self.state.load(Relaxed) >> DEPTH_BITS
    }

    /// Observer: asks for the exact end of the poll in progress.
    pub(crate) fn want_end(&self) {
        self.wanted.store(END, Relaxed);
    }

    /// Observer: when this poll ended, if its end was left and none has been since.
    pub(crate) fn end_of(&self, poll: Seq) -> Option<u64> {
        let before = self.finished_seq.load(Acquire);
        let end = self.finished_end.load(Acquire);
        (before == poll && self.finished_seq.load(Relaxed) == before).then_some(end)
    }
}
