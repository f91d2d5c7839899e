//! What an audit tells of blocking: plain data.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::stall::{Cause, Location, Stack, Task};

/// By what an audit knows that a poll blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Detection {
    /// Each call that blocks by what it is, whether it had to wait or not, and
    /// each sleep in the kernel: with the feature `interpose`, on Linux.
    Calls,
    /// Each sleep in the kernel, by the kernel's own count: on Linux.
    Sleeps,
    /// Not at all: on other platforms only long polls are found.
    Nothing,
}

impl fmt::Display for Detection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Detection::Calls => "blocking calls and sleeps",
            Detection::Sleeps => "sleeps",
            Detection::Nothing => "nothing",
        })
    }
}

/// What blocked in one way at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocking {
    pub(crate) task: Task,
    pub(crate) cause: Cause,
    pub(crate) stack: Option<Stack>,
    pub(crate) count: u64,
    pub(crate) sleeps: u64,
    pub(crate) total_ns: u64,
    pub(crate) max_ns: u64,
}

impl Blocking {
    /// The future in whose polls it happened.
    pub const fn task(&self) -> &Task {
        &self.task
    }

    /// In which call, as far as that is known.
    pub fn cause(&self) -> Cause {
        self.cause.clone()
    }

    /// Where, as far as that is known.
    pub const fn stack(&self) -> Option<&Stack> {
        self.stack.as_ref()
    }

    /// How often: calls where these are seen, else polls.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// How often the thread went to sleep for it; 0 for a call that had no need to wait.
    pub const fn sleeps(&self) -> u64 {
        self.sleeps
    }

    /// How long all of it took; an upper bound where only whole polls are timed.
    pub const fn total(&self) -> Duration {
        Duration::from_nanos(self.total_ns)
    }

    /// How long the longest took.
    pub const fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns)
    }
}

/// What was allowed, by [`allow_blocking`](crate::allow_blocking) or
/// [`Audit::allow`](crate::Audit::allow).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    pub(crate) reason: String,
    pub(crate) location: Location,
    pub(crate) count: u64,
    pub(crate) sleeps: u64,
    pub(crate) total_ns: u64,
}

impl Allowed {
    /// The reason that was given; after the function, where one was allowed by its path.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Where it was given.
    pub const fn location(&self) -> &Location {
        &self.location
    }

    /// How often it was made use of: sections, or what was found in the function.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// How often the thread went to sleep in it: 0 means that a section is not needed.
    pub const fn sleeps(&self) -> u64 {
        self.sleeps
    }

    /// How long all of it took.
    pub const fn total(&self) -> Duration {
        Duration::from_nanos(self.total_ns)
    }
}
