//! A thread waits until another sets an event.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::time::Duration;

const UNSET: u32 = 0;
const SET: u32 = 1;

/// An event that one thread waits for, and that the wait takes back.
///
/// The wait is relative. That of the standard library ends at an absolute time, and a
/// program whose clock is shifted by a preloaded library (libfaketime) then waits for
/// days: the kernel's clock is not shifted. Neither side allocates or locks.
#[derive(Debug, Default)]
pub(crate) struct AutoResetEvent(AtomicU32);

impl AutoResetEvent {
    pub(crate) const fn new() -> Self {
        AutoResetEvent(AtomicU32::new(UNSET))
    }

    /// Wakes the thread that waits, or lets the next wait return at once.
    pub(crate) fn set(&self) {
        // Release: pairs with the acquire in `take`, so that the woken thread sees what
        // was written before.
        if self.0.swap(SET, Release) == UNSET {
            self.futex(libc::FUTEX_WAKE, 1, std::ptr::null());
        }
    }

    /// Waits until the event is set, for at most this long, and takes it back; may
    /// return earlier. Of one thread only.
    pub(crate) fn wait(&self, at_most: Option<Duration>) {
        if self.take() {
            return;
        }
        let timeout = at_most.map(|at_most| libc::timespec {
            tv_sec: libc::time_t::try_from(at_most.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: at_most.subsec_nanos().into(),
        });
        let timeout = timeout
            .as_ref()
            .map_or(std::ptr::null(), std::ptr::from_ref);
        // The kernel compares the word under its lock: a set just before is not missed.
        self.futex(libc::FUTEX_WAIT, UNSET, timeout);
        self.take();
    }

    fn take(&self) -> bool {
        // Acquire: pairs with the release in `set`.
        self.0.compare_exchange(SET, UNSET, AcqRel, Acquire).is_ok()
    }

    fn futex(&self, operation: i32, value: u32, timeout: *const libc::timespec) {
        // SAFETY: the word is valid for as long as `self` is borrowed; `timeout` is null
        // or points at a timespec that the caller keeps through the call. FUTEX_WAIT
        // takes a relative timeout (futex(2)), and FUTEX_WAKE ignores it.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.0.as_ptr(),
                operation | libc::FUTEX_PRIVATE_FLAG,
                value,
                timeout,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::Instant;

    #[test]
    fn a_wait_ends_after_its_time_or_when_the_event_is_set() {
        let event = AutoResetEvent::new();
        let start = Instant::now();
        event.wait(Some(Duration::from_millis(20)));
        // Less by what two clocks may differ.
        assert!(start.elapsed() >= Duration::from_millis(19));
        event.set();
        event.wait(None);
        std::thread::scope(|scope| {
            scope.spawn(|| event.wait(None));
            event.set();
        });
    }

    #[test]
    fn no_set_is_missed() {
        let event = AutoResetEvent::new();
        let begun = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=20_000 {
                    begun.store(round, Relaxed);
                    event.set();
                }
            });
            while begun.load(Relaxed) < 20_000 {
                // Would hang here.
                event.wait(None);
            }
        });
    }
}
