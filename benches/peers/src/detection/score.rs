//! What was told, held against what was.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::scenario::{Held, Scenario};
use crate::told::{Claim, Told};

/// How long after a stall it may be told: less than the gap between stalls.
const GRACE: Duration = Duration::from_millis(140);

/// Of one contender in one scenario.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Score {
    /// Polls that were to be told.
    pub stalls: usize,
    /// Those that were.
    pub told: usize,
    /// From when the stall reached the threshold until it was told; a recording has none.
    pub latency_ms: Vec<f64>,
    /// Of the duration that was told last.
    pub duration_error_ms: Vec<f64>,
    /// A poll that was not long, or a loop that was not held up.
    pub false_reports: usize,
    /// The loop was said to be held up, and was, though by no long poll.
    pub held_loops: usize,
    /// The same stall told as if it were another.
    pub repeated: usize,
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

fn is_of(told: &Told, held: &Held) -> bool {
    let until = held.end + if told.recorded { Duration::ZERO } else { GRACE };
    // A recorded poll begins before what is called in it.
    let from = if told.recorded {
        held.start.checked_sub(Duration::from_millis(5))
    } else {
        Some(held.start)
    };
    from.is_some_and(|from| from <= told.at) && told.at <= until
}

pub(crate) fn score(
    scenario: Scenario,
    held: &[Held],
    told: &[Told],
    threshold: Duration,
) -> Score {
    let mut score = Score::default();
    for held in held {
        let told: Vec<&Told> = told.iter().filter(|told| is_of(told, held)).collect();
        let first = told.iter().filter(|told| !told.again);
        if !scenario.has_stalls() {
            score.held_loops += first.filter(|told| told.claim == Claim::Loop).count()
                * usize::from(scenario.holds_the_loop());
            continue;
        }
        score.stalls += 1;
        score.told += usize::from(first.clone().count() > 0);
        score.repeated += first.clone().count().saturating_sub(1);
        if let Some(first) = first.clone().next().filter(|told| !told.recorded) {
            let late = first.at.saturating_duration_since(held.start);
            score.latency_ms.push(ms(late) - ms(threshold));
        }
        if let Some(duration) = told.iter().rev().find_map(|told| told.duration) {
            let error = duration.abs_diff(held.end - held.start);
            score.duration_error_ms.push(ms(error));
        }
    }
    score.false_reports = told
        .iter()
        .filter(|told| !told.again && !is_true(scenario, held, told))
        .count();
    score
}

fn is_true(scenario: Scenario, held: &[Held], told: &Told) -> bool {
    let may_be = match told.claim {
        Claim::Poll => scenario.has_stalls(),
        Claim::Loop => scenario.holds_the_loop(),
    };
    may_be && held.iter().any(|held| is_of(told, held))
}
