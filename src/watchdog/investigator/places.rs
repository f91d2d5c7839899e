//! Stacks by place, as they are told: pure.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use crate::cause::Judgement;
use crate::clock::ns_of;
use crate::function_name;
use crate::holder::Holder;
use crate::os::LockKind;
use crate::profile::{Profile, SeenPlace};
use crate::severity::{Severity, Thresholds};
use crate::stall::{Frame, Stack};
use crate::trim;
use crate::watchdog::investigator::lock_waits::Proof;
use crate::watchdog::investigator::profile::{Extent, Holding};
use crate::watchdog::investigator::tally::Tally;
use crate::watchdog::transition::Whereabouts;

/// How many places are told of one stall.
const MOST_PLACES: usize = 16;

/// What makes two stacks of one place: function and file of the culprit, and the line where
/// it called something that matters. `None`: without a function of the user's.
type Key<'a> = Option<(&'a str, &'a str, Option<u32>)>;

fn key(stack: &Stack) -> Key<'_> {
    let culprit = stack.culprit()?;
    let function = culprit.function.as_deref().unwrap_or_default();
    let file = culprit.file.as_deref().unwrap_or_default();
    let line = match stack.culprit {
        Some(at) if stack.is_users(at) => culprit.line.filter(|_| !trim::computes(stack)),
        // A library's work is one place, wherever in it, for each line that awaits it.
        _ => stack.called_from().and_then(|caller| caller.line),
    };
    Some((function, file, line))
}

/// Whether two stacks need not be told apart, not even for their lines.
pub(super) fn is_same(one: &Stack, other: &Stack) -> bool {
    let line = |stack: &Stack| stack.culprit().and_then(|culprit| culprit.line);
    match (key(one), key(other)) {
        (None, None) => one.frames.first() == other.frames.first(),
        (one_key, other_key) => one_key == other_key && line(one) == line(other),
    }
}

/// One place, and the stack with most of its time.
#[derive(Debug)]
struct Group<'a> {
    key: Key<'a>,
    stack: &'a Stack,
    longest_ns: u64,
    tally: Tally,
    by_times: Option<Judgement>,
    holding: Option<&'a Holding>,
}

impl Group<'_> {
    fn judgement(&self) -> Judgement {
        let judgement = match self.by_times {
            None | Some(Judgement::Unknown | Judgement::Starved | Judgement::Suspended) => {
                self.tally.judgement()
            }
            Some(Judgement::Blocked(_)) if computes(self.stack) => self.tally.judgement(),
            Some(by_times) => by_times,
        };
        judgement.refined(Some(self.stack))
    }

    /// Who held the lock that it waited for, if it waited for a lock of that kind.
    fn held_by(&self) -> Option<Holder> {
        let holding = self
            .holding
            .filter(|_| self.judgement() == Judgement::Lock)?;
        let called = self.stack.culprit.unwrap_or(self.stack.frames.len());
        let inner = self.stack.frames.get(..called).unwrap_or_default();
        let is_it = match holding.proof {
            Proof::Owner => trim::passes(inner, "pthread_mutex_lock"),
            Proof::Guard(LockKind::ParkingLot) => trim::passes(inner, "parking_lot"),
            Proof::Guard(LockKind::Std | LockKind::StdWriter) => true,
        };
        is_it.then(|| holding.holder.clone())
    }
}

/// Whether the innermost function is none that calls the system: of a turn of many polls
/// another one has slept then.
fn computes(stack: &Stack) -> bool {
    let is_rust = |frame: &&Frame| frame.file().is_some_and(|file| file.ends_with(".rs"));
    let innermost = stack.frames().first().filter(is_rust);
    let krate = innermost.and_then(function_name::krate);
    krate.is_some_and(|krate| !matches!(krate.as_str(), "std" | "core" | "alloc"))
}

/// Stacks by place.
#[derive(Debug, Default)]
pub(super) struct Places<'a>(Vec<Group<'a>>);

impl<'a> Places<'a> {
    pub(super) fn add(&mut self, stack: &'a Stack, tally: &Tally, holding: Option<&'a Holding>) {
        let key = key(stack);
        match self.0.iter_mut().find(|group| group.key == key) {
            Some(group) => {
                if tally.ns() > group.longest_ns {
                    group.longest_ns = tally.ns();
                    group.stack = stack;
                }
                group.tally.add_all(tally);
                group.holding = holding.or(group.holding);
            }
            None => self.0.push(Group {
                key,
                stack,
                longest_ns: tally.ns(),
                tally: tally.clone(),
                by_times: None,
                holding,
            }),
        }
    }

    /// Of one place alone the thread's times are known better than by samples.
    pub(super) fn judge_by_times(&mut self, by_times: Judgement) {
        if let [only] = &mut self.0[..] {
            only.by_times = Some(by_times);
        }
    }

    /// By time. One without a function of the user's comes first only if it has more than
    /// all others: else it is what happened beside.
    fn sort(&mut self) {
        let named = self.0.iter().filter(|group| group.key.is_some());
        let named_ns: u64 = named.map(|group| group.tally.ns()).sum();
        self.0.sort_by_key(|group| {
            let ns = group.tally.ns();
            let beside = group.key.is_none() && ns <= named_ns && named_ns > 0;
            (beside, Reverse(ns))
        });
    }

    pub(super) fn told(
        mut self,
        of: &Extent,
        thresholds: &Thresholds,
        seen_ns: u64,
    ) -> Whereabouts {
        self.sort();
        let own_ns = of.duration_ns.saturating_sub(of.lost_ns);
        let severity_of = |ns: u64| thresholds.severity_of(Duration::from_nanos(ns));
        let mut rest_ns = own_ns;
        let mut places: Vec<SeenPlace> = Vec::new();
        for group in self.0.iter().take(MOST_PLACES) {
            let time_ns = group.tally.ns().min(of.duration_ns);
            if !places.is_empty() && time_ns < of.duration_ns / 100 {
                continue;
            }
            let severity = severity_of(time_ns);
            if severity.is_some() {
                rest_ns = rest_ns.saturating_sub(time_ns);
            }
            places.push(SeenPlace {
                stack: (!places.is_empty()).then(|| group.stack.clone()),
                time_ns,
                samples: group.tally.samples,
                cause: group.judgement().into(),
                held_by: group.held_by(),
                severity,
            });
        }
        // All of it: that it could not be measured to the last is no reason for less.
        if let [only] = &mut places[..]
            && only.time_ns >= own_ns / 10 * 9
        {
            only.severity = Some(of.severity);
            rest_ns = own_ns.saturating_sub(only.time_ns);
        }
        let first = self.0.first();
        Whereabouts {
            stack: first.map(|group| group.stack.clone()),
            judgement: first.map_or(Judgement::Unknown, Group::judgement),
            profile: first.map(|_| {
                Arc::new(Profile {
                    places,
                    seen_ns: seen_ns.min(of.duration_ns),
                    rest_ns,
                    bounds_ns: Severity::ALL.map(|severity| ns_of(thresholds.of(severity))),
                })
            }),
            is_complete: true,
            lasted_ns: of.duration_ns,
            lost_ns: of.lost_ns,
        }
    }
}
