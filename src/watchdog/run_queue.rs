//! For how long threads have waited for a CPU, from one reading to the next.

use crate::clock::Calibrated;
use crate::detector::{Observation, Queued, Reading, ThreadState, ThreadTimes, Unit};
use crate::registry::{MAX_THREADS, Place, Thread, registry};
use crate::room::room_for;
use crate::watchdog::observe::Observer;

/// For how long the threads of a runtime are read at each look once there is a sign that
/// somebody waits for a CPU: what is young now may have to be excused then. At all times
/// that would double what the watchdog costs.
const CONTENDED_NS: u64 = 1_000_000_000;

/// Who looks later than this has waited for a CPU. The kernel fires timers late by 50 us.
const LATE_NS: u64 = 500_000;

/// How many threads are read at one look besides those of few workers.
const MANY_READINGS: usize = 16;

/// The last reading of a thread.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    /// The operating system's id of the thread; 0 for none.
    tid: i32,
    reading: Reading,
}

/// The last readings of all threads, and those of this look.
#[derive(Debug)]
pub(super) struct RunQueues {
    clock: &'static Calibrated,
    /// When the look began that goes on.
    now_ns: u64,
    /// By number.
    last: Vec<Last>,
    /// From then and until then all threads are read.
    contended_since_ns: u64,
    contended_until_ns: u64,
    /// Which one is to be read next.
    next: usize,
    /// Those of this look.
    queued: Vec<(Unit, Queued)>,
}

impl RunQueues {
    /// As a runtime begins to be watched, other threads begin to run, and nothing has been
    /// read before.
    pub(super) fn new(clock: &'static Calibrated, units: usize) -> Self {
        let mut last = room_for(MAX_THREADS);
        last.resize(MAX_THREADS, Last::default());
        let now_ns = clock.now_ns();
        RunQueues {
            clock,
            now_ns,
            last,
            contended_since_ns: now_ns,
            contended_until_ns: now_ns.saturating_add(CONTENDED_NS),
            next: 0,
            queued: room_for(units + MANY_READINGS),
        }
    }

    /// A look begins, after all that holds anything up has been seen.
    pub(super) fn begin(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        self.queued.clear();
    }

    pub(super) const fn is_contended(&self) -> bool {
        self.now_ns < self.contended_until_ns
    }

    /// At this look there is a sign that somebody waits for a CPU.
    fn note_contention(&mut self) {
        if !self.is_contended() {
            self.contended_since_ns = self.now_ns;
        }
        self.contended_until_ns = self.now_ns.saturating_add(CONTENDED_NS);
    }

    /// Whether the thread of a unit has been read at this look.
    fn has_read(&self, unit: Unit) -> bool {
        self.queued.iter().any(|(known, _)| *known == unit)
    }

    /// Takes in that the thread of a unit has waited for so long in all its life.
    pub(super) fn read(&mut self, unit: Unit, thread: usize, wait_ns: u64) {
        let tid = registry().thread(thread).and_then(|thread| thread.tid());
        let (Some(last), Some(tid)) = (self.last.get_mut(thread), tid) else {
            return;
        };
        let before = *last;
        let now = Reading {
            at_ns: self.now_ns,
            wait_ns,
        };
        // What has begun since this look is held against a reading from before it began.
        let took_ns = self.clock.now_ns().saturating_sub(self.now_ns);
        if took_ns <= LATE_NS || before.tid != tid {
            *last = Last { tid, reading: now };
        }
        if self.has_read(unit) {
            return;
        }
        // One from before somebody waited for CPUs can be of long ago: all that the thread has
        // waited since would be excused of what has just begun, and each stall come late.
        let is_recent = self.is_contended() && before.reading.at_ns >= self.contended_since_ns;
        let is_known = before.tid == tid && is_recent;
        let queued = Queued {
            thread,
            before: is_known.then_some(before.reading),
            now,
        };
        self.queued.push((unit, queued));
    }
}

impl Observer {
    /// Whether the threads of the runtime are to be read at this look.
    pub(super) fn look_for_contention(&mut self, planned_ns: Option<u64>, seen: &Observation) {
        let is_late = planned_ns.is_some_and(|planned_ns| seen.now_ns > planned_ns + LATE_NS);
        let is_queued = |(_, times): &(Unit, ThreadTimes)| times.state == ThreadState::Queued;
        if is_late || seen.times.iter().any(is_queued) {
            self.run_queues.note_contention();
        }
    }

    /// Reads some more of the threads that may hold something up, each in its turn.
    pub(super) fn look_at_run_queues(&mut self, seen: &mut Observation) {
        if self.run_queues.is_contended() {
            let (mut left, from) = (MANY_READINGS, self.run_queues.next);
            for numbers in [from..usize::MAX, 0..from] {
                registry().for_each_thread(|number, thread| {
                    if left > 0
                        && numbers.contains(&number)
                        && let Some(unit) = self.unit_of(number, thread)
                        && !self.run_queues.has_read(unit)
                        && let Ok(probe) = self.probes.of(number)
                        && let Some(wait_ns) = probe.wait_ns()
                    {
                        self.run_queues.read(unit, number, wait_ns);
                        self.run_queues.next = number + 1;
                        left -= 1;
                    }
                });
            }
        }
        std::mem::swap(&mut seen.queued, &mut self.run_queues.queued);
    }

    /// What a thread can hold up of this runtime.
    fn unit_of(&self, number: usize, thread: &Thread) -> Option<Unit> {
        let place = Place::unpack(thread.place());
        match place.worker {
            Some(worker) if place.runtime == self.runtime() => {
                Some(Unit::Worker(usize::from(worker)))
            }
            None if thread.polls_apart() && self.may_poll(place) => Some(Unit::Thread(number)),
            _ => None,
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::sync::Arc;
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::clock::calibrate;
    use crate::detector::Detector;
    use crate::runtime::{Gone, Runtime};
    use crate::severity::Thresholds;
    use crate::{local, rollcall};

    const UNIT: Unit = Unit::Worker(3);

    /// The number of the calling thread.
    #[allow(clippy::unwrap_used)]
    fn this_thread() -> usize {
        let this = local::this_thread().unwrap();
        let mut number = None;
        registry().for_each_thread(|at, thread| {
            if std::ptr::eq(thread, this) {
                number = Some(at);
            }
        });
        number.unwrap()
    }

    #[test]
    fn a_reading_comes_with_the_one_before() {
        let clock = calibrate();
        let thread = this_thread();
        let mut queues = RunQueues::new(clock, 1);
        // (since the look before, how long it had waited, whether there is a sign of
        // contention) -> by the reading before
        let table = [
            (0, 70, true, None),
            (5_000_000, 75, false, Some(70)),
            (5_000_000, 80, true, Some(75)),
            (CONTENDED_NS - 1, 90, false, Some(80)),
            // Nobody waits, for all that is known.
            (5_000_000, 95, false, None),
            (5_000_000, 97, true, None),
            (5_000_000, 98, true, Some(97)),
        ];
        // Far enough ahead that no look is late.
        let mut now_ns = clock.now_ns() + 3_600_000_000_000;
        let mut last_ns = 0;
        queues.contended_until_ns = 0;
        for (later_ns, wait_ns, is_sign, before_ns) in table {
            now_ns += later_ns;
            queues.begin(now_ns);
            if is_sign {
                queues.note_contention();
            }
            queues.read(UNIT, thread, wait_ns);
            queues.read(UNIT, thread, wait_ns + 1_000);
            let at = |at_ns, wait_ns| Reading { at_ns, wait_ns };
            let queued = Queued {
                thread,
                before: before_ns.map(|before_ns| at(last_ns, before_ns)),
                now: at(now_ns, wait_ns),
            };
            assert_eq!(queues.queued, [(UNIT, queued)]);
            // Else the second reading would be the one before.
            queues.last[thread].reading.wait_ns = wait_ns;
            last_ns = now_ns;
        }
    }

    #[test]
    fn what_is_read_long_after_a_look_is_not_from_before_what_begins_since() {
        let clock = calibrate();
        let thread = this_thread();
        let mut queues = RunQueues::new(clock, 1);
        queues.contended_until_ns = u64::MAX;
        queues.begin(clock.now_ns() + 3_600_000_000_000);
        queues.read(UNIT, thread, 70);
        // Its origin may be just now.
        sleep(Duration::from_millis(2));
        // The look was at that time, and only now is the thread read.
        queues.begin(clock.now_ns() - 2 * LATE_NS);
        queues.read(UNIT, thread, 90);
        queues.begin(clock.now_ns());
        queues.read(UNIT, thread, 95);
        assert_eq!(queues.queued[0].1.before.unwrap().wait_ns, 70);
    }

    #[test]
    fn of_many_workers_each_is_read_in_its_turn() {
        let workers = 3 * MANY_READINGS;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .build()
            .unwrap();
        let clock = calibrate();
        let watched = Runtime::new(runtime.handle(), Gone::default());
        let mut observer = Observer::new(clock, watched, Arc::default());
        let detector = Detector::new(Thresholds::default(), clock.now_ns());
        let mut seen = observer.room();
        let mut read = vec![false; workers];
        let deadline = Instant::now() + Duration::from_secs(20);
        while read.contains(&false) {
            assert!(Instant::now() < deadline, "{read:?}");
            rollcall::call(runtime.handle(), workers);
            sleep(Duration::from_millis(5));
            // A look that is late, as somebody has the CPUs.
            observer.observe(&detector, Some(clock.now_ns() - 2 * LATE_NS), &mut seen);
            assert!(seen.queued.len() <= MANY_READINGS);
            for (unit, _) in &seen.queued {
                let Unit::Worker(worker) = unit else { continue };
                read[*worker] = true;
            }
        }
        // Nobody waits, for all that is known.
        observer.run_queues.contended_until_ns = 0;
        observer.observe(&detector, None, &mut seen);
        assert_eq!(seen.queued, []);
    }
}
