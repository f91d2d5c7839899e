//! Which threads have computed for so long that they are likely to go on.
//!
//! A signal that is sent at once races with the thread's next system call. The longer a
//! thread has computed without having gone to sleep, the less likely is it that the next
//! call comes within the microseconds between the last look and the signal.

use std::collections::VecDeque;

use crate::os::platform::position::Position;
use crate::os::platform::thread::ThreadProbe;
use crate::os::{Activity, Miss};

/// How much CPU time a thread must have had since it last slept.
const LONG_NS: u64 = 1_000_000;
/// How many threads are remembered; another look is needed for one that was forgotten.
const MOST: usize = 64;

/// What threads had done when they were first seen not to sleep.
#[derive(Debug, Default)]
pub(crate) struct Computing {
    since: VecDeque<(i32, Activity)>,
}

/// A thread's time on a CPU from one switch to the next, or its wait for the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    thread: &'a ThreadProbe,
    number: u64,
}

impl Computing {
    /// The run that a thread is in, if it has computed since an earlier call of this.
    ///
    /// Allocates, and takes some 30 us.
    pub(crate) fn confirm<'a>(&mut self, thread: &'a ThreadProbe) -> Result<Run<'a>, Miss> {
        let number = thread.spent().ok_or(Miss::Gone)?.runs;
        let now = thread.activity().ok_or(Miss::Gone)?;
        if !self.has_computed(thread.tid(), now) {
            return Err(Miss::Queued);
        }
        Ok(Run { thread, number })
    }

    fn has_computed(&mut self, tid: i32, now: Activity) -> bool {
        let known = self.since.iter().position(|(of, _)| *of == tid);
        match known.and_then(|at| self.since.get_mut(at)) {
            // The id may be another thread's by now, which has less behind it.
            Some((_, since)) if since.sleeps == now.sleeps && since.cpu_ns <= now.cpu_ns => {
                now.cpu_ns - since.cpu_ns >= LONG_NS
            }
            Some((_, since)) => {
                *since = now;
                false
            }
            None => {
                self.since.truncate(MOST - 1);
                self.since.push_front((tid, now));
                false
            }
        }
    }
}

impl Run<'_> {
    /// Whether the thread has not been switched since, nor gone to sleep; 10 us.
    pub(crate) fn goes_on(self) -> bool {
        let same = |spent: crate::detector::Spent| spent.runs == self.number;
        let awake = |file: &std::fs::File| Position::read(file).is_ok_and(|now| now.at.is_none());
        self.thread.spent().is_some_and(same)
            && self.thread.syscall().is_ok_and(|file| awake(&file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(sleeps: u64, cpu_us: u64) -> Activity {
        let cpu_ns = cpu_us * 1_000;
        Activity { sleeps, cpu_ns }
    }

    #[test]
    fn a_thread_must_have_computed_since_it_last_slept() {
        let mut computing = Computing::default();
        for (now, expected) in [
            (at(3, 50_000), false),
            (at(3, 50_999), false),
            (at(3, 51_000), true),
            (at(3, 53_000), true),
            // It has slept.
            (at(4, 53_100), false),
            (at(4, 54_099), false),
            (at(4, 54_100), true),
            // It is another with the same id.
            (at(4, 10), false),
            (at(4, 1_010), true),
        ] {
            assert_eq!(computing.has_computed(7, now), expected, "{now:?}");
        }
        assert!(!computing.has_computed(8, at(4, 90_000)), "another thread");
    }

    #[test]
    fn few_threads_are_remembered() {
        let mut computing = Computing::default();
        for tid in 0..1_000 {
            assert!(!computing.has_computed(tid, at(0, 0)));
        }
        assert_eq!(computing.since.len(), MOST);
        assert!(computing.has_computed(999, at(0, 1_000)));
        assert!(!computing.has_computed(0, at(0, 1_000)), "forgotten");
    }
}
