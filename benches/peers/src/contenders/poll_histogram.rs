//! tokio's own histogram of poll times, logarithmic: the default is linear and ends at a
//! millisecond.

use std::ops::Range;
use std::time::Duration;

use tokio::runtime::{Builder, HistogramConfiguration, LogHistogram, Runtime, RuntimeMetrics};

use super::poller::Poller;
use crate::contender::{Contender, Failure, Like, Settings, Tells, build};
use crate::told::{Claim, Log};

pub(crate) struct PollHistogram {
    _poller: Option<Poller>,
}

/// The buckets whose polls are as long as the threshold, or may be.
struct Slow {
    metrics: RuntimeMetrics,
    buckets: Vec<(usize, Duration)>,
    counted: Vec<u64>,
}

impl Slow {
    fn new(metrics: RuntimeMetrics, threshold: Duration) -> Self {
        let buckets: Vec<_> = (0..metrics.poll_time_histogram_num_buckets())
            .map(|bucket| (bucket, metrics.poll_time_histogram_bucket_range(bucket)))
            .filter(|(_, range)| range.end > threshold)
            .map(|(bucket, range)| (bucket, middle(&range)))
            .collect();
        let counted = vec![0; buckets.len() * metrics.num_workers()];
        Slow {
            metrics,
            buckets,
            counted,
        }
    }

    /// Tells of those that were counted since.
    fn tell(&mut self, log: &Log) {
        let mut counted = self.counted.iter_mut();
        for worker in 0..self.metrics.num_workers() {
            for (bucket, about) in &self.buckets {
                let count = self
                    .metrics
                    .poll_time_histogram_bucket_count(worker, *bucket);
                let Some(before) = counted.next() else { return };
                for _ in *before..count {
                    log.tell(Claim::Poll, Some(*about));
                }
                *before = count;
            }
        }
    }
}

/// The last bucket has no end to speak of.
fn middle(range: &Range<Duration>) -> Duration {
    range.start + range.end.saturating_sub(range.start).min(range.start) / 2
}

impl Contender for PollHistogram {
    const NAME: &'static str = "tokio, poll-time histogram";
    const DOES: &'static str = "reads the clock twice, counts in a histogram of its worker";
    const LIKE: Like = Like::Timed;
    const TELLS: Tells = Tells::Program;

    fn start(mut builder: Builder, settings: &Settings) -> Result<(Runtime, Self), Failure> {
        let buckets = HistogramConfiguration::log(LogHistogram::default());
        builder
            .enable_metrics_poll_time_histogram()
            .metrics_poll_time_histogram_configuration(buckets);
        let runtime = build(builder)?;
        let poller = settings.log.clone().map(|log| {
            let mut slow = Slow::new(runtime.metrics(), settings.threshold);
            Poller::start(move || slow.tell(&log))
        });
        Ok((runtime, PollHistogram { _poller: poller }))
    }
}
