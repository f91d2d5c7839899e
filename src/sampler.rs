//! How late the event loop runs what is due, by a task that sleeps.
//!
//! The task uses the runtime's own timers and nothing else: a message or a
//! spawn from outside would wake an idle worker, which would take over the
//! timers and heal the very lag that was to be measured. It is a signal, not
//! the detector: while one of several workers is blocked, another runs it.

use std::future::poll_fn;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::runtime::RuntimeMetrics;
use tokio::time::Instant;

use crate::clock::{self, Calibrated};
use crate::histogram::{Histogram, Summary};
use crate::local;
use crate::pending::Pending;
use crate::recorder::{self, Recorder};
use crate::registry::lock;
use crate::runtime::{self, Sentinel};
use crate::worker::Asked;

/// How many different durations wait at once to be counted: those that a stall of a
/// second has swallowed, and then some.
const PENDING: usize = 32;

/// What the sampler has measured, and what it must not count.
#[derive(Debug)]
pub(crate) struct Lag {
    recorder: Recorder,
    /// Of samples that wait for a chunk of the recorder.
    pending: Pending<PENDING>,
    /// When the watchdog means to wake next; a past time if it is late too.
    planned_ns: AtomicU64,
    gap_start_ns: AtomicU64,
    gap_end_ns: AtomicU64,
    tolerance_ns: u64,
    rest: Rest,
}

/// Samples wake a worker, so where nothing else does they are not taken.
#[derive(Debug, Default)]
struct Rest {
    allowed: AtomicBool,
    resting: Mutex<Option<Resting>>,
}

#[derive(Debug)]
struct Resting {
    task: Waker,
    /// The watchdog has seen the workers park after the last sample.
    noticed: bool,
}

impl Lag {
    /// A watchdog that is later than `tolerance_ns` stands still.
    pub(crate) fn new(tolerance_ns: u64) -> Self {
        Lag {
            recorder: Recorder::new(),
            pending: Pending::new(),
            planned_ns: AtomicU64::new(u64::MAX),
            gap_start_ns: AtomicU64::new(0),
            gap_end_ns: AtomicU64::new(0),
            tolerance_ns,
            rest: Rest::default(),
        }
    }

    /// From the watchdog: hooks will tell it when the runtime is at work again.
    pub(crate) fn may_rest(&self) {
        self.rest.allowed.store(true, Relaxed);
    }

    /// From the watchdog, while all workers are parked, with whether one has been at
    /// work since it last looked: whether sampling is to be [resumed](Lag::resume).
    pub(crate) fn is_to_resume(&self, worked: bool) -> bool {
        // The task holds the lock for a moment at most; the watchdog looks again.
        let Ok(mut resting) = self.rest.resting.try_lock() else {
            return false;
        };
        match &mut *resting {
            Some(rest) if !rest.noticed => {
                rest.noticed = true;
                false
            }
            Some(_) => worked,
            None => false,
        }
    }

    /// Wakes the task. Takes locks of tokio's, so this is not for the thread that looks.
    ///
    /// This may wake a worker, which takes over the timers of one that is stuck,
    /// and so heals the lag: that is why all must be parked.
    pub(crate) fn resume(&self) {
        let resting = lock(&self.rest.resting).take();
        if let Some(rest) = resting {
            rest.task.wake();
        }
    }

    /// Waits until the watchdog says that the runtime is at work.
    async fn rest(&self) {
        let mut asked = false;
        poll_fn(|cx| {
            let mut resting = lock(&self.rest.resting);
            if asked && resting.is_none() {
                return Poll::Ready(());
            }
            asked = true;
            *resting = Some(Resting {
                task: cx.waker().clone(),
                noticed: false,
            });
            Poll::Pending
        })
        .await;
    }

    pub(crate) fn summary(&self) -> Summary {
        let recorded = || {
            let mut histogram = Histogram::new();
            histogram.add_recorder(&self.recorder);
            histogram
        };
        let add = |histogram: &mut Histogram, _, ns, times| histogram.record_many(ns, times);
        self.pending.read(recorded, add).summary()
    }

    /// From the watchdog: when it means to wake next.
    pub(crate) fn plan(&self, planned_ns: u64) {
        self.planned_ns.store(planned_ns, Relaxed);
    }

    /// From the watchdog: the whole process stood still for this span.
    pub(crate) fn gap(&self, start_ns: u64, end_ns: u64) {
        self.gap_start_ns.store(start_ns, Relaxed);
        self.gap_end_ns.store(end_ns, Relaxed);
    }

    /// Whether the watchdog is late at this moment. Then it is not known yet whether the
    /// whole process stood still, or the watchdog alone.
    fn is_undecided(&self, now_ns: u64) -> bool {
        let planned_ns = self.planned_ns.load(Relaxed);
        now_ns > planned_ns.saturating_add(self.tolerance_ns)
    }

    /// Counts one sample, and those that a stall has kept from being taken.
    fn record(&self, due_ns: u64, now_ns: u64, period_ns: u64) {
        let mut late_ns = self.own_lateness_ns(due_ns, now_ns);
        self.count(late_ns);
        while late_ns >= period_ns.max(1) {
            late_ns -= period_ns;
            self.count(late_ns);
        }
    }

    /// The sampler only: counts a duration, or keeps it until there is a counter for it.
    /// Allocates nothing, because the sampler is polled on a worker.
    fn count(&self, ns: u64) {
        let count = |ns, times| self.recorder.record_from_stock(ns, times);
        if count(ns, 1) {
            self.pending.settle(|_, ns, times| count(ns, times));
        } else if !self.pending.add(0, ns, 1) {
            recorder::leave_uncounted(1);
        }
    }

    /// Lateness without the time in which the whole process stood still.
    fn own_lateness_ns(&self, due_ns: u64, now_ns: u64) -> u64 {
        let start_ns = self.gap_start_ns.load(Relaxed).max(due_ns);
        let end_ns = self.gap_end_ns.load(Relaxed).min(now_ns);
        let still_ns = end_ns.saturating_sub(start_ns);
        now_ns.saturating_sub(due_ns).saturating_sub(still_ns)
    }
}

/// How many samples in a row nothing else may have woken a worker.
const QUIET_SAMPLES: u32 = 3;

/// How often workers park and wake, together, for a sample: the one that takes it,
/// one that it wakes to look for more work, and now and then one more.
const PARKS_OF_A_SAMPLE: u64 = 6;

/// Whether the runtime does nothing but to take samples, or next to nothing.
#[derive(Debug, Default)]
struct Quiet {
    parks: u64,
    samples: u32,
}

impl Quiet {
    /// To be asked at each sample.
    fn lasts(&mut self, metrics: &RuntimeMetrics) -> bool {
        let parks = runtime::parks(metrics);
        let before = std::mem::replace(&mut self.parks, parks);
        let only_this = parks.saturating_sub(before) <= PARKS_OF_A_SAMPLE;
        self.samples = if only_this { self.samples + 1 } else { 0 };
        self.samples >= QUIET_SAMPLES
    }
}

/// The task; `sentinel` tells when the runtime drops it.
pub(crate) async fn sample(
    lag: std::sync::Arc<Lag>,
    clock: &'static Calibrated,
    period: Duration,
    metrics: RuntimeMetrics,
    sentinel: Sentinel,
) {
    let period_ns = clock::ns_of(period);
    let mut quiet = Quiet::default();
    // A sample that came while the watchdog was late: it is counted with the next.
    let mut undecided = None;
    loop {
        let due = Instant::now() + period;
        let asked_ns = clock.now_ns();
        tokio::time::sleep_until(due).await;
        let now_ns = clock.now_ns();
        local::announce(Asked::InOwnTask);
        if now_ns.saturating_sub(asked_ns) < period_ns / 2 {
            // Time is paused and jumps from timer to timer: there is no lag to
            // measure, and a timer of ours would make it jump for ever.
            break;
        }
        if let Some((due_ns, now_ns)) = undecided.take() {
            lag.record(due_ns, now_ns, period_ns);
        }
        let due_ns = asked_ns.saturating_add(period_ns);
        if lag.is_undecided(now_ns) {
            undecided = Some((due_ns, now_ns));
        } else {
            lag.record(due_ns, now_ns, period_ns);
        }
        if lag.rest.allowed.load(Relaxed) && quiet.lasts(&metrics) {
            lag.rest().await;
        }
    }
    wait_for_the_end(sentinel).await;
}

/// What remains of the task where lag is not sampled.
pub(crate) async fn wait_for_the_end(sentinel: Sentinel) {
    local::announce(Asked::InOwnTask);
    std::future::pending::<()>().await;
    drop(sentinel);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_stall_counts_for_each_sample_it_swallowed() {
        let lag = Lag::new(10 * MS);
        // Due at 100 ms, run at 150: late by 50, and the samples due at 120 and
        // 140 would have been late by 30 and 10.
        lag.record(100 * MS, 150 * MS, 20 * MS);
        let summary = lag.summary();
        assert_eq!(summary.count(), 3);
        assert_eq!(summary.total(), Duration::from_millis(50 + 30 + 10));
    }

    #[test]
    fn time_in_which_the_process_stood_still_is_no_lag() {
        let lag = Lag::new(10 * MS);
        lag.plan(110 * MS);
        // The watchdog is just as late, and has not said yet why.
        assert!(lag.is_undecided(3_100 * MS));
        lag.gap(110 * MS, 3_100 * MS);
        lag.plan(3_105 * MS);
        assert!(!lag.is_undecided(3_101 * MS));
        assert_eq!(lag.own_lateness_ns(100 * MS, 3_100 * MS), 10 * MS);
        assert_eq!(lag.own_lateness_ns(100 * MS, 3_101 * MS), 11 * MS);
        // An old gap takes nothing off a later sample.
        lag.plan(3_255 * MS);
        assert_eq!(lag.own_lateness_ns(3_200 * MS, 3_250 * MS), 50 * MS);
        // Nor does the lateness of a watchdog that was late alone.
        assert!(lag.is_undecided(3_300 * MS));
        lag.plan(3_305 * MS);
        assert_eq!(lag.own_lateness_ns(3_250 * MS, 3_300 * MS), 50 * MS);
    }
}
