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
//! An observer that sees the same poll for longer than it likes sets `flagged`
//! to its number. Only then does the owner, at the poll's end, leave the exact
//! end in `finished`, before it stores `state`: an observer that sees a flagged
//! poll gone finds its end, or has lost the race by a hair and does without.
//!
//! Times are passed in, so that the protocol can be checked without a clock.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::sync::AtomicU64;

/// How many nested polls are published; deeper ones are told as the last of these.
pub(crate) const MAX_DEPTH: usize = 4;

// Room for 4,095 nested watched futures, for which no stack is deep enough in
// practice, and for ten million polls a second for ten years.
const DEPTH_BITS: u32 = 12;
const DEPTH_MASK: u64 = (1 << DEPTH_BITS) - 1;

/// What is known of one poll when it begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// When it began, in ticks; 0 where no clock was read.
    pub(crate) start: u64,
    /// Label, worker and runtime, packed by [`crate::registry::Tag`].
    pub(crate) tag: u64,
    /// tokio's id of the task; 0 for none.
    pub(crate) task: u64,
    /// tracing's id of the span the future was first polled in; 0 for none.
    pub(crate) span: u64,
    /// The address of a local of the poll: where a captured stack must lead.
    pub(crate) anchor: u64,
}

/// The number of a poll on its thread, from 1 on; unique for the thread's life.
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

/// A flagged poll that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) poll: Poll,
    /// When it ended, in ticks.
    pub(crate) end: u64,
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
        self.seq.store(poll.seq, Release);
        self.start.store(poll.stamp.start, Release);
        self.tag.store(poll.stamp.tag, Release);
        self.task.store(poll.stamp.task, Release);
        self.span.store(poll.stamp.span, Release);
        self.anchor.store(poll.stamp.anchor, Release);
    }

    fn load(&self) -> Poll {
        Poll {
            seq: self.seq.load(Acquire),
            stamp: Stamp {
                start: self.start.load(Acquire),
                tag: self.tag.load(Acquire),
                task: self.task.load(Acquire),
                span: self.span.load(Acquire),
                anchor: self.anchor.load(Acquire),
            },
        }
    }
}

/// What the owner needs to end the poll that it began: `state` before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun(u64);

impl Begun {
    #[inline]
    pub(crate) const fn seq(self) -> Seq {
        (self.0 >> DEPTH_BITS) + 1
    }

    #[inline]
    const fn depth(self) -> u64 {
        self.0 & DEPTH_MASK
    }
}

/// The polls in progress on one thread, written by it alone.
// Two cache lines, because adjacent lines are fetched in pairs: one thread's
// polls must not slow down another's.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Slot {
    state: AtomicU64,
    flagged: AtomicU64,
    frames: [Frame; MAX_DEPTH],
    finished: Frame,
    finished_end: AtomicU64,
    /// Number of the poll in `finished`; 0 while it is being written.
    finished_seq: AtomicU64,
}

impl Slot {
    pub(crate) fn new() -> Self {
        Slot {
            state: AtomicU64::new(0),
            flagged: AtomicU64::new(0),
            frames: std::array::from_fn(|_| Frame::new()),
            finished: Frame::new(),
            finished_end: AtomicU64::new(0),
            finished_seq: AtomicU64::new(0),
        }
    }

    /// Owner only: publishes that a poll begins.
    #[inline]
    pub(crate) fn begin(&self, stamp: Stamp) -> Begun {
        // Relaxed: only the owner writes `state`, and the owner is this thread.
        let begun = Begun(self.state.load(Relaxed));
        if let Some(frame) = self.frames.get(begun.depth() as usize) {
            frame.store(Poll {
                seq: begun.seq(),
                stamp,
            });
        }
        // One poll more, one level deeper. Release: pairs with the first load in
        // `polls`.
        self.state.store(begun.0 + (1 << DEPTH_BITS) + 1, Release);
        begun
    }

    /// Owner only: whether an observer wants to know when this poll ends.
    #[inline]
    pub(crate) fn is_flagged(&self, begun: Begun) -> bool {
        // Relaxed: a wish, not data; one that comes too late is lost by design.
        self.flagged.load(Relaxed) == begun.seq()
    }

    /// Owner only: leaves the end of a poll for observers; before [`Slot::end`].
    ///
    /// Only that of an outermost poll: it is what holds the thread, and the end
    /// of one within would take its place.
    #[cold]
    pub(crate) fn finish(&self, begun: Begun, end: u64) {
        let [frame, ..] = &self.frames;
        if begun.depth() != 0 {
            return;
        }
        // The same two-sided argument as for `state`: 0 first, so that a reader
        // that catches a new field cannot find the old number again.
        self.finished_seq.store(0, Relaxed);
        self.finished.store(frame.load());
        self.finished_end.store(end, Release);
        self.finished_seq.store(begun.seq(), Release);
    }

    /// Owner only: publishes that the poll is over.
    #[inline]
    pub(crate) fn end(&self) {
        // Release: pairs with both loads in `polls`, and lets an observer that
        // sees the poll gone see `finished` too.
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

    /// Observer: asks for the exact end of this poll.
    pub(crate) fn flag(&self, seq: Seq) {
        self.flagged.store(seq, Relaxed);
    }

    /// Observer: the last poll whose end was left.
    pub(crate) fn finished(&self) -> Option<Finished> {
        let before = self.finished_seq.load(Acquire);
        let finished = Finished {
            poll: self.finished.load(),
            end: self.finished_end.load(Acquire),
        };
        (before != 0 && self.finished_seq.load(Relaxed) == before).then_some(finished)
    }
}
