//! Who held a lock that a stall waited for: plain data.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::escape::part;
use crate::stall::{Frame, StallId};

/// Who held the lock that a stalled thread waited for: see
/// [`Stall::held_by`](crate::Stall::held_by).
///
/// Displays as `worker 2 in app::purge src/state.rs:55`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub(crate) worker: Option<usize>,
    pub(crate) thread: Option<String>,
    pub(crate) stall: Option<StallId>,
    pub(crate) place: Option<Frame>,
    pub(crate) seen_ns: u64,
}

impl Holder {
    /// The worker it was; `None` for a thread that is none.
    pub const fn worker(&self) -> Option<usize> {
        self.worker
    }

    /// The name of the thread, as the system has it: at most 15 bytes.
    pub fn thread(&self) -> Option<&str> {
        self.thread.as_deref()
    }

    /// The stall of that thread meanwhile, if there was one: how long it lasted says how
    /// long the lock was held at most, by that poll or turn.
    pub const fn stall(&self) -> Option<StallId> {
        self.stall
    }

    /// The function of the user's within which it held the lock, and the line where that
    /// was: of the function that had the guard, or of the next one further out.
    ///
    /// Of a mutex of pthreads, which names its owner and not where it was locked, the
    /// function that the owner was in.
    pub const fn place(&self) -> Option<&Frame> {
        self.place.as_ref()
    }

    /// From the first look that saw it hold the lock to the last. It may have held it for
    /// longer; zero where it was seen once.
    pub const fn seen(&self) -> Duration {
        Duration::from_nanos(self.seen_ns)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.worker, &self.thread) {
            (Some(worker), _) => write!(f, "worker {worker}")?,
            (None, Some(name)) => write!(f, "thread `{}`", part(name))?,
            (None, None) => f.write_str("another thread")?,
        }
        if let Some(place) = &self.place {
            write!(f, " in {}", place.short())?;
        }
        Ok(())
    }
}
