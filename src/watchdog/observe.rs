//! Gathers what is to be seen at one tick: slots, tokio's counters, threads.

use std::sync::Arc;

use crate::clock::Calibrated;
use crate::detector::{
    Detector, FinishedSeen, Layer, Observation, PollId, PollSeen, ThreadTimes, Unit, WorkerSeen,
};
use crate::driven::Driven;
use crate::post::Post;
use crate::probes::Probes;
use crate::registry::{Place, RuntimeId, Tag, Thread, registry};
use crate::room::room_for;
use crate::runtime::Runtime;
use crate::slot::Poll;
use crate::watchdog::account::Known;
use crate::watchdog::run_queue::RunQueues;

/// For how many polls in progress there is room from the start; more ask for memory once.
const MANY_POLLS: usize = 64;

/// Sees one runtime.
#[derive(Debug)]
pub(crate) struct Observer {
    pub(super) clock: &'static Calibrated,
    pub(super) runtime: Runtime,
    driven: Arc<Driven>,
    pub(super) probes: Probes,
    /// By worker, as of the last tick.
    pub(super) known: Vec<Option<Known>>,
    pub(super) run_queues: RunQueues,
    /// Here, so that it is given up when the thread that looks ends.
    post: Post,
}

impl Observer {
    pub(crate) fn new(clock: &'static Calibrated, runtime: Runtime, driven: Arc<Driven>) -> Self {
        let run_queues = RunQueues::new(clock, MANY_POLLS + runtime.workers());
        Observer {
            clock,
            post: Post::take(runtime.id()),
            runtime,
            driven,
            probes: Probes::default(),
            known: Vec::new(),
            run_queues,
        }
    }

    /// Memory for what is seen, which is there before the first look.
    pub(crate) fn room(&self) -> Observation {
        let workers = self.runtime.workers();
        let polls = MANY_POLLS.max(2 * workers);
        let mut seen = Observation {
            workers: vec![WorkerSeen::default(); workers],
            polls: vec![PollSeen::default(); polls],
            finished: room_for(polls),
            times: room_for(polls + workers),
            accounts: vec![None; workers],
            queued: room_for(polls + workers),
            ..Observation::default()
        };
        // Written once, so that their pages are there, and empty all the same.
        seen.workers.clear();
        seen.polls.clear();
        seen.accounts.clear();
        seen
    }

    /// Fills `seen`, which still holds what was seen last; but for standstills, of which
    /// it knows nothing. It was to look at `planned_ns`, if that was planned.
    pub(crate) fn observe(
        &mut self,
        detector: &Detector,
        planned_ns: Option<u64>,
        seen: &mut Observation,
    ) {
        self.look_at_slots(detector, seen);
        self.probes.forget_ended();
        // After the slots: a poll that is still there at the next tick was there
        // when its worker's counters were read, so they are those of that poll.
        self.runtime.look(&mut seen.workers);
        seen.is_vacant = self.runtime.is_vacant();
        // Before the kernel is asked: that takes longer than all the rest, and were this
        // thread held up in it, everything would seem to have gone on for as long.
        let last_ns = std::mem::replace(&mut seen.now_ns, self.clock.now_ns());
        self.run_queues.begin(seen.now_ns);
        self.look_at_threads(detector, seen);
        self.look_for_contention(planned_ns, seen);
        self.look_at_workers(detector, seen, last_ns);
        self.look_at_run_queues(seen);
        if !self.is_multi_thread() {
            for worker in &mut seen.workers {
                worker.driven = self.driven.holds(worker, seen.now_ns);
            }
        }
    }

    pub(crate) fn is_multi_thread(&self) -> bool {
        self.runtime.is_multi_thread()
    }

    fn look_at_slots(&self, detector: &Detector, seen: &mut Observation) {
        seen.finished.clear();
        seen.finished.extend(detector.polls().filter_map(|poll| {
            let end = registry().thread(poll.thread)?.slot.end_of(poll.seq)?;
            Some(FinishedSeen {
                poll,
                end_ns: self.clock.ns_of(end),
            })
        }));
        seen.polls.clear();
        registry().for_each_thread(|number, thread| {
            let polls = thread.slot.polls();
            if let Some(poll) = self.poll(number, thread, polls.as_slice()) {
                // Whether it will become a stall is not known; that it ends
                // exactly if it does costs it one look at the clock.
                thread.slot.want_end();
                seen.polls.push(poll);
            }
        });
    }

    /// The poll, if it is for this watchdog to tell of it.
    fn poll(&self, number: usize, thread: &Thread, polls: &[Poll]) -> Option<PollSeen> {
        let (outermost, inner) = polls.split_first()?;
        let place = Tag::unpack(outermost.stamp.tag).place;
        if !self.tells_of(place, thread) {
            return None;
        }
        let is_own = place.runtime == self.runtime.id();
        let id = PollId {
            thread: number,
            seq: outermost.seq,
        };
        let layer = |poll: &Poll| Layer {
            label: Tag::unpack(poll.stamp.tag).label,
            start_ns: (poll.stamp.start != 0).then(|| self.clock.ns_of(poll.stamp.start)),
            task: poll.stamp.task,
            span: poll.stamp.span,
            anchor: (poll.stamp.anchor != 0).then_some(poll.stamp.anchor),
        };
        Some(PollSeen {
            id,
            // Elsewhere it is a thread that is held up: its workers are not looked at.
            worker: place.worker.filter(|_| is_own).map(usize::from),
            outermost: layer(outermost),
            inner: inner.iter().map(layer).collect(),
        })
    }

    /// The times of the threads that still hold what was in progress at the last tick,
    /// or a poll that is old already.
    ///
    /// Only those: asking the kernel costs more than all the rest of a look, and of
    /// a busy worker each look sees another turn.
    fn look_at_threads(&mut self, detector: &Detector, seen: &mut Observation) {
        let mut times = std::mem::take(&mut seen.times);
        times.clear();
        for (unit, thread, matters) in detector.still_holds(seen) {
            let thread = match (unit, thread) {
                (_, Some(thread)) => Some(thread),
                (Unit::Thread(thread), None) => Some(thread),
                (Unit::Worker(worker), None) => self.runtime.thread_of(worker),
            };
            // To open files for one reading takes three times as long.
            if matters || thread.is_some_and(|thread| self.probes.is_kept(thread)) {
                self.ask(unit, thread, &mut times);
            }
        }
        for poll in &seen.polls {
            let unit = match poll.worker {
                Some(worker) if worker < seen.workers.len() => Unit::Worker(worker),
                _ => Unit::Thread(poll.id.thread),
            };
            let age_ns = |start_ns: u64| seen.now_ns.saturating_sub(start_ns);
            let is_old = |start_ns| detector.is_old(age_ns(start_ns));
            let is_cheap = self.probes.is_kept(poll.id.thread);
            if poll.start_ns().is_some_and(is_old)
                && (is_cheap || detector.polls().all(|known| known != poll.id))
            {
                self.ask(unit, Some(poll.id.thread), &mut times);
            }
        }
        seen.times = times;
    }

    /// Asks the kernel about the thread of a unit, unless that is done already.
    pub(super) fn ask(
        &mut self,
        unit: Unit,
        thread: Option<usize>,
        times: &mut Vec<(Unit, ThreadTimes)>,
    ) {
        if times.iter().all(|(known, _)| *known != unit)
            && let Some(thread) = thread
            && let Some(of_thread) = self.times(thread)
        {
            let wait_ns = of_thread.spent.wait_ns;
            self.run_queues.read(unit, thread, wait_ns);
            times.push((unit, of_thread));
        }
    }

    /// Whether the hooks of parking will tell when the next turn begins, nothing is
    /// in progress, and no watched future can be polled unless one begins.
    pub(crate) fn is_idle(&self, seen: &Observation) -> bool {
        !seen.workers.is_empty()
            && seen.workers.iter().all(|worker| worker.parked)
            && seen.polls.is_empty()
            && (0..seen.workers.len()).all(|worker| self.is_hooked(worker))
            && !self.polls_apart()
    }

    fn polls_apart(&self) -> bool {
        let mut apart = false;
        registry().for_each_thread(|_, thread| {
            let place = Place::unpack(thread.place());
            // Of its own workers the hooks tell.
            let is_own_worker = place.runtime == self.runtime.id() && place.worker.is_some();
            apart |= thread.polls_apart() && !is_own_worker && self.tells_of(place, thread);
        });
        apart
    }

    /// Whether it is for this watchdog to tell of what is polled there.
    ///
    /// A worker of another multi-thread runtime may have been handed over by
    /// `block_in_place`, which holds nobody up. Only that runtime's counters show it.
    fn tells_of(&self, place: Place, thread: &Thread) -> bool {
        let is_own = place.runtime == self.runtime.id();
        is_own || !thread.may_hand_over() && self.post.tells_of(place.runtime)
    }

    /// Whether what is polled there is this runtime's, or nobody's.
    pub(super) fn may_poll(&self, place: Place) -> bool {
        place.runtime == self.runtime.id() || place.runtime == RuntimeId::default()
    }

    /// Whether a worker has woken, or some thread polls apart, since `seen`.
    pub(crate) fn is_still_idle(&self, seen: &Observation) -> bool {
        self.runtime.parks() == seen.parks() && !self.polls_apart()
    }

    pub(crate) const fn runtime(&self) -> RuntimeId {
        self.runtime.id()
    }

    fn times(&mut self, number: usize) -> Option<ThreadTimes> {
        let Some(times) = self.probes.of(number).ok()?.times() else {
            self.probes.forget(number);
            return None;
        };
        Some(ThreadTimes {
            polls: registry().thread(number)?.slot.begun(),
            ..times
        })
    }
}
