//! How late the event loop runs what is due, by a task that sleeps.
//!
//! The task uses the runtime's own timers and nothing else: a message or a
//! spawn from outside would wake an idle worker, which would take over the
//! timers and heal the very lag that was to be measured. It is a signal, not
//! the detector: while one of several workers is blocked, another runs it.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Calibrated;
use crate::histogram::{Histogram, Recorder, Summary};
use crate::local;
use crate::runtime::Sentinel;

/// What the sampler has measured, and what it must not count.
#[derive(Debug)]
pub(crate) struct Lag {
    recorder: Recorder,
    /// When the watchdog means to wake next; a past time if it stands still too.
    planned_ns: AtomicU64,
    gap_start_ns: AtomicU64,
    gap_end_ns: AtomicU64,
    tolerance_ns: u64,
}

impl Lag {
    /// A watchdog that is later than `tolerance_ns` stands still.
    pub(crate) fn new(tolerance_ns: u64) -> Self {
        Lag {
            recorder: Recorder::new(),
            planned_ns: AtomicU64::new(u64::MAX),
            gap_start_ns: AtomicU64::new(0),
            gap_end_ns: AtomicU64::new(0),
            tolerance_ns,
        }
    }

    pub(crate) fn summary(&self) -> Summary {
        let mut histogram = Histogram::new();
        self.recorder.add_to(&mut histogram);
        histogram.summary()
    }

    /// From the watchdog: when it means to wake next.
    pub(crate) fn plan(&self, planned_ns: u64) {
        self.planned_ns.store(planned_ns, Relaxed);
    }

    /// From the watchdog: it stood still for this span.
    pub(crate) fn gap(&self, start_ns: u64, end_ns: u64) {
        self.gap_start_ns.store(start_ns, Relaxed);
        self.gap_end_ns.store(end_ns, Relaxed);
    }

    /// Counts one sample, and those that a stall has kept from being taken.
    fn record(&self, due_ns: u64, now_ns: u64, period_ns: u64) {
        let mut late_ns = self.own_lateness_ns(due_ns, now_ns);
        self.recorder.record(late_ns);
        while late_ns >= period_ns.max(1) {
            late_ns -= period_ns;
            self.recorder.record(late_ns);
        }
    }

    /// Lateness without the time in which the whole process stood still.
    fn own_lateness_ns(&self, due_ns: u64, now_ns: u64) -> u64 {
        let overlap = |start: u64, end: u64| end.min(now_ns).saturating_sub(start.max(due_ns));
        let planned_ns = self.planned_ns.load(Relaxed);
        let still_ns = if now_ns > planned_ns.saturating_add(self.tolerance_ns) {
            // The process has just come back, and this task ran before the watchdog.
            overlap(planned_ns, now_ns)
        } else {
            overlap(
                self.gap_start_ns.load(Relaxed),
                self.gap_end_ns.load(Relaxed),
            )
        };
        now_ns.saturating_sub(due_ns).saturating_sub(still_ns)
    }
}

/// The task; `sentinel` tells when the runtime drops it.
pub(crate) async fn sample(
    lag: std::sync::Arc<Lag>,
    clock: &'static Calibrated,
    period: Duration,
    sentinel: Sentinel,
) {
    let period_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
    loop {
        let due = Instant::now() + period;
        let asked_ns = clock.now_ns();
        tokio::time::sleep_until(due).await;
        let now_ns = clock.now_ns();
        local::announce();
        if now_ns.saturating_sub(asked_ns) < period_ns / 2 {
            // Time is paused and jumps from timer to timer: there is no lag to
            // measure, and a timer of ours would make it jump for ever.
            break;
        }
        lag.record(asked_ns.saturating_add(period_ns), now_ns, period_ns);
    }
    wait_for_the_end(sentinel).await;
}

/// What remains of the task where lag is not sampled.
pub(crate) async fn wait_for_the_end(sentinel: Sentinel) {
    local::announce();
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
        // The watchdog is just as late.
        assert_eq!(lag.own_lateness_ns(100 * MS, 3_100 * MS), 10 * MS);
        // It has come back before this task did.
        lag.gap(110 * MS, 3_100 * MS);
        lag.plan(3_105 * MS);
        assert_eq!(lag.own_lateness_ns(100 * MS, 3_101 * MS), 11 * MS);
        // An old gap takes nothing off a later sample.
        lag.plan(3_255 * MS);
        assert_eq!(lag.own_lateness_ns(3_200 * MS, 3_250 * MS), 50 * MS);
    }
}
