//! What a contender told of stalls, and when.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a report claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// One poll was as long as the threshold.
    Poll,
    /// The event loop was held up, by whatever number of polls.
    Loop,
}

/// One report.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub at: Instant,
    pub claim: Claim,
    /// As far as it is known.
    pub duration: Option<Duration>,
    /// More of a stall that was told already.
    pub again: bool,
    /// Read from a recording: then it is not told at `at`, but of a stall at `at`.
    pub recorded: bool,
}

/// All reports of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Told>>>);

impl Log {
    pub(crate) fn push(&self, told: Told) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(told);
    }

    /// Tells now, once and for all.
    pub(crate) fn tell(&self, claim: Claim, duration: Option<Duration>) {
        self.push(Told {
            at: Instant::now(),
            claim,
            duration,
            again: false,
            recorded: false,
        });
    }

    pub(crate) fn all(&self) -> Vec<Told> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
