//! The blocking pool: how long its work waits for a thread.
//!
//! tokio tells it only by unstable metrics, and a probe that is sent to the pool
//! would wake a thread of an idle runtime, and wait among the work it is to measure.
//! So work that is to be seen is handed over here, and measures its own wait.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::clock::{self, Calibrated, Ticks};
use crate::histogram::Histogram;
use crate::recorder::Recorder;
use crate::registry::lock;

static POOL: Mutex<Pool> = Mutex::new(Pool {
    next: 0,
    queued: BTreeMap::new(),
    running: 0,
    most_running: 0,
});

/// Written under the lock of [`POOL`], by one thread at a time; read without it, as a
/// report must not hold up the thread that hands work over.
static WAITS: Recorder = Recorder::new();

/// All work of the process that was handed over by [`spawn_blocking`].
#[derive(Debug)]
struct Pool {
    next: u64,
    /// By number, and so in order, when each was handed over.
    queued: BTreeMap<u64, Ticks>,
    running: usize,
    most_running: usize,
}

/// Work handed to the blocking pool, at one moment; from
/// [`Health::blocking_pool`](crate::Health::blocking_pool).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockingPool {
    pub(crate) queued: usize,
    pub(crate) running: usize,
    pub(crate) most_running: usize,
    pub(crate) longest_wait_ns: u64,
}

impl BlockingPool {
    /// Waits for a thread.
    pub const fn queued(&self) -> usize {
        self.queued
    }

    /// Runs.
    pub const fn running(&self) -> usize {
        self.running
    }

    /// The most that ever ran at once: as many threads are in use if the pool is full.
    pub const fn most_running(&self) -> usize {
        self.most_running
    }

    /// For how long what has waited longest has been waiting; zero if nothing waits.
    pub const fn longest_wait(&self) -> Duration {
        Duration::from_nanos(self.longest_wait_ns)
    }

    /// Whether work has been waiting for so long: all threads of the pool are taken,
    /// or the system has no CPU for another one.
    pub fn is_saturated(&self, after: Duration) -> bool {
        self.queued > 0 && self.longest_wait() >= after
    }
}

/// [`tokio::task::spawn_blocking`] of work whose wait for a thread is measured.
///
/// Reports have the waits ([`Report::blocking_waits`](crate::Report::blocking_waits)),
/// and [`Health::blocking_pool`](crate::Health::blocking_pool) tells what waits now.
/// They are of the whole process. It measures only while a watchdog has been
/// started, and does nothing on its own, so an idle runtime stays idle.
///
/// # Panics
/// Outside a tokio runtime, as `tokio::task::spawn_blocking` does.
///
/// # Cost
/// Two short locks and two readings of the clock, beside some 10 us that it takes to
/// wake a thread.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let watchdog = stallscope::Watchdog::start().unwrap();
/// let sum = stallscope::spawn_blocking(|| (1..=100).sum::<u32>()).await.unwrap();
/// assert_eq!(sum, 5_050);
/// assert_eq!(watchdog.report().blocking_waits().count(), 1);
/// # }
/// ```
#[track_caller]
pub fn spawn_blocking<F, R>(work: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    let mut handed = Handed::over();
    tokio::task::spawn_blocking(move || {
        let _running = handed.begins();
        work()
    })
}

/// Work that waits; a runtime that shuts down drops it.
#[derive(Debug)]
struct Handed(Option<u64>);

impl Handed {
    fn over() -> Self {
        let now = clock::ticks();
        if now == 0 {
            return Handed(None);
        }
        let mut pool = lock(&POOL);
        pool.next += 1;
        let number = pool.next;
        pool.queued.insert(number, now);
        Handed(Some(number))
    }

    fn begins(&mut self) -> Option<Running> {
        let number = self.0.take()?;
        let now = clock::ticks();
        let mut pool = lock(&POOL);
        let since = pool.queued.remove(&number)?;
        WAITS.record(clock::ns_from_to(since, now).unwrap_or(0));
        pool.running += 1;
        pool.most_running = pool.most_running.max(pool.running);
        Some(Running)
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        if let Some(number) = self.0 {
            lock(&POOL).queued.remove(&number);
        }
    }
}

/// Work that runs; over also if it panics.
#[derive(Debug)]
struct Running;

impl Drop for Running {
    fn drop(&mut self) {
        lock(&POOL).running -= 1;
    }
}

/// How the pool is now.
pub(crate) fn look(clock: &Calibrated) -> BlockingPool {
    let pool = lock(&POOL);
    let first = pool.queued.values().next();
    BlockingPool {
        queued: pool.queued.len(),
        running: pool.running,
        most_running: pool.most_running,
        longest_wait_ns: first.map_or(0, |since| {
            clock.now_ns().saturating_sub(clock.ns_of(*since))
        }),
    }
}

/// How long all work has waited that has begun.
pub(crate) fn waits() -> Histogram {
    let mut waits = Histogram::new();
    waits.add_recorder(&WAITS);
    waits
}
