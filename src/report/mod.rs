//! A report: plain data on what was seen, in several forms.

#[cfg(test)]
mod by_place;
mod entries;
mod escape;
mod flame;
#[cfg(test)]
mod hostile;
mod hotspot;
mod html;
mod markdown;
mod merge;
mod origin;
mod score;
mod show;
mod strategy;
#[cfg(test)]
mod tests;
mod trace;
mod write;

use std::cmp::Reverse;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::advice::Advice;
use crate::blocking::{Allowed, Blocking, Detection};
use crate::error::Error;
use crate::health::Health;
use crate::histogram::Summary;
use crate::severity::Severity;
use crate::stall::{Location, Stack, Stall};

pub use hotspot::{Confidence, Fingerprint, Hotspot};
pub use origin::Origin;

pub(crate) use hotspot::Adding;
pub(crate) use origin::origin;
pub(crate) use show::Short;

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

    /// Counts what another has counted.
    pub(crate) const fn add(&mut self, other: &SeverityCounts) {
        // Numbers that were read may be any.
        self.monitor = self.monitor.saturating_add(other.monitor);
        self.medium = self.medium.saturating_add(other.medium);
        self.high = self.high.saturating_add(other.high);
        self.critical = self.critical.saturating_add(other.critical);
    }

    /// The highest severity that was counted.
    pub fn worst(&self) -> Option<Severity> {
        Severity::ALL
            .into_iter()
            .rev()
            .find(|severity| self.of(*severity) > 0)
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
        self.monitor
            .saturating_add(self.medium)
            .saturating_add(self.high)
            .saturating_add(self.critical)
    }
}

/// The polls of the futures of one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskPolls {
    pub(crate) name: String,
    pub(crate) location: Option<Location>,
    pub(crate) polls: Summary,
    #[serde(default)]
    pub(crate) delays: Summary,
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

    /// How long [tracked](crate::Watched::tracked) futures waited to be polled, from
    /// when they were woken; nothing counted for others.
    pub const fn delays(&self) -> &Summary {
        &self.delays
    }

    /// The stalls that were laid to this name.
    pub const fn stalls(&self) -> &SeverityCounts {
        &self.stalls
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_none(number: &u64) -> bool {
    *number == 0
}

/// What a watchdog has seen since it was started.
///
/// A snapshot: making one stops nothing and nobody. Polls are counted by name,
/// whichever runtime of the process polled; stalls and lag are those of the
/// watchdog's runtime.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub(crate) version: u32,
    #[serde(default)]
    pub(crate) origins: Vec<Origin>,
    pub(crate) workers: usize,
    pub(crate) watched_ns: u64,
    /// The same, summed up over workers.
    #[serde(default)]
    pub(crate) worker_ns: u64,
    pub(crate) max_severity: Option<Severity>,
    pub(crate) counts: SeverityCounts,
    pub(crate) hotspots: Vec<Hotspot>,
    pub(crate) tasks: Vec<TaskPolls>,
    pub(crate) polls: Summary,
    pub(crate) lag: Summary,
    #[serde(default)]
    pub(crate) blocking_waits: Summary,
    pub(crate) stalls: Vec<Stall>,
    pub(crate) forgotten: u64,
    pub(crate) health: Health,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) blocking: Vec<Blocking>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) allowed: Vec<Allowed>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) detection: Option<Detection>,
    /// What may be a stall.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unsure: Vec<Stall>,
    #[serde(default, skip_serializing_if = "is_none")]
    pub(crate) unaudited: u64,
}

/// The order of findings.
pub(crate) fn worst_first(hotspots: &mut [Hotspot]) {
    hotspots.sort_by(|a, b| (b.total(), a.fingerprint()).cmp(&(a.total(), b.fingerprint())));
}

/// The order of watched futures.
pub(crate) fn busiest_first(tasks: &mut [TaskPolls]) {
    let place = |task: &TaskPolls| task.location.as_ref().map(Location::to_string);
    tasks.sort_by_cached_key(|task| (Reverse(task.polls.total()), task.name.clone(), place(task)));
}

/// The order of what blocked.
fn longest_first(blocking: &mut [Blocking]) {
    blocking.sort_by_cached_key(|one| {
        let culprit = one.stack().and_then(Stack::culprit);
        let place = culprit.map_or_else(String::new, |frame| frame.short());
        (
            Reverse(one.total_ns),
            one.task.name.clone(),
            one.cause.to_string(),
            place,
        )
    });
}

/// The order of permissions.
fn by_reason(allowed: &mut [Allowed]) {
    allowed.sort_by_cached_key(|one| (one.reason.clone(), one.location.to_string()));
}

impl Report {
    /// The processes it is of: one, unless it was [merged](Report::merge).
    pub fn origins(&self) -> &[Origin] {
        &self.origins
    }

    /// How safe the program is to run on an event loop, from 1 to 10.
    ///
    /// | score | |
    /// |---|---|
    /// | 9 to 10 | what blocks is off the loop |
    /// | 7 to 8 | minor blocking |
    /// | 5 to 6 | several places block |
    /// | 3 to 4 | major blocking |
    /// | 1 to 2 | synchronous code in async functions |
    ///
    /// From 10, taken off: for the worst finding 1 (MONITOR), 3 (MEDIUM), 5 (HIGH) or 7
    /// (CRITICAL), or 1 if an audit found blocking without a stall; 1 if two to four
    /// findings are MEDIUM or worse, 2 if more; 1 if workers were held up for 1 % of
    /// the time or more, 2 for 10 % or more. While a CRITICAL stall goes on the score
    /// is 1. Stalls for want of a CPU do not count. One more stall never makes it rise.
    pub fn score(&self) -> u8 {
        score::score(self).value
    }

    /// Replaces advice by one's own, where `advise` has some.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// # let watchdog = stallscope::Watchdog::start().unwrap();
    /// let mut report = watchdog.report();
    /// report.advise(|hotspot| {
    ///     let mut advice = hotspot.advice().clone();
    ///     hotspot.culprit().contains("our_legacy").then(|| {
    ///         advice.short = "see the wiki: moving off the legacy client".into();
    ///         advice
    ///     })
    /// });
    /// # }
    /// ```
    pub fn advise(&mut self, advise: impl Fn(&Hotspot) -> Option<Advice>) {
        for hotspot in &mut self.hotspots {
            if let Some(advice) = advise(hotspot) {
                hotspot.advice = advice;
            }
        }
    }

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

    /// The stalls one by one: those over, the oldest first, then those in progress, with
    /// their durations until the report was made.
    ///
    /// The last 1,000 that are over; [`Report::forgotten`] tells of how many
    /// more only the sums are left.
    pub fn stalls(&self) -> &[Stall] {
        &self.stalls
    }

    /// How many tasks an audited future has spawned that nobody audited, at least: by
    /// `tokio::spawn` or in a `JoinSet`.
    ///
    /// [`stallscope::spawn`](crate::spawn) audits them, and
    /// [`Audit::whole_runtime`](crate::Audit::whole_runtime) all that there are. Counted at
    /// the end of each poll, so that a task which another worker has done by then is not.
    pub const fn unaudited_tasks(&self) -> u64 {
        self.unaudited
    }

    /// What may be a stall and may be none: of an audit of a
    /// [whole runtime](crate::Audit::whole_runtime), turns of other tasks that computed for
    /// long, in one poll or in many short ones.
    ///
    /// No assertion fails for these, and they are in no sum.
    pub fn unsure(&self) -> &[Stall] {
        &self.unsure
    }

    /// How many stalls are in the sums but no longer in [`Report::stalls`].
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The stalls, those in progress included, by severity.
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

    /// How long work for the blocking pool has waited for a thread, of that which
    /// was handed over by [`spawn_blocking`](crate::spawn_blocking).
    pub const fn blocking_waits(&self) -> &Summary {
        &self.blocking_waits
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
        crate::escape::json(serde_json::to_string_pretty(self).unwrap_or_default())
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
