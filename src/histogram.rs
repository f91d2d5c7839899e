//! Durations counted, merged from recorders, and summed up.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::recorder::{HIGHEST_NS, Recorder, index_of, lowest_of};

const DIGITS: u8 = 3;

/// Durations merged from many recorders: counts by the lowest value of their bucket.
///
/// Only what was counted takes memory; an HDR histogram, which is 270 KiB
/// whatever is in it, is made for a summary and let go.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: BTreeMap<u64, u64>,
    sum_ns: u64,
    max_ns: u64,
    min_ns: u64,
}

impl Histogram {
    pub(crate) const fn new() -> Self {
        Histogram {
            counts: BTreeMap::new(),
            sum_ns: 0,
            max_ns: 0,
            min_ns: u64::MAX,
        }
    }

    fn add(&mut self, ns: u64, count: u64) {
        let counted = self.counts.entry(ns).or_insert(0);
        *counted = counted.saturating_add(count);
    }

    /// Adds what another has counted.
    pub(crate) fn merge(&mut self, other: &Histogram) {
        for (ns, count) in &other.counts {
            self.add(*ns, *count);
        }
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
        self.min_ns = self.min_ns.min(other.min_ns);
    }

    /// What was counted since `earlier`, which is the same one at an earlier time.
    ///
    /// The longest and the shortest are then exact only if they were counted
    /// since; else they are known to 3 digits.
    pub(crate) fn since(mut self, earlier: &Histogram) -> Self {
        for (ns, count) in &earlier.counts {
            if let Some(counted) = self.counts.get_mut(ns) {
                *counted = counted.saturating_sub(*count);
            }
        }
        self.counts.retain(|_, count| *count > 0);
        self.sum_ns = self.sum_ns.saturating_sub(earlier.sum_ns);
        let ends = self
            .counts
            .keys()
            .next()
            .zip(self.counts.keys().next_back());
        if let Some((lowest, highest)) = ends {
            let last_of = |lowest: u64| lowest_of(index_of(lowest) + 1) - 1;
            self.max_ns = self.max_ns.min(last_of(*highest));
            self.min_ns = self.min_ns.max(*lowest);
        }
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Counts one duration.
    pub(crate) fn record(&mut self, ns: u64) {
        self.count(ns, 1);
        self.min_ns = self.min_ns.min(ns);
    }

    /// Counts one duration for as many as it stands for, and as a recorder does: the
    /// shortest is then known to 3 digits.
    pub(crate) fn record_many(&mut self, ns: u64, times: u64) {
        let lowest = self.count(ns, times);
        self.min_ns = self.min_ns.min(lowest);
    }

    /// The lowest value of its bucket.
    fn count(&mut self, ns: u64, times: u64) -> u64 {
        let lowest = lowest_of(index_of(ns.min(HIGHEST_NS)));
        self.add(lowest, times);
        self.sum_ns = self.sum_ns.saturating_add(ns.saturating_mul(times));
        self.max_ns = self.max_ns.max(ns);
        lowest
    }

    /// Adds what a recorder has counted.
    pub(crate) fn add_recorder(&mut self, recorder: &Recorder) {
        let mut lowest = None;
        for (ns, count) in recorder.counts() {
            lowest.get_or_insert(ns);
            self.add(ns, count);
        }
        if let Some(lowest) = lowest {
            self.sum_ns = self.sum_ns.saturating_add(recorder.sum_ns());
            self.max_ns = self.max_ns.max(recorder.max_ns());
            self.min_ns = self.min_ns.min(lowest);
        }
    }

    pub(crate) fn summary(&self) -> Summary {
        let bounds = hdrhistogram::Histogram::<u64>::new_with_bounds(1, HIGHEST_NS, DIGITS);
        // A test sees to it that the bounds are accepted.
        let Some(mut buckets) = bounds.ok().filter(|_| !self.is_empty()) else {
            return Summary::default();
        };
        // hdrhistogram 7.6 adds counts up without a check as it looks for a quantile
        // (`value_at_quantile`); those that were read from JSON may be any.
        let mut room = u64::MAX;
        for (ns, count) in &self.counts {
            let count = room.min(*count);
            room -= count;
            buckets.saturating_record_n(*ns, count);
        }
        // Percentiles are the upper ends of buckets, which may lie above the
        // longest duration that was seen.
        let at = |quantile| buckets.value_at_quantile(quantile).min(self.max_ns);
        Summary {
            count: buckets.len(),
            min_ns: self.min_ns,
            mean_ns: self.sum_ns / buckets.len().max(1),
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p99_9_ns: at(0.999),
            max_ns: self.max_ns,
            total_ns: self.sum_ns,
            buckets: self
                .counts
                .iter()
                .map(|(ns, count)| (*ns, *count))
                .collect(),
        }
    }
}

impl From<&Summary> for Histogram {
    fn from(summary: &Summary) -> Self {
        let mut histogram = Histogram::new();
        if summary.count > 0 {
            // By the bounds of our own buckets, so that there are no more than these.
            for (ns, count) in &summary.buckets {
                histogram.add(lowest_of(index_of((*ns).min(HIGHEST_NS))), *count);
            }
            histogram.sum_ns = summary.total_ns;
            histogram.max_ns = summary.max_ns;
            histogram.min_ns = summary.min_ns;
        }
        histogram
    }
}

/// A histogram in nine numbers, its durations right to 3 significant digits.
///
/// `min`, `mean`, `max` and `total` are exact. All are zero where nothing was
/// counted. In JSON they are whole nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    count: u64,
    min_ns: u64,
    mean_ns: u64,
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    p99_9_ns: u64,
    max_ns: u64,
    total_ns: u64,
    /// Counts by the lowest value of their bucket, as an HDR histogram has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    buckets: Vec<(u64, u64)>,
}

/// Summaries being added up. Percentiles are found when all are in, once.
#[derive(Clone, Debug)]
pub(crate) struct SummaryOf<'a> {
    first: &'a Summary,
    all: Option<Histogram>,
}

impl<'a> SummaryOf<'a> {
    pub(crate) const fn new(first: &'a Summary) -> Self {
        SummaryOf { first, all: None }
    }

    pub(crate) fn add(&mut self, other: &Summary) {
        let all = self.all.get_or_insert_with(|| Histogram::from(self.first));
        all.merge(&Histogram::from(other));
    }

    /// What is alone stays as it is.
    pub(crate) fn done(self) -> Summary {
        match self.all {
            Some(all) => all.summary(),
            None => self.first.clone(),
        }
    }
}

impl Summary {
    /// What both have counted, as one.
    pub(crate) fn merged(&self, other: &Summary) -> Summary {
        let mut all = SummaryOf::new(self);
        all.add(other);
        all.done()
    }

    /// How many there were by duration: the lower end of each bucket that is not
    /// empty, and its count. The upper end is at most 0.1 % higher, or 1 ns.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        self.buckets
            .iter()
            .map(|(ns, count)| (Duration::from_nanos(*ns), *count))
    }

    /// How many durations were counted.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The shortest, to 3 digits.
    pub const fn min(&self) -> Duration {
        Duration::from_nanos(self.min_ns)
    }

    /// The arithmetic mean.
    pub const fn mean(&self) -> Duration {
        Duration::from_nanos(self.mean_ns)
    }

    /// Half of them were no longer than this.
    pub const fn p50(&self) -> Duration {
        Duration::from_nanos(self.p50_ns)
    }

    /// 90 % of them were no longer than this.
    pub const fn p90(&self) -> Duration {
        Duration::from_nanos(self.p90_ns)
    }

    /// 99 % of them were no longer than this.
    pub const fn p99(&self) -> Duration {
        Duration::from_nanos(self.p99_ns)
    }

    /// 99.9 % of them were no longer than this.
    pub const fn p99_9(&self) -> Duration {
        Duration::from_nanos(self.p99_9_ns)
    }

    /// The longest.
    pub const fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns)
    }

    /// All of them together.
    pub const fn total(&self) -> Duration {
        Duration::from_nanos(self.total_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn summary_of(values: &[u64]) -> Summary {
        let recorder = Recorder::new();
        for &ns in values {
            recorder.record(ns);
        }
        let mut histogram = Histogram::new();
        histogram.add_recorder(&recorder);
        histogram.summary()
    }

    #[test]
    fn the_bounds_are_accepted() {
        assert_eq!(summary_of(&[1]).count(), 1);
        const { assert!(HIGHEST_NS >= 3_600_000_000_000, "an hour must fit") };
    }

    #[test]
    fn nothing_counted_is_all_zero() {
        assert_eq!(summary_of(&[]), Summary::default());
    }

    #[test]
    fn the_longest_count_as_the_highest() {
        let summary = summary_of(&[0, 1, u64::MAX / 2]);
        assert_eq!(summary.count(), 3);
        assert_eq!(summary.min(), Duration::ZERO);
        assert_eq!(summary.max(), Duration::from_nanos(u64::MAX / 2));
        assert!(summary.p99() >= Duration::from_secs(3_600));
    }

    #[test]
    fn recorders_add_up() {
        let (a, b) = (Recorder::new(), Recorder::new());
        for _ in 0..99 {
            a.record(1_000);
        }
        b.record(5_000_000);
        let mut histogram = Histogram::new();
        histogram.add_recorder(&a);
        histogram.add_recorder(&b);
        histogram.add_recorder(&Recorder::new());
        let summary = histogram.summary();
        assert_eq!(summary.count(), 100);
        assert_eq!(summary.p50(), Duration::from_nanos(1_000));
        assert_eq!(summary.max(), Duration::from_millis(5));
        assert_eq!(summary.min(), Duration::from_nanos(1_000));
        assert_eq!(summary.mean(), Duration::from_nanos(50_990));
        assert_eq!(summary.total(), Duration::from_nanos(5_099_000));
    }

    #[test]
    fn what_was_counted_before_can_be_left_out() {
        let recorder = Recorder::new();
        let now = || {
            let mut histogram = Histogram::new();
            histogram.add_recorder(&recorder);
            histogram
        };
        recorder.record(5_000_000);
        recorder.record(10);
        let before = now();
        assert!(now().since(&before).is_empty());
        assert_eq!(now().since(&before).summary(), Summary::default());
        recorder.record(1_000);
        recorder.record(3_000);
        let summary = now().since(&before).summary();
        assert_eq!((summary.count(), summary.total_ns), (2, 4_000));
        assert_eq!((summary.min_ns, summary.max_ns), (1_000, 3_001));
    }

    proptest! {
        /// The naive oracle: sort, and take the value at the rank.
        #[test]
        fn percentiles_keep_three_digits(
            mut values in prop::collection::vec(1_u64..HIGHEST_NS, 1..400),
            shift in 0_u32..40,
        ) {
            for value in &mut values {
                *value = (*value >> shift).max(1);
            }
            let summary = summary_of(&values);
            values.sort_unstable();
            let oracle = |quantile: f64| {
                let rank = (quantile * values.len() as f64).ceil() as usize;
                values[rank.clamp(1, values.len()) - 1]
            };
            for (quantile, got) in [
                (0.5, summary.p50_ns),
                (0.9, summary.p90_ns),
                (0.99, summary.p99_ns),
                (0.999, summary.p99_9_ns),
            ] {
                let expected = oracle(quantile);
                prop_assert!(got >= expected, "{quantile}: {got} < {expected}");
                prop_assert!(got - expected <= expected / 1_000, "{quantile}: {got} > {expected}");
            }
            prop_assert_eq!(summary.max_ns, *values.last().unwrap());
            prop_assert_eq!(summary.min_ns, lowest_of(index_of(values[0])));
            prop_assert_eq!(summary.count, values.len() as u64);
        }
    }
}
