//! A thread waits until another sets an event.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// An event that one thread waits for, and that the wait takes back.
#[derive(Debug, Default)]
pub(crate) struct AutoResetEvent {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl AutoResetEvent {
    pub(crate) const fn new() -> Self {
        AutoResetEvent {
            is_set: Mutex::new(false),
            changed: Condvar::new(),
        }
    }

    /// Wakes the thread that waits, or lets the next wait return at once.
    pub(crate) fn set(&self) {
        let mut is_set = self.is_set.lock().unwrap_or_else(PoisonError::into_inner);
        *is_set = true;
        self.changed.notify_one();
    }

    /// Waits until the event is set, for at most this long, and takes it back; may
    /// return earlier. Of one thread only.
    pub(crate) fn wait(&self, at_most: Option<Duration>) {
        let is_set = self.is_set.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_set = match at_most {
            _ if *is_set => is_set,
            Some(at_most) => {
                let waited = self.changed.wait_timeout(is_set, at_most);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let waited = self.changed.wait(is_set);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        };
        *is_set = false;
    }
}
