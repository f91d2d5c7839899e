//! The time at one place, by what the thread did there: pure.

use crate::cause::Judgement;
use crate::os::Doing;
use crate::watchdog::investigator::moment::Own;

/// How many kinds of sleep are told apart at one place.
const MOST_SLEEPS: usize = 8;

/// Time at one place.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    running_ns: u64,
    asleep: Vec<(Doing, u64)>,
    /// It slept, but was not seen asleep.
    unseen_sleep_ns: u64,
    pub(super) samples: u64,
}

impl Tally {
    pub(super) fn add(&mut self, doing: Doing, own: Own) {
        self.running_ns += own.cpu_ns;
        self.add_sleep(doing.is_asleep().then_some(doing), own.off_ns);
    }

    fn add_sleep(&mut self, how: Option<Doing>, ns: u64) {
        let known = self.asleep.iter().position(|(kind, _)| Some(*kind) == how);
        if let Some((_, sum)) = known.and_then(|at| self.asleep.get_mut(at)) {
            *sum += ns;
        } else if let Some(how) = how.filter(|_| self.asleep.len() < MOST_SLEEPS) {
            self.asleep.push((how, ns));
        } else {
            self.unseen_sleep_ns += ns;
        }
    }

    pub(super) fn add_all(&mut self, other: &Tally) {
        self.running_ns += other.running_ns;
        self.unseen_sleep_ns += other.unseen_sleep_ns;
        self.samples += other.samples;
        for (how, ns) in &other.asleep {
            self.add_sleep(Some(*how), *ns);
        }
    }

    fn asleep_ns(&self) -> u64 {
        let known: u64 = self.asleep.iter().map(|(_, ns)| ns).sum();
        known + self.unseen_sleep_ns
    }

    pub(super) fn ns(&self) -> u64 {
        self.running_ns + self.asleep_ns()
    }

    pub(super) fn judgement(&self) -> Judgement {
        let longest = self.asleep.iter().max_by_key(|(_, ns)| *ns);
        match longest {
            _ if self.ns() == 0 => Judgement::Unknown,
            _ if self.running_ns >= self.asleep_ns() => Judgement::OnCpu,
            Some((Doing::Blocked(number), _)) => Judgement::Blocked(*number),
            Some((Doing::Faulting, _)) => Judgement::PageFault,
            Some((Doing::Running, _)) | None => Judgement::Unknown,
        }
    }
}
