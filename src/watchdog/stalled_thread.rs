//! The thread that a stall holds up, and whether the stall goes on.

use crate::detector::{Foreseen, PollId, Told, Unit, WorkerSeen};
use crate::registry::registry;
use crate::runtime::Runtime;

/// In [`StalledThread::subject`]: a turn, not a poll.
const TURN: u64 = 1 << 63;

/// What holds a thread up.
#[derive(Clone, Copy, Debug)]
enum Held {
    Poll(PollId),
    Turn(usize, WorkerSeen),
}

/// The thread that a stall holds up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StalledThread {
    /// Of its entry in the registry.
    pub(crate) number: usize,
    /// Where its stack must lead.
    pub(crate) anchor: Option<u64>,
    held: Held,
}

impl StalledThread {
    /// `turn` is what tokio had published of the worker when the stall was seen.
    pub(crate) fn of(told: &Told, turn: WorkerSeen, runtime: &Runtime) -> Option<Self> {
        let anchor = told.culprit.and_then(|culprit| culprit.anchor);
        let foreseen = Foreseen {
            unit: told.unit,
            poll: told.poll.map(|poll| (poll, anchor)),
        };
        Self::foreseen(&foreseen, turn, runtime)
    }

    /// Of what may soon be a stall.
    pub(crate) fn foreseen(of: &Foreseen, turn: WorkerSeen, runtime: &Runtime) -> Option<Self> {
        match (of.poll, of.unit) {
            (Some((poll, anchor)), _) => Some(StalledThread {
                number: poll.thread,
                anchor,
                held: Held::Poll(poll),
            }),
            (None, Unit::Worker(worker)) => Self::of_turn(worker, turn, runtime),
            (None, Unit::Thread(_)) => None,
        }
    }

    /// What its thread is asked for: unlike all else that holds the same thread up.
    pub(crate) const fn subject(&self) -> u64 {
        match self.held {
            Held::Poll(poll) => poll.seq,
            Held::Turn(_, then) => TURN | then.parks,
        }
    }

    /// Of the turn of a worker.
    pub(crate) fn of_turn(worker: usize, turn: WorkerSeen, runtime: &Runtime) -> Option<Self> {
        Some(StalledThread {
            number: runtime.thread_of(worker)?,
            anchor: None,
            held: Held::Turn(worker, turn),
        })
    }

    /// Whether the same poll, or the same turn, goes on.
    pub(crate) fn is_current(&self, runtime: &Runtime) -> bool {
        match self.held {
            Held::Poll(poll) => registry().thread(poll.thread).is_some_and(|thread| {
                let polls = thread.slot.polls();
                let first = polls.as_slice().first();
                first.is_some_and(|first| first.seq == poll.seq)
            }),
            Held::Turn(worker, then) => runtime.look_at(worker).same_turn(&then),
        }
    }

    /// The operating system's id of the thread.
    pub(crate) fn tid(&self) -> Option<i32> {
        registry().thread(self.number)?.tid()
    }
}
