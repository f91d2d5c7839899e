//! How old something is, and how much of its age counts.

use crate::detector::waiting::{Shares, Spent, ThreadTimes, Waiting};

/// The age of something in progress.
///
/// Excused is the time for which nobody's code is to blame: the whole process
/// stood still (stopped, or the machine asleep), or the thread waited for a CPU. But a quarter of the time awake counts at least, so that a
/// worker that starves is told too, only late: told sooner, a turn of short
/// polls on a machine with three times more to do than CPUs would be a stall.
/// And a wait of less than a sixteenth is not excused: the watchdog makes a thread
/// wait by looking at it, and would have to look again for as long.
#[derive(Clone, Debug)]
pub(crate) struct Age {
    since_ns: u64,
    standstill_ns: u64,
    excused_ns: u64,
    waiting: Option<Waiting>,
}

impl Age {
    /// Of something that began at `since_ns`, with a standstill of the process since.
    pub(crate) const fn new(since_ns: u64, standstill_ns: u64) -> Self {
        Age {
            since_ns,
            standstill_ns,
            excused_ns: standstill_ns,
            waiting: None,
        }
    }

    /// The same of a thread that had spent that much when it began.
    pub(crate) fn spending(mut self, first: Spent, polls: u64) -> Self {
        self.waiting = Some(Waiting::since(self.since_ns, first, polls));
        self
    }

    /// What the thread has done at the first look.
    pub(crate) fn first(mut self, now_ns: u64, times: Option<ThreadTimes>) -> Self {
        // The standstill has been taken off, and a wait within it is not taken off twice.
        let standstill_ns = std::mem::take(&mut self.excused_ns);
        self.advance(now_ns, 0, times);
        self.excused_ns = self.excused_ns.max(standstill_ns);
        self
    }

    /// One tick later: the process's standstill in it, and what the thread has done.
    pub(crate) fn advance(&mut self, now_ns: u64, standstill_ns: u64, times: Option<ThreadTimes>) {
        let before_ns = self.waiting_ns();
        match (&mut self.waiting, times) {
            (Some(waiting), Some(times)) => waiting.update(now_ns, times),
            (none @ None, Some(times)) => {
                *none = Some(Waiting::since(now_ns, times.spent, times.polls));
            }
            (_, None) => {}
        }
        let after_ns = self.waiting_ns();
        self.standstill_ns += standstill_ns;
        // A wait within a standstill is not taken off twice; and what was taken for a
        // wait can turn out to have been sleep.
        self.excused_ns += standstill_ns.max(after_ns.saturating_sub(before_ns));
        self.excused_ns = self
            .excused_ns
            .saturating_sub(before_ns.saturating_sub(after_ns));
    }

    /// The same, now known to have begun at another time.
    pub(crate) fn starting(&self, since_ns: u64) -> Self {
        Age {
            since_ns,
            ..self.clone()
        }
    }

    /// Of what is left of it from then on, at the look that has been taken in last.
    pub(crate) fn again(&self, since_ns: u64) -> Self {
        let age = Age::new(since_ns, 0);
        match &self.waiting {
            Some(waiting) => {
                let (spent, polls) = waiting.last();
                age.spending(spent, polls)
            }
            None => age,
        }
    }

    /// Whether it is known what the thread had done at some time before.
    pub(crate) const fn is_measured(&self) -> bool {
        self.waiting.is_some()
    }

    pub(crate) const fn since_ns(&self) -> u64 {
        self.since_ns
    }

    /// What the thread is known to have done with the time.
    pub(crate) fn shares(&self) -> Shares {
        self.waiting
            .as_ref()
            .map_or_else(Shares::default, Waiting::shares)
    }

    fn waiting_ns(&self) -> u64 {
        self.waiting.as_ref().map_or(0, Waiting::waiting_ns)
    }

    /// The whole age, by the clock.
    pub(crate) const fn elapsed_ns(&self, at_ns: u64) -> u64 {
        at_ns.saturating_sub(self.since_ns)
    }

    /// For how much of the age the process stood still.
    pub(crate) const fn standstill_ns(&self) -> u64 {
        self.standstill_ns
    }

    /// The age without the process's standstills.
    pub(crate) const fn awake_ns(&self, at_ns: u64) -> u64 {
        self.elapsed_ns(at_ns).saturating_sub(self.standstill_ns)
    }

    /// The part of the age that counts against the thresholds.
    pub(crate) fn counts_ns(&self, at_ns: u64) -> u64 {
        let awake_ns = self.awake_ns(at_ns);
        let waited_ns = self.excused_ns.saturating_sub(self.standstill_ns);
        let waited_ns = if waited_ns > awake_ns / 16 {
            waited_ns
        } else {
            0
        };
        awake_ns.saturating_sub(waited_ns).max(awake_ns / 4)
    }
}
