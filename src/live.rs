//! Tracked futures as they are at one moment: plain data.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::escape::part;
use crate::stall::{Location, Task};

/// What a tracked future is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TaskState {
    /// It is being polled.
    Polling,
    /// It was woken, and waits for its turn.
    Woken,
    /// Something holds a waker of it, and has not used it yet.
    Waiting,
    /// Nothing holds a waker of it, and none was used: it has been forgotten, or
    /// has returned `Pending` without asking to be woken. Only whatever polls it
    /// can poll it again by itself, as `select!` and `join!` do.
    Unwakeable,
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            TaskState::Polling => "polling",
            TaskState::Woken => "woken",
            TaskState::Waiting => "waiting",
            TaskState::Unwakeable => "unwakeable",
        })
    }
}

/// A tracked future at one moment; from [`Watchdog::tasks`](crate::Watchdog::tasks).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveTask {
    #[serde(flatten)]
    pub(crate) task: Task,
    pub(crate) state: TaskState,
    pub(crate) age_ns: u64,
    pub(crate) since_ns: u64,
    pub(crate) polls: u64,
    pub(crate) busy_ns: u64,
}

impl LiveTask {
    /// The name given to [`watched`](crate::WatchExt::watched).
    pub fn name(&self) -> &str {
        self.task.name()
    }

    /// Where it was given; `None` for `other`, which stands for all beyond the bound.
    pub const fn location(&self) -> Option<&Location> {
        self.task.location()
    }

    /// tokio's id of the task it runs in, as `tokio::task::Id` prints it.
    pub const fn id(&self) -> Option<u64> {
        self.task.id()
    }

    /// What it is doing.
    pub const fn state(&self) -> TaskState {
        self.state
    }

    /// Since its first poll.
    pub const fn age(&self) -> Duration {
        Duration::from_nanos(self.age_ns)
    }

    /// Since its poll in progress began, or its last poll ended.
    pub const fn since(&self) -> Duration {
        Duration::from_nanos(self.since_ns)
    }

    /// How many of its polls are over.
    pub const fn polls(&self) -> u64 {
        self.polls
    }

    /// How long it has been polled in all, with the poll in progress.
    pub const fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_ns)
    }

    /// How long it has not been polled, in all.
    pub const fn idle(&self) -> Duration {
        Duration::from_nanos(self.age_ns.saturating_sub(self.busy_ns))
    }

    /// Whether it has waited for so long without having been woken.
    pub fn is_stuck(&self, after: Duration) -> bool {
        self.is_stuck_for(clock::ns_of(after))
    }

    pub(crate) fn is_stuck_for(&self, after_ns: u64) -> bool {
        matches!(self.state, TaskState::Waiting | TaskState::Unwakeable)
            && self.since_ns >= after_ns
    }
}

impl fmt::Display for LiveTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` {} for {:.1?}",
            part(self.name()),
            self.state,
            self.since()
        )?;
        if let Some(location) = self.location() {
            write!(f, " (future made at {location})")?;
        }
        Ok(())
    }
}
