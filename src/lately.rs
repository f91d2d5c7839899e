//! How much of the last minute each worker was held up for.

use std::collections::HashMap;

use crate::severity::Severity;
use crate::stall::Stall;

const SECOND_NS: u64 = 1_000_000_000;
/// The length of what is looked back on, in seconds.
const WINDOW: u64 = 60;
/// What has just begun to be watched is judged as if it had been for so long.
const SHORTEST: u64 = 10;
/// One more than the window: the oldest second is in it in part.
const SECONDS: usize = 61;

/// The time in stalls, by worker; those on threads that are none count as one.
#[derive(Debug, Default)]
pub(crate) struct Lately(HashMap<Unit, Seconds>);

/// The time in stalls in each of the last seconds, and which of them is the latest.
#[derive(Debug)]
struct Seconds {
    held_ns: [u64; SECONDS],
    latest: u64,
}

const fn slot(second: u64) -> usize {
    (second % SECONDS as u64) as usize
}

impl Seconds {
    const fn new() -> Self {
        Seconds {
            held_ns: [0; SECONDS],
            latest: 0,
        }
    }

    fn add(&mut self, start_ns: u64, end_ns: u64) {
        let last = end_ns / SECOND_NS;
        // What lies between has nothing in it.
        for second in (self.latest + 1..=last).rev().take(SECONDS) {
            self.held_ns[slot(second)] = 0;
        }
        self.latest = self.latest.max(last);
        for second in (start_ns / SECOND_NS..=last).rev().take(SECONDS) {
            if second + SECONDS as u64 > self.latest {
                let from_ns = start_ns.max(second * SECOND_NS);
                let to_ns = end_ns.min((second + 1) * SECOND_NS);
                self.held_ns[slot(second)] += to_ns.saturating_sub(from_ns);
            }
        }
    }

    fn held_ns(&self, now_ns: u64) -> u64 {
        let now = now_ns / SECOND_NS;
        let seconds = (0..=self.latest).rev().take(SECONDS);
        let in_window = seconds.filter(|second| second + WINDOW >= now);
        in_window.map(|second| self.held_ns[slot(second)]).sum()
    }
}

type Unit = (Option<String>, Option<usize>);

/// What it holds up: each runtime has a worker of that number.
fn unit_of(stall: &Stall) -> Unit {
    (stall.runtime.clone(), stall.worker())
}

/// Whether a stall of this kind says that the program is not well.
fn matters(stall: &Stall) -> bool {
    stall.severity() >= Severity::Medium && stall.cause.is_programs()
}

impl Lately {
    /// Takes in a stall that is over.
    pub(crate) fn add(&mut self, stall: &Stall) {
        if matters(stall) {
            let seconds = self.0.entry(unit_of(stall)).or_insert_with(Seconds::new);
            seconds.add(
                stall.start_ns,
                stall.start_ns.saturating_add(stall.duration_ns),
            );
        }
    }

    /// The share of the last minute, in thousandths, in which the worker that was held up
    /// the most was so, by stalls that are over and by those in progress.
    pub(crate) fn permille(&self, ongoing: &[Stall], now_ns: u64, started_ns: u64) -> u16 {
        let by_worker = self.0.iter();
        let mut by_worker: HashMap<_, _> = by_worker
            .map(|(unit, seconds)| (unit.clone(), seconds.held_ns(now_ns)))
            .collect();
        let first_ns = (now_ns / SECOND_NS).saturating_sub(WINDOW) * SECOND_NS;
        for stall in ongoing.iter().filter(|stall| matters(stall)) {
            let held_ns = by_worker.entry(unit_of(stall)).or_default();
            *held_ns += now_ns.saturating_sub(stall.start_ns.max(first_ns));
        }
        let watched_ns = now_ns.saturating_sub(started_ns);
        let window_ns = watched_ns.clamp(SHORTEST * SECOND_NS, WINDOW * SECOND_NS);
        let held_ns = by_worker.into_values().max();
        let permille = held_ns.unwrap_or(0).min(window_ns) * 1_000 / window_ns;
        u16::try_from(permille).unwrap_or(1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stall::{Cause, StallId, StallKind};

    fn stall(worker: usize, start_ms: u64, duration_ms: u64) -> Stall {
        Stall {
            id: StallId(start_ms),
            severity: match duration_ms {
                0..100 => Severity::Monitor,
                100..1_000 => Severity::Medium,
                _ => Severity::High,
            },
            kind: StallKind::Turn,
            task: None,
            worker: Some(worker),
            origin: 0,
            start_ns: start_ms * 1_000_000,
            duration_ns: duration_ms * 1_000_000,
            suspended_ns: 0,
            on_cpu_ns: 0,
            waiting_ns: 0,
            off_cpu_ns: 0,
            known_polls: None,
            one_poll: None,
            runtime: None,
            thread: None,
            cause: Cause::OnCpu,
            stack: None,
            profile: None,
            ongoing: false,
        }
    }

    fn percent(lately: &Lately, ongoing: &[Stall], now_s: u64) -> u64 {
        u64::from(lately.permille(ongoing, now_s * SECOND_NS, 0)) / 10
    }

    #[test]
    fn the_worst_worker_counts_and_only_its_last_minute() {
        let mut lately = Lately::default();
        for second in 0..120 {
            lately.add(&stall(0, second * 1_000, 950));
            lately.add(&stall(1, second * 1_000, 200));
        }
        assert_eq!(percent(&lately, &[], 120), 95);
        assert_eq!(percent(&lately, &[], 150), 47);
        assert_eq!(percent(&lately, &[], 181), 0);
    }

    #[test]
    fn what_goes_on_counts_until_now_and_what_is_not_the_programs_does_not() {
        let mut lately = Lately::default();
        assert_eq!(percent(&lately, &[stall(0, 970_000, 1_000)], 1_000), 50);
        lately.add(&stall(0, 900_000, 50_000));
        assert_eq!(percent(&lately, &[stall(0, 970_000, 1_000)], 1_000), 66);
        let starved = Stall {
            cause: Cause::Starved,
            ..stall(1, 900_000, 100_000)
        };
        lately.add(&starved);
        lately.add(&stall(1, 900_000, 99));
        assert_eq!(percent(&lately, &[], 1_000), 16);
    }

    #[test]
    fn a_stall_longer_than_the_window_fills_it_and_a_young_watchdog_has_ten_seconds() {
        let mut lately = Lately::default();
        lately.add(&stall(0, 0, 500_000));
        assert_eq!(percent(&lately, &[], 500), 100);
        let young = Lately::default();
        assert_eq!(percent(&young, &[stall(0, 0, 1_000)], 2), 20);
    }
}
