//! How things are at the moment, for readiness endpoints, and how the watchdog itself is doing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::histogram::Summary;
use crate::pool::BlockingPool;
use crate::severity::Severity;
use crate::stall::{Stall, is_zero};

/// A worker that is held up for so much of a minute serves nobody well.
const UNHEALTHY_PERMILLE: u16 = 500;

/// How a runtime and its watchdog are at one moment.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let watchdog = stallscope::Watchdog::start().unwrap();
/// let status = if watchdog.health().is_healthy() { 200 } else { 503 };
/// # assert_eq!(status, 200);
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    pub(crate) ongoing: Vec<Stall>,
    #[serde(default)]
    pub(crate) stalled_permille: u16,
    pub(crate) runtime_gone: bool,
    pub(crate) last_tick_ns: u64,
    #[serde(default)]
    pub(crate) asleep: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) runtimes: Vec<RuntimeHealth>,
    pub(crate) tick_ns: u64,
    pub(crate) alive_tasks: usize,
    pub(crate) global_queue_depth: usize,
    #[serde(default)]
    pub(crate) blocking_pool: BlockingPool,
    pub(crate) gaps: u64,
    pub(crate) gaps_ns: u64,
    pub(crate) callback_panics: u64,
    pub(crate) slow_callbacks: u64,
    pub(crate) dropped_events: u64,
    pub(crate) stack_misses: u64,
    pub(crate) no_stacks: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) symbolizer_panics: u64,
    pub(crate) suppressed: u64,
    pub(crate) folded_names: u64,
    #[serde(default)]
    pub(crate) untracked: u64,
    pub(crate) unwatched_threads: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) uncounted_polls: u64,
}

/// How one of several runtimes is.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let watchdog = stallscope::Watchdog::builder().name("io").start().unwrap();
/// for runtime in watchdog.health().runtimes() {
///     println!("{}: {} tasks", runtime.name(), runtime.alive_tasks());
/// }
/// # assert_eq!(watchdog.health().runtimes()[0].name(), "io");
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuntimeHealth {
    pub(crate) name: String,
    pub(crate) workers: usize,
    pub(crate) gone: bool,
    pub(crate) alive_tasks: usize,
    pub(crate) global_queue_depth: usize,
    pub(crate) lag: Summary,
}

impl RuntimeHealth {
    /// As in [`Stall::runtime`](crate::Stall::runtime).
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many workers it has.
    pub const fn workers(&self) -> usize {
        self.workers
    }

    /// Whether it is being or has been shut down.
    pub const fn is_gone(&self) -> bool {
        self.gone
    }

    /// Tasks of it that are not over.
    pub const fn alive_tasks(&self) -> usize {
        self.alive_tasks
    }

    /// Tasks that wait in the queue shared by all its workers.
    pub const fn global_queue_depth(&self) -> usize {
        self.global_queue_depth
    }

    /// How late its event loop ran what was due, since it is watched.
    pub const fn lag(&self) -> &Summary {
        &self.lag
    }
}

impl Health {
    /// Whether no stall of [`Severity::High`] or above goes on, no worker was held up for
    /// half of the last minute, and the watchdog is awake.
    ///
    /// For the last minute see [`stalled_share`](Health::stalled_share).
    pub fn is_healthy(&self) -> bool {
        self.is_watching()
            && self.stalled_permille < UNHEALTHY_PERMILLE
            && self
                .ongoing
                .iter()
                .all(|stall| stall.severity() < Severity::High)
    }

    /// Whether the watchdog has looked lately, within a second or ten ticks, whichever is
    /// longer, or sleeps because all workers are parked.
    pub fn is_watching(&self) -> bool {
        let patience = Duration::from_nanos(self.tick_ns)
            .saturating_mul(10)
            .max(Duration::from_secs(1));
        self.asleep || self.last_tick() <= patience
    }

    /// For which share of the last minute, from 0 to 1, the worker that was held up the
    /// most was so.
    ///
    /// Only stalls of [`Severity::Medium`] or above count, those in progress until now;
    /// not those for want of a CPU, nor standstills of the process. A watchdog that is
    /// younger than 10 s counts as one of 10 s: the first stall is not half of its life.
    pub fn stalled_share(&self) -> f64 {
        f64::from(self.stalled_permille) / 1e3
    }

    /// The stalls in progress, with their durations until now.
    pub fn ongoing(&self) -> &[Stall] {
        &self.ongoing
    }

    /// Whether the runtime is being or has been shut down.
    pub const fn is_runtime_gone(&self) -> bool {
        self.runtime_gone
    }

    /// How long ago the watchdog last looked.
    pub const fn last_tick(&self) -> Duration {
        Duration::from_nanos(self.last_tick_ns)
    }

    /// Whether the watchdog sleeps until a worker wakes; only with
    /// [`Builder::install`](crate::Builder::install).
    pub const fn is_asleep(&self) -> bool {
        self.asleep
    }

    /// Each runtime that is watched: that on which the watchdog was started, then those of
    /// [`Watchdog::watch`](crate::Watchdog::watch), in order.
    pub fn runtimes(&self) -> &[RuntimeHealth] {
        &self.runtimes
    }

    /// Tasks of the runtime that are not over.
    pub const fn alive_tasks(&self) -> usize {
        self.alive_tasks
    }

    /// Tasks that wait in the queue shared by all workers.
    pub const fn global_queue_depth(&self) -> usize {
        self.global_queue_depth
    }

    /// The work handed over by [`spawn_blocking`](crate::spawn_blocking).
    pub const fn blocking_pool(&self) -> BlockingPool {
        self.blocking_pool
    }

    /// How often the whole process stood still: it was stopped, or its machine was
    /// suspended or paused.
    ///
    /// That the watchdog alone was late, for want of a CPU or of memory, is no gap.
    pub const fn gaps(&self) -> u64 {
        self.gaps
    }

    /// For how long in all.
    ///
    /// No stall's severity counts this time. It is part of a stall's
    /// [duration](crate::Stall::duration), and told apart as
    /// [`Stall::suspended`](crate::Stall::suspended).
    pub const fn time_in_gaps(&self) -> Duration {
        Duration::from_nanos(self.gaps_ns)
    }

    /// How often an `on_stall` callback or a tracing subscriber panicked.
    pub const fn callback_panics(&self) -> u64 {
        self.callback_panics
    }

    /// How often an `on_stall` callback took longer than 100 ms.
    pub const fn slow_callbacks(&self) -> u64 {
        self.slow_callbacks
    }

    /// Events that were lost because a queue was full.
    ///
    /// One for each callback or subscriber for which 1,024 messages were waiting already:
    /// reports have the event all the same. And one for each event that found 512 others
    /// waiting for the report: reports lack it.
    pub const fn dropped_events(&self) -> u64 {
        self.dropped_events
    }

    /// How often the stack of a stuck thread could not be taken, not be proven, or not be
    /// symbolized because 64 were waiting for that.
    pub const fn stack_misses(&self) -> u64 {
        self.stack_misses
    }

    /// Why some stacks cannot be taken here, or have no lines; `None` as long as all can.
    ///
    /// The last reason of each kind, stacks first. It goes away when a stack of the kind
    /// that was lacking is had again; of running threads, only one of those shows that.
    /// [`docs::stacks`](crate::docs::stacks) lists what can be the matter.
    pub fn no_stacks(&self) -> Option<&str> {
        self.no_stacks.as_deref()
    }

    /// How often reading debug info has panicked in this process; such a function has its
    /// address only.
    pub const fn symbolizer_panics(&self) -> u64 {
        self.symbolizer_panics
    }

    /// Stalls of which no event was made, though reports have them: those that tracing was
    /// not given because their culprit had many, and those for want of a CPU beyond one a
    /// minute.
    pub const fn suppressed(&self) -> u64 {
        self.suppressed
    }

    /// Futures that are called `other` because the process has too many names.
    pub const fn folded_names(&self) -> u64 {
        self.folded_names
    }

    /// Futures that were not [tracked](crate::Watched::tracked) because there are too many.
    pub const fn untracked(&self) -> u64 {
        self.untracked
    }

    /// Polls of this process that are in no histogram, because more names and ranges of
    /// durations were new at once than memory was ready for.
    pub const fn uncounted_polls(&self) -> u64 {
        self.uncounted_polls
    }

    /// Threads whose polls are not seen because there are too many.
    pub const fn unwatched_threads(&self) -> u64 {
        self.unwatched_threads
    }
}
