//! Asks about the thread that a stall holds up: what it does, and where it is.

use crate::detector::{Observation, Told, Unit, WorkerSeen};
use crate::os::{Activity, Captured, Capturer, Doing, Miss};
use crate::registry::registry;
use crate::runtime::Runtime;
use crate::watchdog::observe::Observer;

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

    /// The stack of the thread of a worker that is still in this turn, and what it
    /// has done in all.
    pub(crate) fn capture_worker(
        &mut self,
        capturer: &mut Capturer,
        worker: usize,
        turn: &WorkerSeen,
        before: Option<Activity>,
    ) -> (Option<Activity>, Option<Vec<u64>>) {
        let number = self.runtime.thread_of(worker);
        let Some(Ok(thread)) = number.map(|number| self.probes.of(number)) else {
            return (None, None);
        };
        let now = thread.activity();
        let awake = before
            .zip(now)
            .is_some_and(|(before, now)| now.has_run_since(&before));
        let still = || self.runtime.look_at(worker).same_turn(turn);
        let captured = capturer.capture(thread, None, awake, &still);
        // The turn may be over by then, and this be taken for another's stack.
        capturer.forget_late(thread.tid());
        (now, captured.and_then(|captured| captured.stack).ok())
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
        awake: bool,
    ) -> Option<Result<Captured, Miss>> {
        let target = self.runtime.target(told, seen)?;
        let thread = self.probes.of(target.number);
        Some(
            thread.and_then(|thread| capturer.capture(thread, target.anchor, awake, &target.still)),
        )
    }

    /// tokio's id of the task that the worker of a turn is polling, if it is awake.
    pub(crate) fn task(
        &self,
        capturer: &mut Capturer,
        told: &Told,
        seen: &Observation,
    ) -> Option<u64> {
        let target = self.runtime.target(told, seen)?;
        let tid = registry().thread(target.number)?.tid()?;
        capturer.task_of(tid, &target.still)
    }

    /// The stack that the thread of a stall that is over has left behind.
    pub(crate) fn last_words(&self, capturer: &mut Capturer, told: &Told) -> Option<Vec<u64>> {
        let number = match (told.poll, told.unit) {
            (Some(poll), _) => poll.thread,
            (None, Unit::Worker(worker)) => self.runtime.thread_of(worker)?,
            (None, Unit::Thread(_)) => return None,
        };
        let tid = registry().thread(number)?.tid()?;
        capturer.last_words(tid, told.culprit.and_then(|culprit| culprit.anchor))
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
