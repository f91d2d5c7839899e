//! How long a thread has waited for a CPU, from what the kernel tells now and then.

/// What the kernel tells of a thread at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThreadTimes {
    /// On a CPU, since the thread began.
    pub(crate) cpu_ns: u64,
    /// In a run queue, since the thread began; a wait is added when it ends.
    pub(crate) wait_ns: u64,
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

    #[test]
    fn waits_are_told_from_work_and_sleep() {
        // (now, CPU, credited wait, state) -> waiting so far
        let table = [
            // Ran 10, waited 10, runs.
            ((20, 10, 10, OnCpu), 10),
            // Queued for 30 now, of which nothing is credited yet.
            ((50, 10, 10, Queued), 40),
            ((51, 11, 40, OnCpu), 40),
            // Asleep for 49.
            ((100, 11, 40, Off), 40),
            // Awake again and queued for 20: the sleep is not taken for a wait.
            ((120, 11, 40, Queued), 60),
            ((130, 21, 60, OnCpu), 60),
        ];
        let mut waiting = Waiting::since(
            1_000,
            ThreadTimes {
                cpu_ns: 500,
                wait_ns: 700,
                state: OnCpu,
                polls: 7,
            },
        );
        for ((now, cpu, wait, state), expected) in table {
            let times = ThreadTimes {
                cpu_ns: 500 + cpu,
                wait_ns: 700 + wait,
                state,
                polls: 7 + now,
            };
            waiting.update(1_000 + now, times);
            assert_eq!(waiting.shares().polls, now);
            assert_eq!(waiting.waiting_ns(), expected, "at {now}");
        }
    }
}
