//! Figures of many durations.

use std::time::Duration;

/// The duration that this share of them does not exceed; zero of none.
pub fn percentile(durations: &[Duration], share: f64) -> Duration {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_there() {
        let durations: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        for (share, ms) in [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100)] {
            assert_eq!(percentile(&durations, share), Duration::from_millis(ms));
        }
        assert_eq!(percentile(&[], 0.5), Duration::ZERO);
    }
}
