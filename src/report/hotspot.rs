//! Stalls of one culprit, as one finding.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::advice::{self, Advice};
use crate::escape::part;
use crate::histogram::{Histogram, Summary};
use crate::holder::Holder;
use crate::profile::Part;
use crate::report::SeverityCounts;
use crate::stall::{Cause, Frame, Location, Stack, Stall, StallKind, is_zero};

/// How many names of tasks are kept of one finding.
pub(super) const MAX_TASKS: usize = 32;

/// By what stalls are one finding: the function they are in and the cause, else
/// the task's name. A stall with [several places](Stall::places) is in several findings.
///
/// Not the line, which changes from build to build, but for an `async fn` or closure that
/// has no name in the debug info, as with line tables alone; nor the path, which changes
/// from machine to machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    pub(crate) fn of(stall: &Stall, stack: Option<&Stack>, cause: &Cause) -> Self {
        let culprit = stack.and_then(Stack::culprit);
        let place = match (culprit, stall.task(), stall.worker()) {
            (Some(frame), _, _) => {
                let file = frame.file().and_then(|file| file.rsplit('/').next());
                let file = part(file.unwrap_or_default());
                // Not by what the source says: it is not where the program runs next. Of
                // those without a name, several are awaited by one function.
                let name = frame.name_in_debug_info();
                let line = frame.line().filter(|_| frame.has_no_name());
                let line = line.map_or_else(String::new, |line| format!(":{line}"));
                // A library's function is called from many places, to be mended each.
                let caller = stack.and_then(Stack::called_from);
                let whom = caller.map(Frame::name_in_debug_info);
                let whom = whom.as_deref().or_else(|| stack?.on_behalf_of());
                let whom = whom.map_or_else(String::new, |whom| format!(" for {}", part(whom)));
                format!("{} {file}{line}{whom}", part(&name))
            }
            (None, Some(task), _) => format!("task {}", part(task.name())),
            (None, None, Some(worker)) => format!("worker {worker}"),
            (None, None, None) => "unknown".to_owned(),
        };
        Fingerprint(format!("{place}: {cause}"))
    }

    /// Stands for all beyond a bound.
    pub(crate) fn other() -> Self {
        Fingerprint("other".to_owned())
    }

    /// Stands for all beyond a bound that were not the program's.
    pub(super) fn starved() -> Self {
        Fingerprint("other, for want of a CPU".to_owned())
    }

    /// As text; equal for what is the same finding.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What one culprit has done: a finding of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hotspot {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) culprit: String,
    pub(crate) cause: Cause,
    pub(crate) kind: StallKind,
    pub(crate) advice: Advice,
    /// Of the longest stall that had one.
    pub(crate) stack: Option<Stack>,
    /// How long that stall was, which all of the above is of.
    pub(crate) described_ns: u64,
    /// Of the longest stall of which it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) held_by: Option<Holder>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) held_ns: u64,
    pub(crate) location: Option<Location>,
    pub(crate) counts: SeverityCounts,
    pub(crate) durations: Summary,
    pub(crate) tasks: BTreeMap<String, u64>,
    pub(crate) workers: BTreeSet<usize>,
    /// How many had a stack.
    pub(crate) with_stack: u64,
    /// Of how many the duration was measured by the poll itself.
    pub(crate) exact: u64,
}

impl Hotspot {
    /// What holds the thread up, as well as it is known.
    pub fn culprit(&self) -> &str {
        &self.culprit
    }

    /// By what its stalls are known to be the same finding.
    pub const fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// Why its stalls do not return.
    pub fn cause(&self) -> Cause {
        self.cause.clone()
    }

    /// What there is to say about it, and what to do.
    pub const fn advice(&self) -> &Advice {
        &self.advice
    }

    /// Where its longest stall was, if that is known; what is counted of a stall is the
    /// time that it spent there.
    pub const fn stack(&self) -> Option<&Stack> {
        self.stack.as_ref()
    }

    /// Who held the lock that the longest of its stalls waited for of which that is known;
    /// see [`Stall::held_by`](crate::Stall::held_by).
    pub const fn held_by(&self) -> Option<&Holder> {
        self.held_by.as_ref()
    }

    /// How many stalls, each by the severity of the time that it spent there.
    pub const fn counts(&self) -> &SeverityCounts {
        &self.counts
    }

    /// How long they lasted there.
    pub const fn durations(&self) -> &Summary {
        &self.durations
    }

    /// The watched futures it was in, with how many stalls each.
    pub fn tasks(&self) -> impl Iterator<Item = (&str, u64)> {
        self.tasks
            .iter()
            .map(|(name, count)| (name.as_str(), *count))
    }

    /// The workers it held up; those of different processes are not told apart.
    pub fn workers(&self) -> impl Iterator<Item = usize> {
        self.workers.iter().copied()
    }

    /// How long all of them have lasted together.
    pub const fn total(&self) -> Duration {
        self.durations.total()
    }

    /// How long the longest has lasted.
    pub const fn max(&self) -> Duration {
        self.durations.max()
    }

    /// Whether the program is to blame: not where it waited for a CPU or stood still.
    pub const fn is_programs(&self) -> bool {
        self.cause.is_programs()
    }

    /// How sure it is, and why.
    pub fn confidence(&self) -> (Confidence, &'static str) {
        let all = self.counts.total();
        let seen = if self.with_stack > all / 2 {
            Seen::of(self.stack.as_ref())
        } else {
            Seen::Nothing
        };
        let exact = self.exact > all / 2;
        match (seen, exact) {
            (Seen::Line, true) => (
                Confidence::High,
                "the line was seen and the polls timed themselves",
            ),
            (Seen::Line, false) => (
                Confidence::Medium,
                "the line was seen; the duration is that of a turn, which may be many polls",
            ),
            (Seen::Function, true) => (
                Confidence::Medium,
                "the function was seen, but no line, and the polls timed themselves",
            ),
            (Seen::Function, false) => (
                Confidence::Low,
                "the function was seen, but no line; the duration is that of a turn, which may be many polls",
            ),
            (Seen::Nothing, true) => (
                Confidence::Medium,
                "the polls timed themselves; the line was not seen",
            ),
            (Seen::Nothing, false) => (
                Confidence::Low,
                "a turn of a worker, which may be many polls; the line was not seen",
            ),
        }
    }
}

/// What a stack shows of where a stall was.
#[derive(Clone, Copy)]
enum Seen {
    Line,
    /// The program has symbols, but no line tables.
    Function,
    /// There is no stack, or only addresses: the program is stripped.
    Nothing,
}

impl Seen {
    fn of(stack: Option<&Stack>) -> Self {
        match stack {
            Some(stack) if stack.has_line() => Seen::Line,
            Some(stack) if stack.culprit().is_some() || stack.has_names() => Seen::Function,
            _ => Seen::Nothing,
        }
    }
}

/// How sure something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// It may be otherwise.
    Low,
    /// Part of it is seen, part is concluded.
    Medium,
    /// It was seen.
    High,
}

impl std::fmt::Display for Confidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Confidence::Low => "Low",
            Confidence::Medium => "Medium",
            Confidence::High => "High",
        })
    }
}

/// Stalls being added up to one finding.
#[derive(Clone, Debug)]
pub(crate) struct Adding {
    hotspot: Hotspot,
    histogram: Histogram,
}

impl Adding {
    pub(crate) fn new(fingerprint: Fingerprint, stall: &Stall, part: &Part<'_>) -> Self {
        Adding {
            hotspot: Hotspot {
                culprit: if fingerprint == Fingerprint::other() {
                    "other".to_owned()
                } else {
                    stall.name_of(part.stack)
                },
                fingerprint,
                cause: part.cause.clone(),
                kind: stall.kind(),
                advice: advice::of(part.cause, None),
                stack: None,
                described_ns: 0,
                held_by: None,
                held_ns: 0,
                location: stall.task().and_then(|task| task.location().cloned()),
                counts: SeverityCounts::default(),
                durations: Summary::default(),
                tasks: BTreeMap::new(),
                workers: BTreeSet::new(),
                with_stack: 0,
                exact: 0,
            },
            histogram: Histogram::new(),
        }
    }

    /// Adds one part of a stall.
    pub(crate) fn add(&mut self, stall: &Stall, part: &Part<'_>) {
        let hotspot = &mut self.hotspot;
        hotspot.counts.count(part.severity);
        self.histogram.record(part.time_ns);
        let rank = |has_stack: bool, ns: u64| (has_stack, ns);
        let known = rank(hotspot.stack.is_some(), hotspot.described_ns);
        if rank(part.stack.is_some(), part.time_ns) > known
            && hotspot.fingerprint != Fingerprint::other()
        {
            hotspot.described_ns = part.time_ns;
            hotspot.culprit = stall.name_of(part.stack);
            hotspot.stack = part.stack.cloned();
        }
        if let Some(holder) = part.held_by
            && part.time_ns > hotspot.held_ns
            && hotspot.fingerprint != Fingerprint::other()
        {
            hotspot.held_ns = part.time_ns;
            hotspot.held_by = Some(holder.clone());
        }
        if let Some(task) = stall.task()
            && (hotspot.tasks.len() < MAX_TASKS || hotspot.tasks.contains_key(task.name()))
        {
            *hotspot.tasks.entry(task.name().to_owned()).or_default() += 1;
        }
        hotspot.workers.extend(stall.worker());
        hotspot.with_stack += u64::from(part.stack.is_some());
        hotspot.exact += u64::from(stall.kind() == StallKind::Poll);
    }

    pub(crate) fn done(self) -> Hotspot {
        let hotspot = &self.hotspot;
        let advice = if hotspot.fingerprint == Fingerprint::other() && hotspot.is_programs() {
            // Of many places, with a cause each.
            advice::of(&Cause::Unknown, None)
        } else {
            // What is shown and what is advised are of one and the same stall.
            advice::of(&hotspot.cause, hotspot.stack.as_ref())
        };
        Hotspot {
            durations: self.histogram.summary(),
            advice,
            ..self.hotspot
        }
    }
}
