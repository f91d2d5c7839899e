//! How safe a program is to run on an event loop, as a number: a pure rule.

use crate::report::{Hotspot, Report};
use crate::severity::Severity;
use crate::stall::Stall;

/// The number, and what takes it down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Score {
    pub(crate) value: u8,
    /// What is taken off, and for what.
    pub(crate) deductions: Vec<(u8, String)>,
    /// What is left out, and why.
    pub(crate) left_out: Option<String>,
}

/// Each part only grows as stalls are added, so the score never rises by one.
pub(crate) fn score(report: &Report) -> Score {
    let programs: Vec<&Hotspot> = report.hotspots.iter().filter(|h| h.is_programs()).collect();
    let worst = programs.iter().filter_map(|h| h.counts.worst()).max();
    let mut deductions = Vec::new();
    if report.stalls.iter().any(is_hang) {
        deductions.push((9, "a CRITICAL stall goes on".to_owned()));
    } else if let Some(worst) = worst {
        let points = match worst {
            Severity::Monitor => 1,
            Severity::Medium => 3,
            Severity::High => 5,
            Severity::Critical => 7,
        };
        deductions.push((points, format!("the worst finding is {worst}")));
    } else if !report.blocking.is_empty() {
        deductions.push((1, "polls blocked, though shortly".to_owned()));
    }
    let serious = programs
        .iter()
        .filter(|h| h.counts.worst() >= Some(Severity::Medium))
        .count();
    match serious {
        0 | 1 => {}
        2..=4 => deductions.push((1, format!("{serious} findings are MEDIUM or worse"))),
        _ => deductions.push((2, format!("{serious} findings are MEDIUM or worse"))),
    }
    let held_ns: u128 = programs.iter().map(|h| h.total().as_nanos()).sum();
    let percent = (held_ns * 100)
        .checked_div(u128::from(report.worker_ns))
        .unwrap_or(0);
    match percent {
        0 => {}
        1..=9 => deductions.push((
            1,
            format!("workers were held up for {percent} % of the time"),
        )),
        _ => deductions.push((
            2,
            format!("workers were held up for {percent} % of the time"),
        )),
    }
    let off: u8 = deductions.iter().map(|(points, _)| points).sum();
    let starved = report.hotspots.iter().filter(|h| !h.is_programs());
    let starved = starved.fold(0_u64, |all, h| all.saturating_add(h.counts.total()));
    let left_out = (starved > 0).then(|| {
        format!("not counted, for want of a CPU: {starved}; measure again where there are enough")
    });
    Score {
        left_out,
        value: 10_u8.saturating_sub(off).max(1),
        deductions,
    }
}

/// What may never end is the worst that can be.
fn is_hang(stall: &Stall) -> bool {
    stall.is_ongoing() && stall.severity() == Severity::Critical && stall.cause.is_programs()
}

/// What a score means.
pub(crate) const fn meaning(value: u8) -> &'static str {
    match value {
        9.. => "what blocks is off the loop",
        7..=8 => "minor blocking",
        5..=6 => "several places block",
        3..=4 => "major blocking",
        _ => "synchronous code in async functions",
    }
}
