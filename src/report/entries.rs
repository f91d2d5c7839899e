//! What the lists of reports have in common as they are merged: see [`super::merge`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use crate::advice;
use crate::blocking::{Allowed, Blocking};
use crate::histogram::{Summary, SummaryOf};
use crate::report::merge::Entry;
use crate::report::{Fingerprint, Hotspot, SeverityCounts, TaskPolls, hotspot};
use crate::stall::{Cause, Location, Stack, StallKind, Task};

/// How many of each list a merged report has.
const MOST: usize = 1_000;
/// How many workers of one finding are told apart.
const MAX_WORKERS: usize = 1_024;
/// What stands for the rest is called so, as it is where one process has too much.
const OTHER: &str = "other";

fn sum<T>(all: &[&T], of: impl Fn(&T) -> u64) -> u64 {
    all.iter().fold(0, |sum, one| sum.saturating_add(of(one)))
}

fn summary<'a, T>(all: &[&'a T], of: impl Fn(&'a T) -> &'a Summary) -> Summary {
    let mut summaries = all.iter().map(|one| of(one));
    let Some(first) = summaries.next() else {
        return Summary::default();
    };
    let mut sum = SummaryOf::new(first);
    summaries.for_each(|other| sum.add(other));
    sum.done()
}

fn counts<'a, T: 'a>(all: &[&'a T], of: impl Fn(&'a T) -> &'a SeverityCounts) -> SeverityCounts {
    let mut sum = SeverityCounts::default();
    all.iter().for_each(|one| sum.add(of(one)));
    sum
}

/// The one that is to speak for all: the highest by `rank`, and among equals one that
/// does not depend on their order. `says` is what of it the others take over.
fn speaker<'a, T, R: Ord, S: PartialEq + Debug>(
    all: &[&'a T],
    rank: impl Fn(&'a T) -> R,
    says: impl Fn(&'a T) -> S,
) -> Option<&'a T> {
    all.iter().copied().reduce(|best, one| {
        let better = rank(one).cmp(&rank(best)).then_with(|| {
            // Rarely needed, and slow.
            let (ours, theirs) = (says(one), says(best));
            if ours == theirs {
                std::cmp::Ordering::Equal
            } else {
                format!("{ours:?}").cmp(&format!("{theirs:?}"))
            }
        });
        if better.is_gt() { one } else { best }
    })
}

impl Entry for Hotspot {
    type Key<'a> = &'a Fingerprint;

    const MOST: usize = MOST;

    fn key(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn weight(&self) -> u64 {
        u64::try_from(self.total().as_nanos()).unwrap_or(u64::MAX)
    }

    fn is_rest(&self) -> bool {
        self.fingerprint == Fingerprint::other() || self.fingerprint == Fingerprint::starved()
    }

    fn sum(same: &[&Self]) -> Self {
        let first = speaker(
            same,
            |hotspot| (hotspot.stack.is_some(), hotspot.described_ns),
            |hotspot| {
                (
                    (&hotspot.culprit, &hotspot.stack, &hotspot.location),
                    (&hotspot.advice, &hotspot.cause, hotspot.kind),
                )
            },
        );
        match (first, same) {
            (Some(first), [_, _, ..]) => added_up(first.clone(), same),
            (Some(first), _) => first.clone(),
            (None, _) => nothing(Fingerprint::other(), Cause::Unknown),
        }
    }

    /// Two: what is the program's counts in its score.
    fn rest(of: &[&Self]) -> Vec<Self> {
        let (programs, starved): (Vec<&Self>, Vec<&Self>) =
            of.iter().partition(|hotspot| hotspot.is_programs());
        let kinds = [
            (Fingerprint::other(), Cause::Unknown, programs),
            (Fingerprint::starved(), Cause::Starved, starved),
        ];
        let kinds = kinds.into_iter().filter(|(_, _, all)| !all.is_empty());
        kinds
            .map(|(fingerprint, cause, all)| added_up(nothing(fingerprint, cause), &all))
            .collect()
    }
}

/// A finding that says nothing of its stalls but how many they are.
fn nothing(fingerprint: Fingerprint, cause: Cause) -> Hotspot {
    Hotspot {
        culprit: fingerprint.as_str().to_owned(),
        fingerprint,
        advice: advice::of(&cause, None),
        cause,
        kind: StallKind::Turn,
        stack: None,
        described_ns: 0,
        held_by: None,
        held_ns: 0,
        location: None,
        counts: SeverityCounts::default(),
        durations: Summary::default(),
        tasks: BTreeMap::new(),
        workers: BTreeSet::new(),
        with_stack: 0,
        exact: 0,
    }
}

/// What `first` says, with the numbers of all of these.
fn added_up(first: Hotspot, all: &[&Hotspot]) -> Hotspot {
    let mut tasks = BTreeMap::new();
    for (name, count) in all.iter().flat_map(|hotspot| &hotspot.tasks) {
        add(&mut tasks, name, *count);
    }
    let workers = all.iter().flat_map(|hotspot| &hotspot.workers).copied();
    let mut workers: BTreeSet<usize> = workers.collect();
    while workers.len() > MAX_WORKERS {
        workers.pop_last();
    }
    let holding = speaker(
        all,
        |hotspot| (hotspot.held_by.is_some(), hotspot.held_ns),
        |hotspot| &hotspot.held_by,
    );
    let holding = holding.filter(|_| first.stack.is_some());
    Hotspot {
        held_by: holding.and_then(|hotspot| hotspot.held_by.clone()),
        held_ns: holding.map_or(0, |hotspot| hotspot.held_ns),
        counts: counts(all, |hotspot| &hotspot.counts),
        durations: summary(all, |hotspot| &hotspot.durations),
        tasks: bounded(tasks),
        workers,
        with_stack: sum(all, |hotspot| hotspot.with_stack),
        exact: sum(all, |hotspot| hotspot.exact),
        ..first
    }
}

fn add(tasks: &mut BTreeMap<String, u64>, name: &str, count: u64) {
    let sum = tasks.entry(name.to_owned()).or_default();
    *sum = sum.saturating_add(count);
}

/// The names that occur most often; all others as one.
fn bounded(mut tasks: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let rest = tasks.remove(OTHER);
    let mut names: Vec<(String, u64)> = tasks.into_iter().collect();
    // Stable, so that among equals it is the first by name.
    names.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let beyond = names.split_off(names.len().min(hotspot::MAX_TASKS));
    let mut tasks: BTreeMap<String, u64> = names.into_iter().collect();
    for count in rest
        .into_iter()
        .chain(beyond.into_iter().map(|(_, count)| count))
    {
        add(&mut tasks, OTHER, count);
    }
    tasks
}

impl Entry for TaskPolls {
    type Key<'a> = (&'a str, Option<(&'a str, u32, u32)>);

    const MOST: usize = MOST;

    fn key(&self) -> Self::Key<'_> {
        (&self.name, self.location.as_ref().map(place_of))
    }

    fn weight(&self) -> u64 {
        u64::try_from(self.polls.total().as_nanos()).unwrap_or(u64::MAX)
    }

    fn is_rest(&self) -> bool {
        self.location.is_none() && self.name == OTHER
    }

    fn sum(same: &[&Self]) -> Self {
        let first = same.first();
        TaskPolls {
            name: first.map_or_else(|| OTHER.to_owned(), |task| task.name.clone()),
            location: first.and_then(|task| task.location.clone()),
            polls: summary(same, |task| &task.polls),
            delays: summary(same, |task| &task.delays),
            stalls: counts(same, |task| &task.stalls),
        }
    }

    fn rest(of: &[&Self]) -> Vec<Self> {
        vec![TaskPolls {
            name: OTHER.to_owned(),
            location: None,
            ..TaskPolls::sum(of)
        }]
    }
}

fn place_of(location: &Location) -> (&str, u32, u32) {
    (&location.file, location.line, location.column)
}

impl Blocking {
    /// In which function, as it is shown; empty where that is not known.
    fn place(&self) -> String {
        let culprit = self.stack().and_then(Stack::culprit);
        culprit.map_or_else(String::new, |frame| frame.short())
    }
}

impl Entry for Blocking {
    type Key<'a> = (&'a str, String, String);

    const MOST: usize = MOST;

    fn key(&self) -> Self::Key<'_> {
        (self.task.name(), self.cause.to_string(), self.place())
    }

    fn weight(&self) -> u64 {
        self.total_ns
    }

    fn is_rest(&self) -> bool {
        self.task.name == OTHER && self.cause == Cause::Unknown && self.place().is_empty()
    }

    fn sum(same: &[&Self]) -> Self {
        let first = speaker(
            same,
            |blocking| blocking.stack.is_some(),
            |blocking| (&blocking.task, &blocking.stack, &blocking.cause),
        );
        let max_ns = same.iter().map(|blocking| blocking.max_ns).max();
        Blocking {
            task: first.map_or_else(other_task, |first| first.task.clone()),
            cause: first.map_or(Cause::Unknown, |first| first.cause.clone()),
            stack: first.and_then(|first| first.stack.clone()),
            count: sum(same, |blocking| blocking.count),
            sleeps: sum(same, |blocking| blocking.sleeps),
            total_ns: sum(same, |blocking| blocking.total_ns),
            max_ns: max_ns.unwrap_or(0),
        }
    }

    fn rest(of: &[&Self]) -> Vec<Self> {
        vec![Blocking {
            task: other_task(),
            cause: Cause::Unknown,
            stack: None,
            ..Blocking::sum(of)
        }]
    }
}

fn other_task() -> Task {
    Task {
        name: OTHER.to_owned(),
        location: None,
        id: None,
    }
}

impl Entry for Allowed {
    type Key<'a> = (&'a str, (&'a str, u32, u32));

    const MOST: usize = MOST;

    fn key(&self) -> Self::Key<'_> {
        (&self.reason, place_of(&self.location))
    }

    fn weight(&self) -> u64 {
        self.total_ns
    }

    fn is_rest(&self) -> bool {
        self.key() == (OTHER, (OTHER, 0, 0))
    }

    fn sum(same: &[&Self]) -> Self {
        let first = same.first();
        Allowed {
            reason: first.map_or_else(|| OTHER.to_owned(), |allowed| allowed.reason.clone()),
            location: first.map_or_else(nowhere, |allowed| allowed.location.clone()),
            count: sum(same, |allowed| allowed.count),
            sleeps: sum(same, |allowed| allowed.sleeps),
            total_ns: sum(same, |allowed| allowed.total_ns),
        }
    }

    fn rest(of: &[&Self]) -> Vec<Self> {
        vec![Allowed {
            reason: OTHER.to_owned(),
            location: nowhere(),
            ..Allowed::sum(of)
        }]
    }
}

/// Stands for several places.
fn nowhere() -> Location {
    Location {
        file: OTHER.to_owned(),
        line: 0,
        column: 0,
    }
}
