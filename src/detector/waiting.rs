//! How long a thread has waited for a CPU, from what the kernel tells now and then.

/// What the kernel has counted of a thread since that began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spent {
    /// On a CPU.
    pub(crate) cpu_ns: u64,
    /// In a run queue; a wait is added when it ends.
    pub(crate) wait_ns: u64,
    /// How often it was given a CPU; 0 where that is not known.
    pub(crate) runs: u64,
}

/// What the kernel tells of a thread at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThreadTimes {
    pub(crate) spent: Spent,
    pub(crate) state: ThreadState,
    /// Polls of watched futures that it has begun.
    pub(crate) polls: u64,
}

/// What a thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
pub(crate) enum ThreadState {
    /// Running on a CPU.
    OnCpu,
    /// Able to run, but not running.
    Queued,
    /// Asleep in the kernel.
    Off,
}

/// What a thread has done with its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shares {
    pub(crate) cpu_ns: u64,
    pub(crate) waiting_ns: u64,
    pub(crate) blocked_ns: u64,
    /// Polls of watched futures that it has begun.
    pub(crate) polls: u64,
}

impl Shares {
    /// The same of a time that is not longer than this. The looks that they were counted
    /// between were further apart: what was lost counts first, as it excuses.
    pub(crate) fn within(self, ns: u64) -> Self {
        let waiting_ns = self.waiting_ns.min(ns);
        let cpu_ns = self.cpu_ns.min(ns - waiting_ns);
        Shares {
            cpu_ns,
            waiting_ns,
            blocked_ns: self.blocked_ns.min(ns - waiting_ns - cpu_ns),
            polls: self.polls,
        }
    }
}

/// Splits the time since some moment of a thread into CPU, waiting and blocked.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    since_ns: u64,
    first: Spent,
    first_polls: u64,
    /// When it was last looked at.
    at_ns: u64,
    /// At the last look.
    last: (Spent, u64),
    /// At all looks it was in a run queue.
    queued: bool,
    /// The last look that found it on a CPU, else the first, and its time.
    running: (u64, Spent),
    /// While it had a CPU, but that did not run.
    stolen_ns: u64,
    cpu_ns: u64,
    blocked_ns: u64,
    waiting_ns: u64,
    polls: u64,
}

impl Waiting {
    /// From when the thread had spent that much, and had begun so many watched polls.
    pub(crate) const fn since(since_ns: u64, first: Spent, first_polls: u64) -> Self {
        Waiting {
            since_ns,
            first,
            first_polls,
            at_ns: since_ns,
            last: (first, first_polls),
            queued: false,
            running: (since_ns, first),
            stolen_ns: 0,
            cpu_ns: 0,
            blocked_ns: 0,
            waiting_ns: 0,
            polls: 0,
        }
    }

    /// From this look on, which is the first.
    pub(crate) fn from(now_ns: u64, times: ThreadTimes) -> Self {
        Waiting {
            queued: times.state == ThreadState::Queued,
            ..Waiting::since(now_ns, times.spent, times.polls)
        }
    }

    pub(crate) fn update(&mut self, now_ns: u64, times: ThreadTimes) {
        let ThreadTimes { spent, polls, .. } = times;
        self.at_ns = now_ns;
        self.last = (spent, polls);
        self.queued &= times.state == ThreadState::Queued;
        let elapsed_ns = now_ns.saturating_sub(self.since_ns);
        let cpu_ns = spent.cpu_ns.saturating_sub(self.first.cpu_ns);
        let credited_ns = spent.wait_ns.saturating_sub(self.first.wait_ns);
        self.cpu_ns = cpu_ns;
        self.polls = polls.saturating_sub(self.first_polls);
        if times.state == ThreadState::OnCpu {
            self.stolen_ns += self.stolen_since_running(now_ns, spent);
            self.running = (now_ns, spent);
        }
        let other_ns = elapsed_ns.saturating_sub(cpu_ns);
        // A wait is credited when it ends: there was no time for more than this since.
        let before_ns = credited_ns.saturating_sub(other_ns);
        self.first.wait_ns += before_ns;
        let credited_ns = credited_ns - before_ns + self.stolen_ns;
        if times.state == ThreadState::Queued {
            // The wait that goes on is credited only when it ends, so it is what
            // is left over, unless the thread is known to have been blocked.
            self.waiting_ns = credited_ns.max(other_ns.saturating_sub(self.blocked_ns));
        } else {
            self.waiting_ns = credited_ns.min(other_ns);
            self.blocked_ns = other_ns.saturating_sub(credited_ns);
        }
    }

    /// For how long the CPU that the thread had was taken from the whole machine: by
    /// whoever runs this virtual machine, or by interrupts.
    ///
    /// A thread that runs, and was not given a CPU since, has had one all the while: to
    /// sleep or to wait it would have had to give it away. The kernel takes stolen
    /// time off the time on a CPU (6.18, `kernel/sched/core.c`, `update_rq_clock_task`).
    /// A kernel built without statistics tells of no runs at all (`fs/proc/base.c`,
    /// `proc_pid_schedstat`).
    fn stolen_since_running(&self, now_ns: u64, spent: Spent) -> u64 {
        let (at_ns, last) = self.running;
        if spent.runs == 0 || spent.runs != last.runs {
            return 0;
        }
        let ran_ns = spent.cpu_ns.saturating_sub(last.cpu_ns);
        now_ns.saturating_sub(at_ns).saturating_sub(ran_ns)
    }

    /// What the thread had spent at the last look, and how many watched polls begun.
    pub(crate) const fn last(&self) -> (Spent, u64) {
        self.last
    }

    /// For how much of the time from `start_ns` to `end_ns` it is known what it did.
    pub(crate) fn measured_ns(&self, start_ns: u64, end_ns: u64) -> u64 {
        let until_ns = self.at_ns.min(end_ns);
        until_ns.saturating_sub(self.since_ns.max(start_ns))
    }

    /// Whether it has been in one wait for a CPU from the first look to this time.
    pub(crate) const fn has_only_waited(&self, at_ns: u64) -> bool {
        self.queued && self.last.0.runs == self.first.runs && at_ns <= self.at_ns
    }

    /// How long the thread has been on a CPU, waiting for one, and asleep.
    pub(crate) const fn shares(&self) -> Shares {
        Shares {
            cpu_ns: self.cpu_ns,
            waiting_ns: self.waiting_ns,
            blocked_ns: self.blocked_ns,
            polls: self.polls,
        }
    }

    /// How long the thread has waited for a CPU since then.
    pub(crate) const fn waiting_ns(&self) -> u64 {
        self.waiting_ns
    }
}

#[cfg(test)]
mod tests {
    use super::ThreadState::{Off, OnCpu, Queued};
    use super::*;

    fn spent(cpu_ns: u64, wait_ns: u64, runs: u64) -> Spent {
        Spent {
            cpu_ns,
            wait_ns,
            runs,
        }
    }

    #[test]
    fn nothing_is_stolen_where_runs_are_not_counted() {
        for (runs, stolen_ns) in [(3, 90), (0, 0)] {
            let mut waiting = Waiting::since(0, spent(10, 0, runs), 0);
            let times = ThreadTimes {
                spent: spent(20, 0, runs),
                state: OnCpu,
                polls: 0,
            };
            waiting.update(100, times);
            let shares = waiting.shares();
            assert_eq!(
                (shares.waiting_ns, shares.blocked_ns),
                (stolen_ns, 90 - stolen_ns)
            );
        }
    }

    #[test]
    fn a_wait_that_began_before_is_no_part_of_it() {
        let mut waiting = Waiting::since(1_000, spent(0, 0, 1), 0);
        for ((now, cpu, wait, state), expected) in [
            // It ran for 2, and is queued again: of 50 that were credited, 3 can be since.
            ((5, 2, 50, Queued), (3, 0)),
            ((105, 52, 53, OnCpu), (6, 47)),
        ] {
            let times = ThreadTimes {
                spent: spent(cpu, wait, 2),
                state,
                polls: 0,
            };
            waiting.update(1_000 + now, times);
            let shares = waiting.shares();
            assert_eq!((shares.waiting_ns, shares.blocked_ns), expected, "at {now}");
        }
    }

    #[test]
    fn shares_are_no_longer_than_what_they_are_of() {
        let shares = |cpu_ns, waiting_ns, blocked_ns| Shares {
            cpu_ns,
            waiting_ns,
            blocked_ns,
            polls: 1,
        };
        for (all, ns, within) in [
            (shares(3, 4, 5), 20, shares(3, 4, 5)),
            (shares(3, 4, 5), 9, shares(3, 4, 2)),
            (shares(3, 4, 5), 6, shares(2, 4, 0)),
            (shares(3, 40, 5), 30, shares(0, 30, 0)),
        ] {
            assert_eq!(all.within(ns), within, "{ns}");
        }
    }

    #[test]
    fn waits_are_told_from_work_and_sleep() {
        // (now, CPU, credited wait, runs, state) -> waiting so far
        let table = [
            // Ran 10, waited 10, runs.
            ((20, 10, 10, 1, OnCpu), 10),
            // Queued for 30 now, of which nothing is credited yet.
            ((50, 10, 10, 1, Queued), 40),
            ((51, 11, 40, 2, OnCpu), 40),
            // Asleep for 49.
            ((100, 11, 40, 2, Off), 40),
            // Awake again and queued for 20: the sleep is not taken for a wait.
            ((120, 11, 40, 2, Queued), 60),
            ((130, 21, 60, 3, OnCpu), 60),
            // Its CPU is not running, as if it was queued; then it is.
            ((150, 21, 60, 3, Queued), 80),
            ((160, 26, 60, 3, OnCpu), 85),
            ((170, 36, 60, 3, OnCpu), 85),
            // It has slept, which it can only without a CPU.
            ((190, 37, 60, 4, OnCpu), 85),
        ];
        let mut waiting = Waiting::since(1_000, spent(500, 700, 9), 7);
        for ((now, cpu, wait, runs, state), expected) in table {
            let times = ThreadTimes {
                spent: spent(500 + cpu, 700 + wait, 9 + runs),
                state,
                polls: 7 + now,
            };
            waiting.update(1_000 + now, times);
            assert_eq!(waiting.shares().polls, now);
            assert_eq!(waiting.waiting_ns(), expected, "at {now}");
        }
    }
}
