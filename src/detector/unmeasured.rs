//! What can have been a wait for a CPU although nobody looked while it lasted.
//!
//! A thread's times are asked for from the second look at a poll or turn on, and not after
//! it is over; a watchdog that gets no CPU itself leaves more out. But the kernel's count
//! of waits forgets none: between a reading from before and one from after, the thread has
//! waited for as long as the count has grown, and no longer.

use crate::detector::observation::{Queued, Reading};
use crate::detector::waiting::Waiting;

/// What is known of the time in which a thread was not measured.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Unmeasured {
    /// From the reading before it all to the last; `None` where the thread is not known.
    queued: Option<Queued>,
    first: Reading,
    /// Of that time, what is excused whatever the thread has done.
    excused_ns: u64,
    /// For how long the watchdog waited for a CPU meanwhile.
    watchdog_waited_ns: u64,
}

impl Unmeasured {
    /// Of what begins after the last reading.
    pub(crate) fn again(&self) -> Self {
        let queued = self.queued.map(|queued| Queued {
            before: Some(queued.now),
            ..queued
        });
        Unmeasured {
            queued,
            ..Unmeasured::default()
        }
    }

    /// Takes in a reading of a thread.
    pub(crate) fn read(&mut self, now: Queued) {
        match &mut self.queued {
            Some(queued) if queued.thread == now.thread => queued.now = now.now,
            // The worker has been handed to another thread, of which that does not say much.
            Some(_) => {}
            none => {
                *none = Some(now);
                self.first = now.now;
            }
        }
    }

    /// Some of it is excused already; and the watchdog has waited so long meanwhile.
    pub(crate) fn excuse(&mut self, excused_ns: u64, watchdog_waited_ns: u64) {
        self.excused_ns += excused_ns;
        self.watchdog_waited_ns += watchdog_waited_ns;
    }

    /// Whether nothing is known from before, and the watchdog has waited for a CPU since.
    pub(crate) const fn is_dark(&self) -> bool {
        let is_known = matches!(
            self.queued,
            Some(Queued {
                before: Some(_),
                ..
            })
        );
        !is_known && self.watchdog_waited_ns > 0
    }

    /// For how long the thread can have waited for a CPU in the time until `at_ns`, so long
    /// in all, in which it was not measured.
    ///
    /// Some of what it has waited between two readings may have been before it began, or
    /// after its end. That is in its favour: who can have waited is not blamed.
    pub(crate) fn waited_ns(
        &self,
        at_ns: u64,
        unmeasured_ns: u64,
        measured: Option<&Waiting>,
    ) -> u64 {
        let left_ns = unmeasured_ns.saturating_sub(self.excused_ns);
        let waiting_ns = measured.map_or(0, Waiting::waiting_ns);
        // It is in a wait that is credited when it ends, and may have begun at any time.
        if measured.is_some_and(|measured| measured.has_only_waited(at_ns)) {
            return left_ns;
        }
        let Some(Queued { before, now, .. }) = self.queued else {
            return left_ns.min(self.watchdog_waited_ns);
        };
        let credited_ns = |from: Reading| {
            let credited_ns = now.wait_ns.saturating_sub(from.wait_ns);
            credited_ns.saturating_sub(waiting_ns)
        };
        let Some(before) = before else {
            // Others speak for it, and what it has waited since; but it has never waited for
            // longer than that in all its life.
            let guessed_ns = waiting_ns.max(self.watchdog_waited_ns).min(now.wait_ns);
            return left_ns.min(credited_ns(self.first) + guessed_ns);
        };
        // Of what came after the last reading nothing is known.
        let within_ns = left_ns.saturating_sub(at_ns.saturating_sub(now.at_ns));
        within_ns.min(credited_ns(before))
    }
}
