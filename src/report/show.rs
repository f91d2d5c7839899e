//! The report for a terminal, or a log.

use std::fmt;
use std::time::Duration;

use crate::histogram::Summary;
use crate::report::Report;
use crate::severity::Severity;
use crate::stall::{Frame, Stack};

/// A duration in at most 8 characters.
pub(crate) struct Short(pub(crate) Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0.as_nanos() {
            0 => "0".to_owned(),
            1..1_000 => format!("{} ns", self.0.as_nanos()),
            1_000..1_000_000 => format!("{:.1} us", self.0.as_secs_f64() * 1e6),
            1_000_000..1_000_000_000 => format!("{:.1} ms", self.0.as_secs_f64() * 1e3),
            _ => format!("{:.2} s", self.0.as_secs_f64()),
        };
        f.pad(&text)
    }
}

fn summary_row(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    width: usize,
    summary: &Summary,
) -> fmt::Result {
    write!(f, "  {name:<width$} {:>10}", summary.count())?;
    for duration in [
        summary.p50(),
        summary.p99(),
        summary.p99_9(),
        summary.max(),
        summary.total(),
    ] {
        write!(f, " {:>9}", Short(duration))?;
    }
    Ok(())
}

impl Report {
    /// What only an audit knows.
    fn show_blocking(&self, f: &mut fmt::Formatter<'_>, width: usize) -> fmt::Result {
        if !self.blocking.is_empty() {
            writeln!(
                f,
                "\n  {:<width$} {:>10} {:>9} {:>9} {:>9}",
                "blocked", "count", "sleeps", "longest", "in all"
            )?;
        }
        for blocking in self.blocking.iter().take(20) {
            let culprit = blocking.stack().and_then(Stack::culprit);
            let place = culprit.map_or_else(|| blocking.task.name.clone(), Frame::short);
            writeln!(
                f,
                "  {place:<width$} {:>10} {:>9} {:>9} {:>9}  {}",
                blocking.count,
                blocking.sleeps,
                Short(blocking.max()),
                Short(blocking.total()),
                blocking.cause,
            )?;
        }
        for allowed in &self.allowed {
            writeln!(
                f,
                "  allowed {} times, {} in all, at {}: {}",
                allowed.count,
                Short(allowed.total()),
                allowed.location,
                allowed.reason
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} stall{} in {} on {} worker{}",
            self.counts.total(),
            if self.counts.total() == 1 { "" } else { "s" },
            Short(self.watched_for()),
            self.workers,
            if self.workers == 1 { "" } else { "s" }
        )?;
        for severity in Severity::ALL.into_iter().rev() {
            if self.counts.of(severity) > 0 {
                write!(f, ", {severity} {}", self.counts.of(severity))?;
            }
        }
        writeln!(f)?;
        let ongoing = self.stalls.iter().filter(|stall| stall.is_ongoing());
        for stall in ongoing {
            writeln!(f, "  now: {stall}")?;
        }

        let width = self
            .hotspots
            .iter()
            .map(|hotspot| hotspot.culprit.len())
            .chain(self.tasks.iter().map(|task| task.name.len()))
            .chain(["event loop lag".len()])
            .max()
            .unwrap_or(0)
            .min(60);
        if !self.hotspots.is_empty() {
            writeln!(
                f,
                "\n  {:<width$} {:>10} {:>9} {:>9}  worst",
                "held up by", "stalls", "longest", "in all"
            )?;
            for hotspot in self.hotspots.iter().take(20) {
                let worst = hotspot.counts.worst();
                writeln!(
                    f,
                    "  {:<width$} {:>10} {:>9} {:>9}  {}",
                    hotspot.culprit,
                    hotspot.counts.total(),
                    Short(hotspot.max()),
                    Short(hotspot.total()),
                    worst
                        .map(|severity| severity.to_string())
                        .unwrap_or_default(),
                )?;
            }
        }
        writeln!(
            f,
            "\n  {:<width$} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "polls of", "count", "p50", "p99", "p99.9", "max", "in all"
        )?;
        for task in self.tasks.iter().take(20) {
            summary_row(f, &task.name, width, &task.polls)?;
            writeln!(f)?;
        }
        if self.detection.is_none() {
            summary_row(f, "event loop lag", width, &self.lag)?;
        }
        self.show_blocking(f, width)?;
        if self.forgotten > 0 {
            write!(
                f,
                "\n  {} older stalls are in the sums only",
                self.forgotten
            )?;
        }
        if let Some(reason) = self.health.no_stacks() {
            write!(f, "\n  some stacks are missing: {reason}")?;
        }
        Ok(())
    }
}
