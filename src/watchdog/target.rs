//! Asks about the thread that a stall holds up: what it does, and where it is.

use crate::detector::{Observation, Told, Unit, WorkerSeen};
use crate::os::{Activity, Captured, Capturer, Doing, Miss, Subject};
use crate::registry::registry;
use crate::runtime::Runtime;
use crate::watchdog::observe::Observer;

/// In a [`Subject`]'s id: a turn, not a stall.
const TURN: u64 = 1 << 63;

/// The thread that a stall holds up.
struct Target<'a> {
    /// Of its entry in the registry.
    number: usize,
    anchor: Option<u64>,
    /// Whether the stall goes on.
    still: Box<dyn Fn() -> bool + 'a>,
}

impl Observer {
    /// What the thread that a stall holds up is doing; `None` if it is not known
    /// or the stall is over. Looks so often, some 10 us each, until it is asleep.
    pub(crate) fn doing(&mut self, told: &Told, seen: &Observation, looks: usize) -> Option<Doing> {
        let thread = self.runtime.target(told, seen)?.number;
        let doing = self.probes.of(thread).ok()?.doing(looks);
        // A worker that has gone on since may have parked.
        doing.filter(|_| {
            self.runtime
                .target(told, seen)
                .is_some_and(|target| (target.still)())
        })
    }

    /// The stack of the thread of a worker that is still in this turn.
    pub(crate) fn capture_worker(
        &mut self,
        capturer: &mut Capturer,
        worker: usize,
        turn: &WorkerSeen,
    ) -> Option<Vec<u64>> {
        let number = self.runtime.thread_of(worker)?;
        let stack = &registry().thread(number)?.stack;
        let thread = self.probes.of(number).ok()?;
        let still = || self.runtime.look_at(worker).same_turn(turn);
        let subject = Subject {
            id: TURN | turn.parks,
            anchor: None,
            still: &still,
        };
        capturer.capture(thread, stack, &subject).ok()?.stack.ok()
    }

    /// What the thread that a stall holds up has done in all.
    pub(crate) fn activity(&mut self, told: &Told, seen: &Observation) -> Option<Activity> {
        let thread = self.runtime.target(told, seen)?.number;
        self.probes.of(thread).ok()?.activity()
    }

    /// What the thread that a stall holds up is doing, and where it is.
    ///
    /// `None` where the thread is not known.
    pub(crate) fn capture(
        &mut self,
        capturer: &mut Capturer,
        told: &Told,
        seen: &Observation,
    ) -> Option<Result<Captured, Miss>> {
        let target = self.runtime.target(told, seen)?;
        let stack = &registry().thread(target.number)?.stack;
        let subject = Subject {
            id: told.id,
            anchor: target.anchor,
            still: &target.still,
        };
        let thread = self.probes.of(target.number);
        Some(thread.and_then(|thread| capturer.capture(thread, stack, &subject)))
    }

    /// The stack that the thread of a stall that is over has left behind.
    pub(crate) fn last_words(&self, capturer: &mut Capturer, told: &Told) -> Option<Vec<u64>> {
        let number = match (told.poll, told.unit) {
            (Some(poll), _) => poll.thread,
            (None, Unit::Worker(worker)) => self.runtime.thread_of(worker)?,
            (None, Unit::Thread(_)) => return None,
        };
        let tid = registry().thread(number)?.tid()?;
        let subject = Subject {
            id: told.id,
            anchor: told.culprit.and_then(|culprit| culprit.anchor),
            still: &|| false,
        };
        let end_ns = told.start_ns + told.duration_ns;
        let was_in_it = |at| (told.start_ns..=end_ns).contains(&self.clock.ns_of(at));
        let captured = capturer.last_words(tid, &subject, &was_in_it)?;
        captured.stack.ok()
    }
}

impl Runtime {
    /// The thread that a stall holds up.
    fn target(&self, told: &Told, seen: &Observation) -> Option<Target<'_>> {
        match (told.poll, told.unit) {
            (Some(poll), _) => {
                let thread = registry().thread(poll.thread)?;
                Some(Target {
                    number: poll.thread,
                    anchor: told.culprit.and_then(|culprit| culprit.anchor),
                    still: Box::new(move || {
                        let polls = thread.slot.polls();
                        let first = polls.as_slice().first();
                        first.is_some_and(|first| first.seq == poll.seq)
                    }),
                })
            }
            (None, Unit::Worker(worker)) => {
                let then = *seen.workers.get(worker)?;
                Some(Target {
                    number: self.thread_of(worker)?,
                    anchor: None,
                    still: Box::new(move || self.look_at(worker).same_turn(&then)),
                })
            }
            (None, Unit::Thread(_)) => None,
        }
    }
}
