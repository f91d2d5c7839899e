//! How many threads the blocking work would need, from what was measured.

use std::collections::BTreeMap;

use crate::advice::RiskCategory;
use crate::report::Report;

/// What work of one kind needs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pool {
    pub(crate) category: RiskCategory,
    pub(crate) threads: usize,
    pub(crate) arithmetic: String,
    /// More arrives than so many threads can do.
    pub(crate) queue: bool,
}

/// Work that waits needs as many threads as are waiting at once: by Little's law
/// (J. D. C. Little, "A Proof for the Queuing Formula L = lambda W", 1961) arrivals
/// per second times seconds each; twice as many, for bursts. Work that computes
/// needs as many as there are CPUs.
pub(crate) fn pools(report: &Report) -> Vec<Pool> {
    let seconds = report.watched_for().as_secs_f64();
    let cpus: usize = report
        .origins
        .iter()
        .map(|origin| origin.cpus())
        .fold(0_usize, usize::saturating_add)
        .max(1);
    if seconds <= 0.0 {
        return Vec::new();
    }
    let mut by_category: BTreeMap<RiskCategory, (u64, f64)> = BTreeMap::new();
    for hotspot in report.hotspots.iter().filter(|h| h.is_programs()) {
        let sum = by_category.entry(hotspot.advice.category).or_default();
        sum.0 = sum.0.saturating_add(hotspot.counts.total());
        sum.1 += hotspot.total().as_secs_f64();
    }
    by_category
        .into_iter()
        .filter(|(_, (count, _))| *count > 0)
        .map(|(category, (count, total))| {
            let rate = count as f64 / seconds;
            let mean = total / count as f64;
            let at_once = rate * mean;
            let measured = format!("{rate:.2}/s x {:.1} ms = {at_once:.2} at once", mean * 1e3);
            if category == RiskCategory::Cpu {
                Pool {
                    category,
                    threads: cpus,
                    arithmetic: format!("{measured}; as many as CPUs ({cpus})"),
                    queue: at_once > cpus as f64 * 0.7,
                }
            } else {
                let threads = (at_once * 2.0).ceil().max(1.0) as usize;
                Pool {
                    category,
                    threads,
                    arithmetic: format!("{measured}; twice that, for bursts"),
                    queue: threads > 512,
                }
            }
        })
        .collect()
}
