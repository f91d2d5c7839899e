//! tokio-metrics: one monitor for tasks of one kind, as in its README.

use std::future::Future;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

use super::poller::Poller;
use crate::contender::{Contender, Failure, Like, Settings, Tells, build};
use crate::told::{Claim, Log};

pub(crate) struct TaskMonitor {
    monitor: tokio_metrics::TaskMonitor,
    _poller: Option<Poller>,
}

/// Slow polls of an interval, told when the interval is read.
fn tell(log: &Log, interval: &tokio_metrics::TaskMetrics) {
    for _ in 0..interval.total_slow_poll_count {
        log.tell(Claim::Poll, Some(interval.mean_slow_poll_duration()));
    }
}

impl Contender for TaskMonitor {
    const NAME: &'static str = "tokio-metrics, TaskMonitor";
    const DOES: &'static str =
        "reads the clock three times and once a wake, adds to shared counters of polls and delays";
    const LIKE: Like = Like::Timed;
    const TELLS: Tells = Tells::Program;

    fn start(builder: Builder, settings: &Settings) -> Result<(Runtime, Self), Failure> {
        let mut monitor = tokio_metrics::TaskMonitor::builder();
        monitor.with_slow_poll_threshold(settings.threshold);
        let monitor = monitor.build();
        let poller = settings.log.clone().map(|log| {
            let mut intervals = monitor.intervals();
            Poller::start(move || {
                if let Some(interval) = intervals.next() {
                    tell(&log, &interval);
                }
            })
        });
        let contender = TaskMonitor {
            monitor,
            _poller: poller,
        };
        Ok((build(builder)?, contender))
    }

    fn spawn<F>(&self, on: &Handle, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        on.spawn(self.monitor.instrument(future))
    }
}
