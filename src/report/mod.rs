//! A report: plain data on what was seen, printable and in JSON.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::blocking::{Allowed, Blocking, Detection};
use crate::error::Error;
use crate::health::Health;
use crate::histogram::Summary;
use crate::severity::Severity;
use crate::stall::{Frame, Location, Stack, Stall};

/// Version of the JSON form; it rises when a field changes its meaning or goes.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// How many stalls were of each severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeverityCounts {
    monitor: u64,
    medium: u64,
    high: u64,
    critical: u64,
}

impl SeverityCounts {
    pub(crate) const fn count(&mut self, severity: Severity) {
        match severity {
            Severity::Monitor => self.monitor += 1,
            Severity::Medium => self.medium += 1,
            Severity::High => self.high += 1,
            Severity::Critical => self.critical += 1,
        }
    }

    /// Of one severity.
    pub const fn of(&self, severity: Severity) -> u64 {
        match severity {
            Severity::Monitor => self.monitor,
            Severity::Medium => self.medium,
            Severity::High => self.high,
            Severity::Critical => self.critical,
        }
    }

    /// Of all severities.
    pub const fn total(&self) -> u64 {
        self.monitor + self.medium + self.high + self.critical
    }
}

/// All stalls of one culprit that are over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hotspot {
    culprit: String,
    counts: SeverityCounts,
    total_ns: u64,
    max_ns: u64,
}

impl Hotspot {
    pub(crate) const fn new(culprit: String) -> Self {
        Hotspot {
            culprit,
            counts: SeverityCounts {
                monitor: 0,
                medium: 0,
                high: 0,
                critical: 0,
            },
            total_ns: 0,
            max_ns: 0,
        }
    }

    pub(crate) fn add(&mut self, stall: &Stall) {
        self.counts.count(stall.severity());
        self.total_ns = self.total_ns.saturating_add(stall.duration_ns);
        self.max_ns = self.max_ns.max(stall.duration_ns);
    }

    /// What holds the thread up, as well as it is known.
    pub fn culprit(&self) -> &str {
        &self.culprit
    }

    /// How many stalls.
    pub const fn counts(&self) -> &SeverityCounts {
        &self.counts
    }

    /// How long all of them have lasted together.
    pub const fn total(&self) -> Duration {
        Duration::from_nanos(self.total_ns)
    }

    /// How long the longest has lasted.
    pub const fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns)
    }
}

/// The polls of the futures of one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskPolls {
    pub(crate) name: String,
    pub(crate) location: Option<Location>,
    pub(crate) polls: Summary,
    pub(crate) stalls: SeverityCounts,
}

impl TaskPolls {
    /// The name given to [`watched`](crate::WatchExt::watched).
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it was given; `None` for `other`, which stands for all beyond the bound.
    pub const fn location(&self) -> Option<&Location> {
        self.location.as_ref()
    }

    /// How long the polls took; `total()` is the time they kept a thread busy.
    pub const fn polls(&self) -> &Summary {
        &self.polls
    }

    /// The stalls that were laid to this name.
    pub const fn stalls(&self) -> &SeverityCounts {
        &self.stalls
    }
}

/// What a watchdog has seen since it was started.
///
/// A snapshot: making one stops nothing and nobody. Polls are counted by name,
/// whichever runtime of the process polled; stalls and lag are those of the
/// watchdog's runtime.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub(crate) version: u32,
    pub(crate) workers: usize,
    pub(crate) watched_ns: u64,
    pub(crate) max_severity: Option<Severity>,
    pub(crate) counts: SeverityCounts,
    pub(crate) hotspots: Vec<Hotspot>,
    pub(crate) tasks: Vec<TaskPolls>,
    pub(crate) polls: Summary,
    pub(crate) lag: Summary,
    pub(crate) stalls: Vec<Stall>,
    pub(crate) forgotten: u64,
    pub(crate) health: Health,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) blocking: Vec<Blocking>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) allowed: Vec<Allowed>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) detection: Option<Detection>,
}

impl Report {
    /// What blocked in an [audit](crate::audit()), however shortly, the worst first.
    pub fn blocking(&self) -> &[Blocking] {
        &self.blocking
    }

    /// The blocking that was allowed in an audit.
    pub fn allowed(&self) -> &[Allowed] {
        &self.allowed
    }

    /// By what blocking is known; `None` in the report of a watchdog, which looks
    /// for stalls only.
    pub const fn detection(&self) -> Option<Detection> {
        self.detection
    }

    /// The stalls one by one: those over, the oldest first, then those in progress.
    ///
    /// The last 1,000 that are over; [`Report::forgotten`] tells of how many
    /// more only the sums are left.
    pub fn stalls(&self) -> &[Stall] {
        &self.stalls
    }

    /// How many stalls are in the sums but no longer in [`Report::stalls`].
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Stalls that are over, by severity.
    pub const fn counts(&self) -> &SeverityCounts {
        &self.counts
    }

    /// What has held up threads the longest in all, the worst first.
    pub fn hotspots(&self) -> &[Hotspot] {
        &self.hotspots
    }

    /// The watched futures by name, the busiest first.
    pub fn tasks(&self) -> &[TaskPolls] {
        &self.tasks
    }

    /// How long the polls of all watched futures took.
    pub const fn polls(&self) -> &Summary {
        &self.polls
    }

    /// How late the event loop ran what was due.
    ///
    /// tokio's timers tick in milliseconds, so 1 ms is what an idle loop shows.
    pub const fn lag(&self) -> &Summary {
        &self.lag
    }

    /// The highest severity so far; `None` if there was no stall.
    pub const fn max_severity(&self) -> Option<Severity> {
        self.max_severity
    }

    /// For how long the watchdog has been running.
    pub const fn watched_for(&self) -> Duration {
        Duration::from_nanos(self.watched_ns)
    }

    /// How the watchdog itself was doing.
    pub const fn health(&self) -> &Health {
        &self.health
    }

    /// The report in JSON.
    ///
    /// One object, its `version` 1; durations are whole nanoseconds in fields
    /// that end in `_ns`. [`Report::from_json`] reads it back.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use stallscope::{Report, Watchdog};
    /// let watchdog = Watchdog::start().unwrap();
    /// let report = watchdog.report();
    /// assert_eq!(Report::from_json(&report.to_json()).unwrap(), report);
    /// # }
    /// ```
    pub fn to_json(&self) -> String {
        // Strings, numbers and lists of them: there is nothing that could fail.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Reads what [`Report::to_json`] wrote.
    ///
    /// # Errors
    /// If it is no such JSON, or of a later version.
    pub fn from_json(json: &str) -> Result<Self, Error> {
        let report: Report = serde_json::from_str(json).map_err(Error::json)?;
        if report.version > SCHEMA_VERSION {
            return Err(Error::config(
                "version",
                format!(
                    "of the report is {}, above {SCHEMA_VERSION}",
                    report.version
                ),
                "read it with a newer stallscope",
            ));
        }
        Ok(report)
    }
}

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
                let worst = Severity::ALL
                    .into_iter()
                    .rev()
                    .find(|severity| hotspot.counts.of(*severity) > 0);
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
