//! Whether the whole process stood still, or only the watchdog was late.
//!
//! Time in which the whole process stood still is nobody's stall: it was stopped, or its
//! machine was asleep or paused. That the watchdog is late does not show it: the
//! watchdog alone may have waited, for a CPU or for memory, while others went on.

use crate::detector::{ThreadState, ThreadTimes, Unit};
use crate::os::{self, Importance, ProcessClocks, ThreadProbe};
use crate::room::room_for;

/// What is shorter is no standstill, however short the tick is: the kernel fires timers
/// late by 50 us as a rule (`PR_GET_TIMERSLACK` in prctl(2)) and wakes threads later still.
const MIN_STANDSTILL_NS: u64 = 1_000_000;

/// What is known of the time in which the watchdog was late.
#[derive(Clone, Copy, Debug, Default)]
struct Evidence {
    late_ns: u64,
    /// Of that, how long the watchdog waited for a CPU.
    waited_ns: u64,
    /// CPU time of the process since the watchdog last looked.
    cpu_ns: u64,
    /// How much of that may have been before the watchdog was late.
    earlier_ns: u64,
    /// How often the watchdog's thread was given a CPU since.
    runs: Option<u64>,
    /// How many pages the watchdog's thread had to wait for, or to copy.
    faults: u64,
    /// For how long the machine was suspended.
    suspended_ns: u64,
    /// Threads that slept in a poll or turn before and after: those that were woken in
    /// between, and those that slept on.
    woken: usize,
    slept_on: usize,
}

/// For how long the process stood still, by the evidence; 0 if it did not.
///
/// A stop, a freezer and a suspend wake every thread that sleeps, to stop it (kernel
/// 6.18, `kernel/signal.c`, `do_signal_stop` and `signal_wake_up`; `kernel/freezer.c`).
/// A machine that is paused wakes nobody, and what was on its CPUs seems to have computed:
/// but then the watchdog has slept once, until its timer, and done nothing else, and was
/// woken late although no other thread had the CPU before it.
///
/// A watchdog that had to wait for a page was held up alone, as by a fork: one of many
/// gigabytes takes long, and computes for little of that time on a busy machine. The looks
/// of a watchdog need no page otherwise.
fn standstill_ns(evidence: &Evidence, tolerance_ns: u64) -> u64 {
    let still_ns = evidence.late_ns.saturating_sub(evidence.waited_ns);
    if still_ns <= tolerance_ns {
        return 0;
    }
    let only_overslept = evidence.runs.is_some_and(|runs| runs <= 1);
    if evidence.suspended_ns > tolerance_ns || only_overslept {
        return still_ns;
    }
    let computed = evidence.cpu_ns > evidence.earlier_ns + still_ns / 4;
    let alone = evidence.woken == 0 && (evidence.slept_on > 0 || evidence.faults > 0);
    if computed || alone { 0 } else { still_ns }
}

/// What the watchdog's thread knows of its own lateness.
#[derive(Debug)]
pub(crate) struct Lateness {
    own: Option<ThreadProbe>,
    /// What is later than this may have stood still.
    tolerance_ns: u64,
    cpus: u64,
    /// How long the thread had waited for a CPU when that was last read.
    had_waited_ns: u64,
    /// How much of that it may have waited since, at most.
    unsure_ns: u64,
    /// As it was at a look not long ago.
    before: Baseline,
    /// What the threads of polls and turns in progress had done at the last look.
    times: Vec<(Unit, ThreadTimes)>,
}

/// Why a look is late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Late {
    /// For how long the process stood still.
    pub(crate) standstill_ns: u64,
    /// For how long the thread that looks waited for a CPU.
    pub(crate) waited_ns: u64,
}

/// For how many waits a baseline serves: to take one costs as much as a fifth of a look.
const BASELINE_WAITS: u64 = 4;

/// What a late look is compared with.
#[derive(Clone, Copy, Debug, Default)]
struct Baseline {
    at_ns: u64,
    clocks: ProcessClocks,
    /// How often the watchdog's thread had been given a CPU.
    runs: Option<u64>,
    faults: u64,
    /// How often the thread has begun to wait since; 0 where a new one is to be taken.
    waits: u64,
}

impl Lateness {
    /// For the calling thread.
    pub(crate) fn new(tolerance_ns: u64) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Lateness {
            own: None,
            tolerance_ns: tolerance_ns.max(MIN_STANDSTILL_NS),
            cpus: cpus as u64,
            had_waited_ns: 0,
            unsure_ns: 0,
            before: Baseline::default(),
            times: room_for(64),
        }
    }

    /// To be called by the thread that looks, whose lateness it is, before its first look.
    pub(crate) fn begin(&mut self, importance: Importance) {
        self.own = ThreadProbe::open(os::thread_id(), importance).ok();
        self.read_run_queue_wait();
    }

    /// To be called when a look is done, before the wait for the next.
    pub(crate) fn begin_wait(&mut self, looked_ns: u64, times: &[(Unit, ThreadTimes)]) {
        if self.before.waits.is_multiple_of(BASELINE_WAITS) {
            self.before = Baseline {
                at_ns: looked_ns,
                clocks: ProcessClocks::now(),
                runs: self.own_runs(),
                faults: os::page_faults(),
                waits: 0,
            };
        }
        self.before.waits += 1;
        self.times.clear();
        self.times.extend_from_slice(times);
    }

    /// Why this look, which was planned for `planned_ns`, is late, if it is by much; `None`
    /// if it was not planned.
    pub(crate) fn look(
        &mut self,
        planned_ns: Option<u64>,
        now_ns: u64,
        times: &[(Unit, ThreadTimes)],
    ) -> Late {
        let Some(planned_ns) = planned_ns else {
            // It was woken, whenever that was.
            self.before.waits = 0;
            self.read_run_queue_wait();
            return Late::default();
        };
        let late_ns = now_ns.saturating_sub(planned_ns);
        if late_ns <= self.tolerance_ns {
            self.may_have_waited(late_ns);
            return Late::default();
        }
        let now = ProcessClocks::now();
        let Baseline {
            at_ns,
            clocks,
            runs,
            faults,
            waits,
        } = self.before;
        let earlier_ns = planned_ns.saturating_sub(at_ns);
        // All but the last wait have ended as they should, each with one run.
        let runs = runs.map(|runs| runs + waits.saturating_sub(1));
        let (woken, slept_on) = self.sleepers(times);
        let evidence = Evidence {
            late_ns,
            waited_ns: self.read_run_queue_wait(),
            cpu_ns: now.cpu_ns.saturating_sub(clocks.cpu_ns),
            earlier_ns: earlier_ns.saturating_mul(self.cpus),
            runs: self
                .own_runs()
                .zip(runs)
                .map(|(now, before)| now.saturating_sub(before)),
            faults: os::page_faults().saturating_sub(faults),
            suspended_ns: now.suspended_ns.saturating_sub(clocks.suspended_ns),
            woken,
            slept_on,
        };
        Late {
            standstill_ns: standstill_ns(&evidence, self.tolerance_ns),
            // Of other waits nothing is known but that they were over by the last look.
            waited_ns: evidence.waited_ns.min(late_ns),
        }
    }

    /// How often the thread has been given a CPU. After a wait for its timer alone that is
    /// once more; where it had to wait for something else, such as a page, more often.
    fn own_runs(&self) -> Option<u64> {
        let spent = self.own.as_ref()?.spent()?;
        // A kernel without statistics has 0.
        Some(spent.runs).filter(|runs| *runs > 0)
    }

    /// How many of the threads that slept were woken, and how many slept on.
    fn sleepers(&self, times: &[(Unit, ThreadTimes)]) -> (usize, usize) {
        let mut counts = (0, 0);
        let asleep = |(_, times): &&(Unit, ThreadTimes)| times.state == ThreadState::Off;
        for (unit, before) in self.times.iter().filter(asleep) {
            match times.iter().find(|(now, _)| now == unit) {
                Some((_, now)) if now.spent.runs == before.spent.runs => counts.1 += 1,
                _ => counts.0 += 1,
            }
        }
        counts
    }

    /// It has waited for a CPU for no longer than this since that was last read, or was
    /// late.
    pub(crate) fn may_have_waited(&mut self, ns: u64) {
        self.unsure_ns = self.unsure_ns.saturating_add(ns);
        if self.unsure_ns > self.tolerance_ns / 4 {
            self.read_run_queue_wait();
        }
    }

    /// How long the thread has waited for a CPU since this was last read.
    fn read_run_queue_wait(&mut self) -> u64 {
        let now_ns = self.own.as_ref().and_then(ThreadProbe::wait_ns);
        let now_ns = now_ns.unwrap_or(0);
        self.unsure_ns = 0;
        now_ns.saturating_sub(std::mem::replace(&mut self.had_waited_ns, now_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(tolerance_ns: u64) -> Lateness {
        let mut lateness = Lateness::new(tolerance_ns);
        lateness.begin(Importance::Worker);
        lateness
    }

    const MS: u64 = 1_000_000;

    /// Late by 3 s, with nothing that speaks for or against a standstill.
    const LATE: Evidence = Evidence {
        late_ns: 3_000 * MS,
        waited_ns: 0,
        cpu_ns: 8 * MS,
        earlier_ns: 10 * MS,
        runs: Some(2),
        faults: 0,
        suspended_ns: 0,
        woken: 0,
        slept_on: 0,
    };

    #[test]
    fn only_what_held_up_everybody_is_a_standstill() {
        let table = [
            ("nobody did anything", LATE, 3_000),
            (
                "a little late",
                Evidence {
                    late_ns: 5 * MS,
                    ..LATE
                },
                0,
            ),
            (
                "it waited for a CPU",
                Evidence {
                    waited_ns: 2_996 * MS,
                    ..LATE
                },
                0,
            ),
            (
                "for a third of the time",
                Evidence {
                    waited_ns: 1_000 * MS,
                    ..LATE
                },
                2_000,
            ),
            (
                "others computed",
                Evidence {
                    cpu_ns: 2_900 * MS,
                    ..LATE
                },
                0,
            ),
            (
                "others slept on",
                Evidence {
                    slept_on: 1,
                    ..LATE
                },
                0,
            ),
            ("it waited for a page", Evidence { faults: 1, ..LATE }, 0),
            (
                "it needed a page, and all were stopped",
                Evidence {
                    faults: 1,
                    woken: 1,
                    ..LATE
                },
                3_000,
            ),
            (
                "others were woken, to be stopped",
                Evidence {
                    woken: 2,
                    slept_on: 1,
                    ..LATE
                },
                3_000,
            ),
            (
                "the machine was paused",
                Evidence {
                    runs: Some(1),
                    slept_on: 3,
                    ..LATE
                },
                3_000,
            ),
            (
                "suspended",
                Evidence {
                    suspended_ns: 3_000 * MS,
                    slept_on: 1,
                    ..LATE
                },
                3_000,
            ),
        ];
        for (what, evidence, expected_ms) in table {
            assert_eq!(standstill_ns(&evidence, 5 * MS), expected_ms * MS, "{what}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn who_waits_for_a_page_is_late_alone() {
        // So much that no allocator has it ready: its pages are not there yet.
        let mut fresh = vec![0_u8; 64 << 20];
        let mut lateness = begun(5 * MS);
        lateness.begin_wait(0, &[]);
        // It sleeps twice, as a thread does that is stopped, or that waits for a page.
        std::thread::sleep(std::time::Duration::from_millis(2));
        std::hint::black_box(&mut fresh)[1 << 20] = 1;
        std::thread::sleep(std::time::Duration::from_millis(2));
        let late = lateness.look(Some(5 * MS), 10_005 * MS, &[]);
        assert_eq!(late.standstill_ns, 0);
    }

    fn times(state: ThreadState, runs: u64) -> ThreadTimes {
        ThreadTimes {
            spent: crate::detector::Spent {
                runs,
                ..crate::detector::Spent::default()
            },
            state,
            polls: 0,
        }
    }

    #[test]
    fn who_slept_has_slept_on_if_it_was_given_no_cpu_since() {
        let mut lateness = begun(5 * MS);
        let unit = Unit::Worker;
        let before = [
            (unit(0), times(ThreadState::Off, 7)),
            (unit(1), times(ThreadState::Off, 7)),
            (unit(2), times(ThreadState::Off, 7)),
            (unit(3), times(ThreadState::OnCpu, 7)),
            (Unit::Thread(0), times(ThreadState::Off, 7)),
        ];
        lateness.begin_wait(0, &before);
        // (woken, slept on): one that has gone was woken, to go.
        let now = [
            (unit(1), times(ThreadState::Off, 8)),
            (unit(0), times(ThreadState::Off, 7)),
            (unit(3), times(ThreadState::Off, 7)),
            (Unit::Thread(0), times(ThreadState::OnCpu, 9)),
            (unit(4), times(ThreadState::Off, 1)),
        ];
        assert_eq!(lateness.sleepers(&now), (3, 1));
        assert_eq!(lateness.sleepers(&[]), (4, 0));
        lateness.begin_wait(0, &[]);
        assert_eq!(lateness.sleepers(&now), (0, 0));
    }

    #[test]
    fn what_was_not_planned_or_is_little_late_is_not_late() {
        let mut lateness = begun(5 * MS);
        lateness.begin_wait(0, &[]);
        assert_eq!(lateness.look(None, 900 * MS, &[]), Late::default());
        assert_eq!(
            lateness.look(Some(100 * MS), 105 * MS, &[]),
            Late::default()
        );
        assert_eq!(lateness.look(Some(100 * MS), 90 * MS, &[]), Late::default());
        // However short the tick.
        let mut lateness = begun(1);
        lateness.begin_wait(0, &[]);
        assert_eq!(
            lateness.look(Some(0), MIN_STANDSTILL_NS, &[]),
            Late::default()
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn who_overslept_stood_still_and_who_computed_did_not() {
        let clock = crate::clock::calibrate();
        // A thread that loses its CPU before it sleeps has not only slept: not each time.
        let overslept = std::iter::repeat_with(|| {
            let mut lateness = begun(5 * MS);
            let begin_ns = clock.now_ns();
            lateness.begin_wait(begin_ns, &[]);
            std::thread::sleep(std::time::Duration::from_millis(40));
            lateness.look(Some(begin_ns + 10 * MS), clock.now_ns(), &[])
        });
        // It may have waited for a CPU besides, and has been late for that long, too.
        let stood_still = |late: &Late| late.standstill_ns >= 29 * MS;
        assert!(overslept.take(50).any(|late| stood_still(&late)));

        let mut lateness = begun(5 * MS);
        let begin_ns = clock.now_ns();
        lateness.begin_wait(begin_ns, &[]);
        // Not one sleep, which is all that a thread does that waits for its timer.
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let computed_ns = || ProcessClocks::now().cpu_ns;
        let before_ns = computed_ns();
        while computed_ns() < before_ns + 200 * MS {}
        let now_ns = clock.now_ns();
        let late = lateness.look(Some(begin_ns + 10 * MS), now_ns, &[]);
        assert_eq!(late.standstill_ns, 0, "{late:?}");
        assert!(late.waited_ns <= now_ns - begin_ns - 10 * MS, "{late:?}");
    }
}
