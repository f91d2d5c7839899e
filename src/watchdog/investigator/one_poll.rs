//! Whether a turn was one long poll or many shorter ones, as far as its thread shows it.

use crate::detector::Spent;
use crate::os::Doing;
use crate::report::Confidence;

/// For how long something was the same at each look.
#[derive(Clone, Copy, Debug)]
struct Unchanged<T> {
    /// What it is now, and since which look.
    now: Option<(T, u64)>,
    longest_ns: u64,
}

impl<T> Default for Unchanged<T> {
    fn default() -> Self {
        Unchanged {
            now: None,
            longest_ns: 0,
        }
    }
}

impl<T: PartialEq> Unchanged<T> {
    /// Whether it is another than at the last look.
    fn look(&mut self, now_ns: u64, what: T) -> bool {
        match &self.now {
            Some((same, since_ns)) if *same == what => {
                self.longest_ns = self.longest_ns.max(now_ns.saturating_sub(*since_ns));
                false
            }
            _ => {
                self.now = Some((what, now_ns));
                true
            }
        }
    }
}

/// The longest time that the thread of a turn has been seen in one and the same
/// sleep, which is within one poll.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OneSleep {
    /// How it sleeps, and how often it had been given a CPU by then.
    asleep: Unchanged<(Doing, u64)>,
}

impl OneSleep {
    pub(crate) fn look(&mut self, now_ns: u64, doing: Option<Doing>, spent: Option<Spent>) {
        match doing.filter(|doing| doing.is_asleep()).zip(spent) {
            Some((doing, spent)) => {
                self.asleep.look(now_ns, (doing, spent.runs));
            }
            None => self.asleep.now = None,
        }
    }

    /// How sure it is that a turn of this length was one poll.
    pub(crate) const fn says(&self, duration_ns: u64) -> Option<Confidence> {
        // Between two looks, a tick at each end is not seen.
        if self.asleep.longest_ns >= duration_ns / 10 * 9 {
            Some(Confidence::High)
        } else if self.asleep.longest_ns >= duration_ns / 2 {
            Some(Confidence::Medium)
        } else {
            None
        }
    }
}

/// The tasks that the thread of a turn was seen polling while it ran.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tasks {
    task: Unchanged<u64>,
    /// Polls there were at least: between two tasks is the end of one.
    pub(crate) polls: u64,
}

impl Tasks {
    /// Its thread was polling this task.
    pub(crate) fn look(&mut self, at_ns: u64, task: u64) {
        self.polls += u64::from(self.task.look(at_ns, task));
    }

    /// How sure it is that a turn of this length was one poll. Never high: a task
    /// that wakes itself can be polled again in the same turn.
    pub(crate) const fn says(&self, duration_ns: u64) -> Option<Confidence> {
        if self.task.longest_ns >= duration_ns / 4 * 3 {
            Some(Confidence::Medium)
        } else if self.task.longest_ns >= duration_ns / 2 {
            Some(Confidence::Low)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn after_runs(runs: u64) -> Option<Spent> {
        Some(Spent {
            runs,
            ..Spent::default()
        })
    }

    #[test]
    fn one_sleep_is_one_poll() {
        let mut sleep = OneSleep::default();
        for at_ms in [10, 50, 97] {
            sleep.look(at_ms * MS, Some(Doing::Blocked(35)), after_runs(7));
        }
        assert_eq!(sleep.asleep.longest_ns, 87 * MS);
        assert_eq!(sleep.says(95 * MS), Some(Confidence::High));
        assert_eq!(sleep.says(120 * MS), Some(Confidence::Medium));
        assert_eq!(sleep.says(300 * MS), None);
    }

    #[test]
    fn one_task_at_each_look_is_likely_one_poll_and_two_are_not() {
        let look = |tasks: &[u64]| {
            let mut seen = Tasks::default();
            for (at, task) in (1..).zip(tasks) {
                seen.look(at * 10 * MS, *task);
            }
            seen
        };
        let one = look(&[5; 10]);
        assert_eq!(one.says(110 * MS), Some(Confidence::Medium));
        assert_eq!(one.says(170 * MS), Some(Confidence::Low));
        assert_eq!(one.says(400 * MS), None);
        assert_eq!(one.polls, 1);
        let many = look(&[5, 6, 5, 5, 7, 7, 8, 5, 9, 9]);
        assert_eq!(many.says(110 * MS), None);
        assert_eq!(many.polls, 7);
    }

    #[test]
    fn many_sleeps_or_none_say_nothing() {
        let mut sleep = OneSleep::default();
        for at in 0..10 {
            sleep.look(at * 10 * MS, Some(Doing::Blocked(35)), after_runs(at));
        }
        for at in 10..20 {
            let calls = Doing::Blocked(35 + i64::try_from(at).unwrap());
            sleep.look(at * 10 * MS, Some(calls), after_runs(10));
            sleep.look(at * 10 * MS + MS, Some(Doing::Running), after_runs(10));
        }
        assert_eq!(sleep.says(200 * MS), None);
    }
}
