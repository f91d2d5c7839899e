//! Whether the watchdog stood still, or only waited for a CPU as others do.

use crate::os::{self, ThreadProbe};

/// What the watchdog's thread knows of its own lateness.
#[derive(Debug)]
pub(crate) struct Late {
    own: Option<ThreadProbe>,
    /// What is later than this has stood still.
    tolerance_ns: u64,
    /// How long the thread had waited for a CPU when that was last asked.
    had_waited_ns: u64,
    /// How much of that it may have waited since, at most.
    unsure_ns: u64,
}

impl Late {
    /// For the calling thread.
    pub(crate) fn new(tolerance_ns: u64) -> Self {
        let mut late = Late {
            own: ThreadProbe::open(os::thread_id()).ok(),
            tolerance_ns,
            had_waited_ns: 0,
            unsure_ns: 0,
        };
        late.ask();
        late
    }

    /// How long the watchdog stood still before this look, if it was late by more
    /// than it ever is.
    ///
    /// Not where it waited for a CPU: others went on meanwhile, and how long they
    /// waited themselves is known of each. The kernel is asked about that when it
    /// matters, and as often as keeps what is not known small; at each look it
    /// would cost as much as the look.
    pub(crate) fn gap_ns(&mut self, planned_ns: Option<u64>, now_ns: u64) -> u64 {
        let Some(planned_ns) = planned_ns else {
            // It was woken, whenever that was.
            self.ask();
            return 0;
        };
        let late_ns = now_ns.saturating_sub(planned_ns);
        if late_ns <= self.tolerance_ns {
            self.may_have_waited(late_ns);
            return 0;
        }
        let waited_ns = self.ask();
        let still_ns = late_ns.saturating_sub(waited_ns);
        if still_ns > self.tolerance_ns {
            still_ns
        } else {
            0
        }
    }

    /// It has waited for a CPU for no longer than this since it last said so, or was late.
    pub(crate) fn may_have_waited(&mut self, ns: u64) {
        self.unsure_ns = self.unsure_ns.saturating_add(ns);
        if self.unsure_ns > self.tolerance_ns / 4 {
            self.ask();
        }
    }

    /// How long the thread has waited for a CPU since this was last asked.
    fn ask(&mut self) -> u64 {
        let now_ns = self
            .own
            .as_ref()
            .and_then(ThreadProbe::wait_ns)
            .unwrap_or(0);
        self.unsure_ns = 0;
        now_ns.saturating_sub(std::mem::replace(&mut self.had_waited_ns, now_ns))
    }
}
