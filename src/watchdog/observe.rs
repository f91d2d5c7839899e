//! Gathers what is to be seen at one tick: slots, tokio's counters, threads.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::Calibrated;
use crate::detector::{
    Detector, FinishedSeen, Layer, Observation, PollId, PollSeen, ThreadTimes, Told, Unit,
    WorkerSeen,
};
use crate::driven::Driven;
use crate::os::{Activity, Captured, Capturer, Doing, Miss, ThreadProbe};
use crate::registry::{Place, RuntimeId, Tag, Thread, registry};
use crate::runtime::Runtime;
use crate::slot::Poll;

/// Sees one runtime.
#[derive(Debug)]
pub(crate) struct Observer {
    clock: &'static Calibrated,
    runtime: Runtime,
    driven: Arc<Driven>,
    /// Kept open, by the number of the thread's entry.
    probes: HashMap<usize, ThreadProbe>,
}

impl Observer {
    pub(crate) fn new(clock: &'static Calibrated, runtime: Runtime, driven: Arc<Driven>) -> Self {
        Observer {
            clock,
            runtime,
            driven,
            probes: HashMap::new(),
        }
    }

    /// Fills `seen`; but for the watchdog's gap, which it cannot know.
    pub(crate) fn observe(&mut self, detector: &Detector, seen: &mut Observation) {
        self.look_at_slots(seen);
        // After the slots: a poll that is still there at the next tick was there
        // when its worker's counters were read, so they are those of that poll.
        self.runtime.look(&mut seen.workers);
        self.look_at_threads(detector, seen);
        seen.now_ns = self.clock.now_ns();
        if !self.is_multi_thread() {
            for worker in &mut seen.workers {
                worker.driven = self.driven.holds(worker, seen.now_ns);
            }
        }
    }

    pub(crate) fn is_multi_thread(&self) -> bool {
        self.runtime.is_multi_thread()
    }

    fn look_at_slots(&self, seen: &mut Observation) {
        seen.polls.clear();
        seen.finished.clear();
        registry().for_each_thread(|number, thread| {
            if let Some(finished) = thread.slot.finished()
                && let Some(poll) = self.poll(number, std::slice::from_ref(&finished.poll))
            {
                seen.finished.push(FinishedSeen {
                    poll,
                    end_ns: self.clock.ns_of(finished.end),
                });
            }
            let polls = thread.slot.polls();
            if let Some(poll) = self.poll(number, polls.as_slice()) {
                // Whether it will become a stall is not known; that it ends
                // exactly if it does costs it one look at the clock.
                thread.slot.want_end();
                seen.polls.push(poll);
            }
        });
    }

    /// The poll, if it is this runtime's, or nobody's.
    fn poll(&self, thread: usize, polls: &[Poll]) -> Option<PollSeen> {
        let outermost = polls.first()?;
        let place = Tag::unpack(outermost.stamp.tag).place;
        if place.runtime != self.runtime.id() && place.runtime != RuntimeId::default() {
            return None;
        }
        let id = PollId {
            thread,
            seq: outermost.seq,
        };
        let layers = polls.iter().map(|poll| Layer {
            label: Tag::unpack(poll.stamp.tag).label,
            start_ns: (poll.stamp.start != 0).then(|| self.clock.ns_of(poll.stamp.start)),
            task: poll.stamp.task,
            span: poll.stamp.span,
            anchor: (poll.stamp.anchor != 0).then_some(poll.stamp.anchor),
        });
        Some(PollSeen::new(id, place.worker.map(usize::from), layers))
    }

    /// The times of the threads that hold what was in progress at the last tick.
    fn look_at_threads(&mut self, detector: &Detector, seen: &mut Observation) {
        seen.times.clear();
        for (unit, thread) in detector.holds() {
            let thread = match (unit, thread) {
                (_, Some(thread)) => Some(thread),
                (Unit::Thread(thread), None) => Some(thread),
                (Unit::Worker(worker), None) => self.thread_of(worker),
            };
            if let Some(times) = thread.and_then(|thread| self.times(thread)) {
                seen.times.push((unit, times));
            }
        }
    }

    /// The thread that runs a worker, if exactly one says so.
    fn thread_of(&self, worker: usize) -> Option<usize> {
        let place = Place {
            runtime: self.runtime.id(),
            worker: u16::try_from(worker).ok(),
        };
        let mut found = None;
        let mut several = false;
        registry().for_each_thread(|number, thread: &'static Thread| {
            if thread.place() == place.pack() {
                several = found.is_some();
                found = Some(number);
            }
        });
        found.filter(|_| !several)
    }

    fn times(&mut self, number: usize) -> Option<ThreadTimes> {
        let times = self.probe(number)?.times();
        if times.is_none() {
            self.probes.remove(&number);
        }
        times
    }

    fn probe(&mut self, number: usize) -> Option<&ThreadProbe> {
        let tid = registry().thread(number)?.tid()?;
        let fits = self
            .probes
            .get(&number)
            .is_some_and(|probe| probe.tid() == tid);
        if !fits {
            self.probes.insert(number, ThreadProbe::open(tid)?);
        }
        self.probes.get(&number)
    }

    /// What the thread that a stall holds up is doing; `None` if it is not known
    /// or the stall is over. Looks so often, some 10 us each, until it is asleep.
    pub(crate) fn doing(&mut self, told: &Told, seen: &Observation, looks: usize) -> Option<Doing> {
        let thread = self.target(told, seen)?.number;
        let doing = self.probe(thread)?.doing(looks);
        // A worker that has gone on since may have parked.
        doing.filter(|_| {
            self.target(told, seen)
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
        let Some(number) = self.thread_of(worker) else {
            return (None, None);
        };
        let now = self.probe(number).and_then(ThreadProbe::activity);
        let awake = before
            .zip(now)
            .is_some_and(|(before, now)| now.has_run_since(&before));
        let still = || self.runtime.look_at(worker).same_turn(turn);
        let tid = registry().thread(number).and_then(Thread::tid);
        let captured = tid.and_then(|tid| capturer.capture(tid, None, awake, &still).ok());
        (now, captured.and_then(|captured| captured.stack.ok()))
    }

    /// What the thread that a stall holds up has done in all.
    pub(crate) fn activity(&mut self, told: &Told, seen: &Observation) -> Option<Activity> {
        let thread = self.target(told, seen)?.number;
        self.probe(thread)?.activity()
    }

    /// What the thread that a stall holds up is doing, and where it is.
    ///
    /// `None` where the thread is not known.
    pub(crate) fn capture(
        &self,
        capturer: &mut Capturer,
        told: &Told,
        seen: &Observation,
        awake: bool,
    ) -> Option<Result<Captured, Miss>> {
        let target = self.target(told, seen)?;
        let tid = registry().thread(target.number)?.tid()?;
        Some(capturer.capture(tid, target.anchor, awake, &target.still))
    }

    /// The stack that the thread of a stall that is over has left behind.
    pub(crate) fn last_words(&self, capturer: &mut Capturer, told: &Told) -> Option<Vec<u64>> {
        let number = match (told.poll, told.unit) {
            (Some(poll), _) => poll.thread,
            (None, Unit::Worker(worker)) => self.thread_of(worker)?,
            (None, Unit::Thread(_)) => return None,
        };
        let tid = registry().thread(number)?.tid()?;
        capturer.last_words(tid, told.culprit.and_then(|culprit| culprit.anchor))
    }

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
                    still: Box::new(move || self.runtime.look_at(worker).same_turn(&then)),
                })
            }
            (None, Unit::Thread(_)) => None,
        }
    }
}

/// The thread that a stall holds up.
struct Target<'a> {
    /// Of its entry in the registry.
    number: usize,
    anchor: Option<u64>,
    /// Whether the stall goes on.
    still: Box<dyn Fn() -> bool + 'a>,
}
