//! Gathers what is to be seen at one tick: slots, tokio's counters, threads.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::Calibrated;
use crate::detector::{
    Detector, FinishedSeen, Layer, Observation, PollId, PollSeen, ThreadState, ThreadTimes, Unit,
};
use crate::driven::Driven;
use crate::os::{Spent, ThreadProbe};
use crate::registry::{Place, RuntimeId, Tag, Thread, are_hooks_used, registry};
use crate::runtime::Runtime;
use crate::slot::Poll;

/// Sees one runtime.
#[derive(Debug)]
pub(crate) struct Observer {
    clock: &'static Calibrated,
    pub(super) runtime: Runtime,
    driven: Arc<Driven>,
    /// Kept open, by the number of the thread's entry.
    probes: HashMap<usize, ThreadProbe>,
    /// By worker: the thread whose hooks tell of it, and what that had spent at the
    /// last tick.
    hooked: Vec<Option<(usize, Option<Spent>)>>,
}

/// Of more workers it would cost too much to ask each thread at each tick.
const MANY_WORKERS: usize = 16;

impl Observer {
    pub(crate) fn new(clock: &'static Calibrated, runtime: Runtime, driven: Arc<Driven>) -> Self {
        Observer {
            clock,
            runtime,
            driven,
            probes: HashMap::new(),
            hooked: Vec::new(),
        }
    }

    /// Fills `seen`; but for the watchdog's gap, which it cannot know.
    pub(crate) fn observe(&mut self, detector: &Detector, seen: &mut Observation) {
        self.look_at_slots(detector, seen);
        // After the slots: a poll that is still there at the next tick was there
        // when its worker's counters were read, so they are those of that poll.
        self.runtime.look(&mut seen.workers);
        self.look_at_threads(detector, seen);
        self.look_at_hooked(detector, seen);
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
        let (outermost, inner) = polls.split_first()?;
        let place = Tag::unpack(outermost.stamp.tag).place;
        if place.runtime != self.runtime.id() && place.runtime != RuntimeId::default() {
            return None;
        }
        let id = PollId {
            thread,
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
            worker: place.worker.map(usize::from),
            outermost: layer(outermost),
            inner: inner.iter().map(layer).collect(),
        })
    }

    /// The times of the threads that still hold what was in progress at the last tick.
    ///
    /// Only those: asking the kernel costs more than all the rest of a look, and of
    /// a busy worker each look sees another turn.
    fn look_at_threads(&mut self, detector: &Detector, seen: &mut Observation) {
        let mut times = std::mem::take(&mut seen.times);
        times.clear();
        for (unit, thread) in detector.still_holds(seen) {
            let thread = match (unit, thread) {
                (_, Some(thread)) => Some(thread),
                (Unit::Thread(thread), None) => Some(thread),
                (Unit::Worker(worker), None) => self.thread_of(worker),
            };
            if let Some(of_thread) = thread.and_then(|thread| self.times(thread)) {
                times.push((unit, of_thread));
            }
        }
        seen.times = times;
    }

    /// When the turns in progress began, at the latest, and how long their threads have
    /// waited for a CPU since the last tick.
    ///
    /// The first turn after a worker woke began when it did. A later one, if it woke since
    /// the last tick, has all of the time in which its thread slept and which is not of
    /// the turns before: between two turns tokio takes in events without waiting for any
    /// (1.54, `multi_thread/worker.rs`, `Context::park_yield`).
    fn look_at_hooked(&mut self, detector: &Detector, seen: &mut Observation) {
        seen.waits_ns.clear();
        if !are_hooks_used() || seen.workers.len() > MANY_WORKERS {
            return;
        }
        self.hooked.resize(seen.workers.len(), None);
        // Not yet that of this look.
        let last_ns = seen.now_ns;
        for (index, worker) in seen.workers.iter_mut().enumerate() {
            let before = self.hooked.get(index).copied().flatten();
            let number = self.hooked_thread(index, before.map(|(number, _)| number));
            let spent = number.and_then(|number| self.probe(number)?.spent());
            let before = before
                .filter(|(thread, _)| Some(*thread) == number)
                .and_then(|(_, spent)| spent);
            let waited_ns = before
                .zip(spent)
                .map(|(before, now)| now.wait_ns.saturating_sub(before.wait_ns));
            if let Some(hooked) = self.hooked.get_mut(index) {
                *hooked = number.map(|number| (number, spent));
            }
            let awake = number.and_then(|number| {
                let parking = registry().thread(number)?.parking();
                parking.awake_since(worker.busy_ns)
            });
            worker.began_ns = awake.and_then(|(woke, worked_ns)| {
                let woke_ns = self.clock.ns_of(woke);
                if worked_ns == 0 {
                    return Some(woke_ns);
                }
                let cpu_ns = self.probe(number?)?.cpu_ns()?;
                let ran_ns = cpu_ns.saturating_sub(before?.cpu_ns);
                let is_new = woke_ns >= last_ns;
                is_new.then_some(woke_ns + worked_ns + ran_ns + waited_ns?)
            });
            // Of one that waits now, that wait is not in what the kernel tells.
            let is_old = worker.began_ns.is_some_and(|began_ns| {
                self.clock.now_ns().saturating_sub(began_ns) >= detector.monitor_ns() / 2
            });
            let waits = is_old && number.is_some_and(|number| self.waits_for_cpu(number));
            seen.waits_ns.push(waited_ns.filter(|_| !waits));
        }
    }

    /// The thread whose hooks tell of this worker, most likely the one that did before.
    fn hooked_thread(&self, worker: usize, before: Option<usize>) -> Option<usize> {
        let is_hooked = |number: &usize| self.is_hooked(*number, worker);
        let other = || self.thread_of(worker).filter(is_hooked);
        before.filter(is_hooked).or_else(other)
    }

    fn waits_for_cpu(&mut self, number: usize) -> bool {
        let times = self.probe(number).and_then(ThreadProbe::times);
        times.is_some_and(|times| times.state == ThreadState::Queued)
    }

    /// Whether this thread runs this worker, and hooks are called on it.
    fn is_hooked(&self, number: usize, worker: usize) -> bool {
        let place = self.place_of(worker).pack();
        registry()
            .thread(number)
            .is_some_and(|thread| thread.place() == place && thread.parking().is_hooked(place))
    }

    /// Whether the hooks of parking will tell when the next turn begins, nothing is
    /// in progress, and no watched future can be polled unless one begins.
    pub(crate) fn is_idle(&self, seen: &Observation) -> bool {
        !self.hooked.is_empty()
            && self.hooked.len() == seen.workers.len()
            && self.hooked.iter().all(Option::is_some)
            && seen.workers.iter().all(|worker| worker.parked)
            && seen.polls.is_empty()
            && !self.polls_apart()
    }

    fn polls_apart(&self) -> bool {
        let mut apart = false;
        registry().for_each_thread(|_, thread| {
            let runtime = Place::unpack(thread.place()).runtime;
            apart |= thread.polls_apart()
                && (runtime == self.runtime.id() || runtime == RuntimeId::default());
        });
        apart
    }

    /// Whether a worker has woken, or some thread polls apart, since `seen`.
    pub(crate) fn is_still_idle(&self, seen: &Observation) -> bool {
        self.runtime.parks() == seen.parks() && !self.polls_apart()
    }

    pub(crate) const fn runtime(&self) -> RuntimeId {
        self.runtime.id()
    }

    fn place_of(&self, worker: usize) -> Place {
        Place {
            runtime: self.runtime.id(),
            worker: u16::try_from(worker).ok(),
        }
    }

    /// The thread that runs a worker, if exactly one says so.
    pub(super) fn thread_of(&self, worker: usize) -> Option<usize> {
        let place = self.place_of(worker);
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
        let Some(times) = self.probe(number)?.times() else {
            self.probes.remove(&number);
            return None;
        };
        Some(ThreadTimes {
            polls: registry().thread(number)?.slot.begun(),
            ..times
        })
    }

    pub(super) fn probe(&mut self, number: usize) -> Option<&ThreadProbe> {
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
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::clock::calibrate;
    use crate::runtime::Gone;
    use crate::severity::Thresholds;
    use crate::watchdog::Watchdog;
    use std::sync::mpsc::channel;
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    #[test]
    fn a_sleep_in_a_later_turn_than_the_first_is_dated() {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        // Each poll is a turn of its own.
        builder.worker_threads(1).event_interval(1);
        drop(Watchdog::builder().install(&mut builder));
        let runtime = builder.build().unwrap();
        let clock = calibrate();
        let watched = Runtime::new(runtime.handle(), Gone::default());
        let mut observer = Observer::new(clock, watched, Arc::default());
        let detector = Detector::new(Thresholds::default(), clock.now_ns());
        let mut seen = Observation::default();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !observer.is_idle(&seen) || seen.waits_ns != [Some(0)] {
            assert!(Instant::now() < deadline, "{seen:?}");
            sleep(Duration::from_millis(1));
            observer.observe(&detector, &mut seen);
        }

        let spawned_ns = clock.now_ns();
        let (send, receive) = channel();
        runtime.spawn(async move {
            let start = Instant::now();
            while start.elapsed() < Duration::from_micros(200) {}
            tokio::task::yield_now().await;
            send.send(()).unwrap();
            sleep(Duration::from_millis(200));
        });
        receive.recv().unwrap();
        sleep(Duration::from_millis(100));
        observer.observe(&detector, &mut seen);
        let began_ns = seen.workers[0].began_ns.unwrap();
        assert!(began_ns >= spawned_ns + 200_000);
        assert!(seen.now_ns - began_ns >= 50_000_000, "{seen:?}");
    }
}
