//! Whether a current-thread runtime that tells nothing new is being driven.
//!
//! tokio does not tell: a stuck one looks like one that nobody drives. But the
//! stack of the thread that drives it passes tokio's `block_on`. So a turn that
//! grows old is looked into: soon again where it is driven, because that may
//! end without a word, and ever later where it is not.

use std::sync::Mutex;

use crate::detector::WorkerSeen;
use crate::registry::lock;

/// For how long an answer holds at least; else for a sixteenth of the turn's age,
/// by which a stall can seem longer that ends with the runtime left alone.
const HOLDS_NS: u64 = 20_000_000;
/// How soon a look that saw nothing is repeated, and how often.
const RETRY_NS: u64 = 4_000_000;
const RETRIES: u32 = 3;
/// For how many looks an answer holds at least.
const LOOKS: u64 = 6;

#[derive(Debug, Default)]
struct State {
    of: WorkerSeen,
    next_ns: u64,
    retries: u32,
    until_ns: u64,
    /// For how long an answer holds at least once it has been asked for again, while
    /// it has not: one that is asked for late must not be stale for that.
    unasked_ns: Option<u64>,
}

/// What is known of the turn in progress.
#[derive(Debug, Default)]
pub(crate) struct Driven(Mutex<State>);

impl Driven {
    /// Whether to look now, into a turn of this age.
    pub(crate) fn ask(&self, of: &WorkerSeen, age_ns: u64, monitor_ns: u64, now_ns: u64) -> bool {
        let mut state = lock(&self.0);
        if !state.of.same_turn(of) {
            *state = State {
                of: *of,
                // Early enough to be told at the lowest threshold: at the next look,
                // which is half of it later by default, the answer is here.
                next_ns: (now_ns + monitor_ns / 3).saturating_sub(age_ns),
                ..State::default()
            };
        }
        if now_ns < state.next_ns {
            return false;
        }
        // Should nothing be seen.
        let again_ns = if state.retries < RETRIES {
            RETRY_NS
        } else {
            age_ns.max(RETRY_NS)
        };
        state.retries += 1;
        state.next_ns = now_ns + again_ns;
        if let Some(holds_ns) = state.unasked_ns.take() {
            state.until_ns = state.until_ns.max(now_ns + holds_ns);
        }
        true
    }

    /// What a look has shown that took so long.
    ///
    /// The next look, and what is between them, must be done before the answer is
    /// stale: in a debug build one can take as long as the shortest answer holds.
    pub(crate) fn answer(
        &self,
        of: &WorkerSeen,
        driven: bool,
        age_ns: u64,
        took_ns: u64,
        now_ns: u64,
    ) {
        let mut state = lock(&self.0);
        if !state.of.same_turn(of) {
            return;
        }
        if driven {
            let holds_ns = HOLDS_NS.max(age_ns / 16).max(LOOKS * took_ns);
            state.until_ns = now_ns + holds_ns;
            state.next_ns = now_ns + holds_ns / 2;
            state.unasked_ns = Some(holds_ns / 2);
            state.retries = 0;
        } else {
            state.until_ns = 0;
            state.unasked_ns = None;
            state.next_ns = now_ns + age_ns.max(RETRY_NS);
        }
    }

    /// Whether this turn is known to be driven.
    pub(crate) fn holds(&self, of: &WorkerSeen, now_ns: u64) -> bool {
        let state = lock(&self.0);
        state.of.same_turn(of) && (now_ns < state.until_ns || state.unasked_ns.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn turn(parks: u64) -> WorkerSeen {
        WorkerSeen {
            parks,
            ..WorkerSeen::default()
        }
    }

    #[test]
    fn a_driven_turn_is_looked_into_again_before_the_answer_is_stale() {
        let driven = Driven::default();
        let ask =
            |age_ms: u64, now_ms: u64| driven.ask(&turn(2), age_ms * MS, 10 * MS, now_ms * MS);
        assert!(!ask(0, 100));
        assert!(!ask(3, 103));
        assert!(ask(4, 104), "a third of the threshold");
        assert!(!ask(5, 105));
        driven.answer(&turn(2), true, 5 * MS, 0, 106 * MS);
        assert!(driven.holds(&turn(2), 125 * MS));
        assert!(!driven.holds(&turn(4), 107 * MS), "another turn");
        assert!(!ask(15, 115));
        assert!(ask(16, 116));
        assert!(!driven.holds(&turn(2), 126 * MS), "stale");
    }

    #[test]
    fn an_answer_holds_until_the_next_can_be_had() {
        let driven = Driven::default();
        assert!(driven.ask(&turn(2), 10 * MS, 10 * MS, 100 * MS));
        driven.answer(&turn(2), true, 10 * MS, 19 * MS, 119 * MS);
        // Asked at the next tick, and answered after as long again.
        assert!(driven.ask(&turn(2), 90 * MS, 10 * MS, 180 * MS));
        assert!(driven.holds(&turn(2), 204 * MS));
    }

    #[test]
    fn an_answer_is_not_stale_because_the_watchdog_is_late() {
        let driven = Driven::default();
        assert!(driven.ask(&turn(2), 10 * MS, 10 * MS, 100 * MS));
        driven.answer(&turn(2), true, 10 * MS, 0, 101 * MS);
        assert!(driven.holds(&turn(2), 180 * MS), "not asked for again");
        assert!(driven.ask(&turn(2), 90 * MS, 10 * MS, 180 * MS));
        assert!(driven.holds(&turn(2), 189 * MS));
        assert!(!driven.holds(&turn(2), 190 * MS), "asked, and no answer");
        driven.answer(&turn(2), false, 90 * MS, 0, 191 * MS);
        assert!(!driven.holds(&turn(2), 191 * MS));
    }

    #[test]
    fn one_that_nobody_drives_is_looked_into_ever_later() {
        let driven = Driven::default();
        let mut looks = 0;
        for now_ms in (0..100_000).step_by(5) {
            if driven.ask(&turn(2), now_ms * MS, 10 * MS, now_ms * MS) {
                looks += 1;
                driven.answer(&turn(2), false, now_ms * MS, 0, now_ms * MS);
            }
            assert!(!driven.holds(&turn(2), now_ms * MS));
        }
        assert!((5..25).contains(&looks), "{looks}");
    }

    #[test]
    fn a_late_answer_about_another_turn_is_ignored() {
        let driven = Driven::default();
        driven.ask(&turn(4), 0, 10 * MS, 0);
        driven.answer(&turn(2), true, 0, 0, MS);
        assert!(!driven.holds(&turn(2), MS) && !driven.holds(&turn(4), MS));
    }
}
