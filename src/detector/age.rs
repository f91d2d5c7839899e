//! How old something is, and how much of its age counts.

use crate::detector::observation::Queued;
use crate::detector::unmeasured::Unmeasured;
use crate::detector::waiting::{Shares, Spent, ThreadTimes, Waiting};

/// How much of the time since the last look is nobody's stall.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Excuse {
    /// The whole process stood still.
    pub(crate) standstill_ns: u64,
    /// The library itself was at work on that thread.
    pub(crate) own_work_ns: u64,
    /// The watchdog waited for a CPU, and so may have what nobody has measured yet.
    pub(crate) short_of_cpus_ns: u64,
}

impl Excuse {
    /// Of what has lasted for so long.
    fn within(self, lasted_ns: u64) -> Self {
        Excuse {
            standstill_ns: self.standstill_ns.min(lasted_ns),
            own_work_ns: self.own_work_ns.min(lasted_ns),
            ..self
        }
    }
}

/// The age of something in progress, and what its thread has done with the time.
///
/// Its *own* time counts against the thresholds: on a CPU, blocked, or not known. Excused
/// is the time for which it is not to blame: the whole process stood still (stopped, or
/// the machine asleep), the thread waited for a CPU, or this library was at work. A wait
/// of less than a sixteenth is not excused: the watchdog makes a thread wait by looking at
/// it, and would have to look again for as long. What nobody measured may have been a wait
/// as well: see [`Unmeasured`].
///
/// What has waited for a CPU for so long that a quarter of its time awake is beyond the
/// lowest threshold is a stall too, though of no severity but the lowest: so that a worker
/// that starves is told, only late. Told sooner, a turn of short polls on a machine with
/// three times more to do than CPUs would be a stall.
#[derive(Clone, Debug)]
pub(crate) struct Age {
    since_ns: u64,
    standstill_ns: u64,
    excused_ns: u64,
    /// What would be excused as a wait as well, were it not for something else.
    excused_twice_ns: u64,
    /// Of what is excused, what is so however short it is.
    own_work_ns: u64,
    waiting: Option<Waiting>,
    unmeasured: Unmeasured,
}

impl Age {
    /// Of something that began at `since_ns`.
    pub(crate) fn new(since_ns: u64) -> Self {
        Age {
            since_ns,
            standstill_ns: 0,
            excused_ns: 0,
            excused_twice_ns: 0,
            own_work_ns: 0,
            waiting: None,
            unmeasured: Unmeasured::default(),
        }
    }

    /// The same of a thread that had spent that much when it began.
    pub(crate) fn spending(mut self, first: Spent, polls: u64) -> Self {
        self.waiting = Some(Waiting::since(self.since_ns, first, polls));
        self
    }

    /// What is to be excused of it by the first look, and what the thread has done.
    pub(crate) fn first(mut self, now_ns: u64, excuse: Excuse, times: Option<ThreadTimes>) -> Self {
        let excuse = excuse.within(self.elapsed_ns(now_ns));
        self.advance(now_ns, excuse, times);
        self
    }

    /// One tick later: what is to be excused of it, and what the thread has done.
    pub(crate) fn advance(&mut self, now_ns: u64, excuse: Excuse, times: Option<ThreadTimes>) {
        let before_ns = self.waiting_ns();
        let excused_ns = excuse.standstill_ns.max(excuse.own_work_ns);
        if self.waiting.is_none() || times.is_none() {
            self.unmeasured.excuse(excused_ns, excuse.short_of_cpus_ns);
        }
        match (&mut self.waiting, times) {
            (Some(waiting), Some(times)) => waiting.update(now_ns, times),
            (none @ None, Some(times)) => *none = Some(Waiting::from(now_ns, times)),
            (_, None) => {}
        }
        let after_ns = self.waiting_ns();
        self.standstill_ns += excuse.standstill_ns;
        self.own_work_ns += excuse.own_work_ns;
        // A wait within a standstill is not taken off twice.
        let grown_ns = after_ns.saturating_sub(before_ns);
        self.excused_ns += excused_ns.max(grown_ns);
        self.excused_twice_ns += excused_ns.min(grown_ns);
        // What was taken for a wait can turn out to have been sleep: or a stop, which is
        // excused all the same.
        let shrunk_ns = before_ns.saturating_sub(after_ns);
        let stays_ns = shrunk_ns.min(self.excused_twice_ns);
        self.excused_twice_ns -= stays_ns;
        self.excused_ns = self.excused_ns.saturating_sub(shrunk_ns - stays_ns);
    }

    /// How long its thread has waited in all its life, by a reading at this look.
    pub(crate) fn read(&mut self, queued: Option<Queued>) {
        if let Some(queued) = queued {
            self.unmeasured.read(queued);
        }
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
        let age = Age {
            unmeasured: self.unmeasured.again(),
            ..Age::new(since_ns)
        };
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

    /// Whether nothing is known of what its thread has done, while others are known to have
    /// waited for a CPU.
    pub(crate) const fn is_dark(&self) -> bool {
        self.waiting.is_none() && self.unmeasured.is_dark()
    }

    pub(crate) const fn since_ns(&self) -> u64 {
        self.since_ns
    }

    /// What the thread is known to have done with the time, with what is taken for a wait.
    pub(crate) fn shares(&self, at_ns: u64) -> Shares {
        let known = self.waiting.as_ref();
        let known = known.map_or_else(Shares::default, Waiting::shares);
        Shares {
            waiting_ns: known.waiting_ns + self.unmeasured_wait_ns(at_ns),
            ..known
        }
    }

    fn waiting_ns(&self) -> u64 {
        self.waiting.as_ref().map_or(0, Waiting::waiting_ns)
    }

    /// How long the thread can have waited for a CPU while it was not measured.
    fn unmeasured_wait_ns(&self, at_ns: u64) -> u64 {
        let waiting = self.waiting.as_ref();
        let measured_ns = waiting.map_or(0, |waiting| waiting.measured_ns(self.since_ns, at_ns));
        let unmeasured_ns = self.elapsed_ns(at_ns).saturating_sub(measured_ns);
        self.unmeasured.waited_ns(at_ns, unmeasured_ns, waiting)
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

    /// The age without what is excused.
    pub(crate) fn own_ns(&self, at_ns: u64) -> u64 {
        let awake_ns = self.awake_ns(at_ns);
        let excused_ns = self.excused_ns.saturating_sub(self.standstill_ns);
        let excused_ns = excused_ns + self.unmeasured_wait_ns(at_ns);
        let excused_ns = if excused_ns > awake_ns / 16 {
            excused_ns
        } else {
            excused_ns.min(self.own_work_ns)
        };
        awake_ns.saturating_sub(excused_ns)
    }

    /// By how much of it a stall is one although its [own](Self::own_ns) time is not.
    pub(crate) fn starved_ns(&self, at_ns: u64) -> u64 {
        self.awake_ns(at_ns).saturating_sub(self.own_work_ns) / STARVED_PART
    }
}

/// Of so much time awake, one part counts whatever the thread has waited for.
pub(crate) const STARVED_PART: u64 = 4;
