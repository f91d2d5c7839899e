//! How long a thread has waited for a CPU, from what the kernel tells now and then.

/// What the kernel tells of a thread at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThreadTimes {
    /// On a CPU, since the thread began.
    pub(crate) cpu_ns: u64,
    /// In a run queue, since the thread began; a wait is added when it ends.
    pub(crate) wait_ns: u64,
    /// How often it was given a CPU.
    pub(crate) runs: u64,
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

/// Splits the time since a first look at a thread into CPU, waiting and blocked.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    at_ns: u64,
    first: ThreadTimes,
    /// The last look that found it on a CPU, else the first, and its time.
    running: (u64, ThreadTimes),
    /// While it had a CPU, but that did not run.
    stolen_ns: u64,
    cpu_ns: u64,
    blocked_ns: u64,
    waiting_ns: u64,
    polls: u64,
}

impl Waiting {
    pub(crate) const fn since(now_ns: u64, times: ThreadTimes) -> Self {
        Waiting {
            at_ns: now_ns,
            first: times,
            running: (now_ns, times),
            stolen_ns: 0,
            cpu_ns: 0,
            blocked_ns: 0,
            waiting_ns: 0,
            polls: 0,
        }
    }

    pub(crate) fn update(&mut self, now_ns: u64, times: ThreadTimes) {
        let elapsed_ns = now_ns.saturating_sub(self.at_ns);
        let cpu_ns = times.cpu_ns.saturating_sub(self.first.cpu_ns);
        let credited_ns = times.wait_ns.saturating_sub(self.first.wait_ns);
        self.cpu_ns = cpu_ns;
        self.polls = times.polls.saturating_sub(self.first.polls);
        if times.state == ThreadState::OnCpu {
            self.stolen_ns += self.stolen_since_running(now_ns, times);
            self.running = (now_ns, times);
        }
        let credited_ns = credited_ns + self.stolen_ns;
        let other_ns = elapsed_ns.saturating_sub(cpu_ns);
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
    fn stolen_since_running(&self, now_ns: u64, times: ThreadTimes) -> u64 {
        let (at_ns, last) = self.running;
        if times.runs == 0 || times.runs != last.runs {
            return 0;
        }
        let ran_ns = times.cpu_ns.saturating_sub(last.cpu_ns);
        now_ns.saturating_sub(at_ns).saturating_sub(ran_ns)
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

    /// How long the thread has waited for a CPU since the first look.
    pub(crate) const fn waiting_ns(&self) -> u64 {
        self.waiting_ns
    }
}

#[cfg(test)]
mod tests {
    use super::ThreadState::{Off, OnCpu, Queued};
    use super::*;

    fn on_cpu(cpu_ns: u64, runs: u64) -> ThreadTimes {
        ThreadTimes {
            cpu_ns,
            wait_ns: 0,
            runs,
            state: OnCpu,
            polls: 0,
        }
    }

    #[test]
    fn nothing_is_stolen_where_runs_are_not_counted() {
        for (runs, stolen_ns) in [(3, 90), (0, 0)] {
            let mut waiting = Waiting::since(0, on_cpu(10, runs));
            waiting.update(100, on_cpu(20, runs));
            let shares = waiting.shares();
            assert_eq!(
                (shares.waiting_ns, shares.blocked_ns),
                (stolen_ns, 90 - stolen_ns)
            );
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
        let first = ThreadTimes {
            wait_ns: 700,
            polls: 7,
            ..on_cpu(500, 9)
        };
        let mut waiting = Waiting::since(1_000, first);
        for ((now, cpu, wait, runs, state), expected) in table {
            let times = ThreadTimes {
                cpu_ns: 500 + cpu,
                wait_ns: 700 + wait,
                runs: 9 + runs,
                state,
                polls: 7 + now,
            };
            waiting.update(1_000 + now, times);
            assert_eq!(waiting.shares().polls, now);
            assert_eq!(waiting.waiting_ns(), expected, "at {now}");
        }
    }
}
