//! The end of a thread, which another waits for, but not for ever.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use crate::os::AutoResetEvent;

/// Whether a thread has ended. Unlike a join, the wait for it has a bound.
#[derive(Debug)]
pub(crate) struct Ending {
    over: AtomicBool,
    ended: AutoResetEvent,
}

impl Ending {
    pub(crate) const fn new() -> Self {
        Ending {
            over: AtomicBool::new(false),
            ended: AutoResetEvent::new(),
        }
    }

    /// From the thread: it is about to end.
    pub(crate) fn set(&self) {
        // Release: pairs with the acquire in `wait`, so that what the thread did is seen.
        self.over.store(true, Release);
        self.ended.set();
    }

    /// Waits for the end, but not longer than this.
    pub(crate) fn wait(&self, at_most: Duration) {
        let start = Instant::now();
        while !self.over.load(Acquire) {
            let left = at_most.saturating_sub(start.elapsed());
            if left.is_zero() {
                return;
            }
            self.ended.wait(Some(left));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_has_a_bound_and_an_end_lasts() {
        let ending = Ending::new();
        ending.wait(Duration::from_millis(1));
        std::thread::scope(|scope| {
            scope.spawn(|| ending.wait(Duration::from_secs(3_600)));
            ending.set();
        });
        ending.wait(Duration::from_secs(3_600));
    }
}
