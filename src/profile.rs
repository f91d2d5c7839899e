//! Where the time of a stall went: plain data.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::escape::part;
use crate::holder::Holder;
use crate::report::Fingerprint;
use crate::severity::Severity;
use crate::stall::{Cause, Stack, Stall, StallKind, Task};

/// A place with a smaller share of a stall is not named in a line of text.
const NAMED_FROM_PERCENT: u64 = 10;

/// How the time of a stall is shared out among places.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Profile {
    /// The stall's own place first, then by their time.
    pub(crate) places: Vec<SeenPlace>,
    /// Laid to some place, told or not.
    pub(crate) seen_ns: u64,
    /// The thread's own time in no place that is long enough to count.
    pub(crate) rest_ns: u64,
    /// From which duration on a stall has each severity, the lowest first.
    pub(crate) bounds_ns: [u64; 4],
}

impl Profile {
    /// Of a stall of so long; `None` below the lowest.
    fn severity_of(&self, ns: u64) -> Option<Severity> {
        let severities = self.bounds_ns.iter().zip(Severity::ALL);
        let reached = severities.filter(|(bound_ns, _)| ns >= **bound_ns);
        reached.map(|(_, severity)| severity).next_back()
    }
}

/// One place, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SeenPlace {
    /// `None` for the first, whose stack is the stall's: stacks are most of a report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stack: Option<Stack>,
    pub(crate) time_ns: u64,
    pub(crate) samples: u64,
    pub(crate) cause: Cause,
    pub(crate) severity: Option<Severity>,
    /// Who held the lock that it waited for there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) held_by: Option<Holder>,
}

/// One of the places where a stall's time went: see [`Stall::places`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    stack: &'a Stack,
    cause: &'a Cause,
    time_ns: u64,
    of_ns: u64,
    samples: u64,
    severity: Option<Severity>,
    held_by: Option<&'a Holder>,
}

impl<'a> Place<'a> {
    /// Where the thread was for most of this place's time.
    pub const fn stack(&self) -> &'a Stack {
        self.stack
    }

    /// How much of the stall's time is laid to it.
    ///
    /// An estimate from samples, exact for a sleep. Time in which the thread waited for a
    /// CPU, or the whole process stood still, belongs to no place.
    pub const fn time(&self) -> Duration {
        Duration::from_nanos(self.time_ns)
    }

    /// The same as a part of the stall's duration, from 0 to 1.
    pub fn share(&self) -> f64 {
        (self.time_ns as f64 / self.of_ns.max(1) as f64).min(1.0)
    }

    /// How often the thread was looked at and was there.
    pub const fn samples(&self) -> u64 {
        self.samples
    }

    /// Why it does not return there.
    pub fn cause(&self) -> Cause {
        self.cause.clone()
    }

    /// The severity of a stall of this place's time alone; `None` below the lowest.
    pub const fn severity(&self) -> Option<Severity> {
        self.severity
    }

    /// Who held the lock that the thread waited for there: see [`Stall::held_by`].
    pub const fn held_by(&self) -> Option<&'a Holder> {
        self.held_by
    }

    const fn percent(&self) -> u64 {
        percent_of(self.time_ns, self.of_ns)
    }
}

const fn percent_of(part_ns: u64, of_ns: u64) -> u64 {
    let of = if of_ns == 0 { 1 } else { of_ns as u128 };
    let percent = (part_ns as u128 * 100 + of / 2) / of;
    if percent > 100 { 100 } else { percent as u64 }
}

/// A piece of a stall that is counted by itself in sums.
#[derive(Clone, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) finding: Fingerprint,
    pub(crate) stack: Option<&'a Stack>,
    pub(crate) cause: &'a Cause,
    pub(crate) time_ns: u64,
    pub(crate) severity: Severity,
    pub(crate) held_by: Option<&'a Holder>,
}

impl Stall {
    fn part<'a>(&self, stack: Option<&'a Stack>, cause: &'a Cause, time_ns: u64) -> Part<'a> {
        Part {
            held_by: None,
            finding: Fingerprint::of(self, stack, cause),
            stack,
            cause,
            time_ns,
            severity: self.severity,
        }
    }

    /// Where its time went, as it was sampled while the stall lasted.
    ///
    /// The one of [`Stall::stack`] first, which has most of the time, then the others by
    /// theirs; at most 16. One place is one function of the user's code; where that called
    /// something else, one line of it. A place whose stack has no function of the user's
    /// comes first only if it has more time than all others together.
    ///
    /// ```
    /// # fn show(stall: &stallscope::Stall) {
    /// for place in stall.places() {
    ///     println!("{:.0} % at {:?}", place.share() * 100.0, place.stack().culprit());
    /// }
    /// # }
    /// ```
    pub fn places(&self) -> impl Iterator<Item = Place<'_>> {
        let alone = match &self.profile {
            Some(_) => None,
            None => self.stack.as_ref().map(|stack| Place {
                stack,
                cause: &self.cause,
                time_ns: self.duration_ns,
                of_ns: self.duration_ns,
                samples: 1,
                severity: Some(self.severity),
                held_by: None,
            }),
        };
        let profile = self.profile.as_deref();
        let places = profile.map_or(&[][..], |profile| &profile.places);
        let places = places.iter().enumerate().filter_map(|(at, place)| {
            let own = self.stack.as_ref().filter(|_| at == 0);
            Some(Place {
                stack: place.stack.as_ref().or(own)?,
                cause: &place.cause,
                time_ns: place.time_ns,
                of_ns: self.duration_ns,
                samples: place.samples,
                severity: place.severity,
                held_by: place.held_by.as_ref(),
            })
        });
        alone.into_iter().chain(places)
    }

    /// Who held the lock that it waited for, where that is proven.
    ///
    /// Of a stall whose [cause](Stall::cause) is [`Cause::Lock`]: another thread that was
    /// seen holding the very lock while this one slept. Known are
    /// - locks that are held exclusively by a thread with a stall of its own, watched by any
    ///   watchdog of the process: `Mutex` and `RwLock` of std, `Mutex` and `RwLock` of
    ///   `parking_lot`, by the code that would drop the guard if the holder panicked now.
    ///   Linux on x86-64 alone;
    /// - mutexes of pthreads (glibc), which name their owner, whoever that is.
    ///
    /// `None` says nothing: who holds it may be a thread that is not watched or a task that
    /// is not being polled, it may read (of a `RwLock`), or have a guard that cannot be
    /// followed. Costs nothing while no stall waits for a lock; while one does, some 100 us
    /// for each look at another stalled thread, on a thread of the library.
    ///
    /// ```
    /// # fn show(stall: &stallscope::Stall) {
    /// if let Some(holder) = stall.held_by() {
    ///     println!("waits for a lock that was held by {holder}");
    /// }
    /// # }
    /// ```
    pub fn held_by(&self) -> Option<&Holder> {
        let first = self.places().next().filter(|_| self.cause == Cause::Lock);
        first.and_then(|place| place.held_by)
    }

    /// How much of its duration is laid to places, told or not.
    ///
    /// The rest was spent waiting for a CPU, or standing still, or could not be seen.
    pub fn seen(&self) -> Duration {
        let seen_ns = match (&self.profile, &self.stack) {
            (Some(profile), _) => profile.seen_ns.min(self.duration_ns),
            (None, Some(_)) => self.duration_ns,
            (None, None) => 0,
        };
        Duration::from_nanos(seen_ns)
    }

    /// The time in which the thread itself did something.
    const fn own_ns(&self) -> u64 {
        self.duration_ns
            .saturating_sub(self.waiting_ns)
            .saturating_sub(self.suspended_ns)
    }

    /// Whether at least half of it was seen.
    fn is_half_seen(&self) -> bool {
        self.profile
            .as_ref()
            .is_none_or(|profile| profile.seen_ns >= self.own_ns() / 2)
    }

    /// Whether its place may be taken for what made it long. A turn of several polls is
    /// sampled at whichever of them goes on: one sample says little of the others.
    pub(crate) fn is_supported(&self) -> bool {
        let is_one = self.kind == StallKind::Poll || self.one_poll.is_some();
        let seen_twice = |profile: &Profile| {
            let first = profile.places.first();
            first.is_none_or(|place| place.samples >= 2)
        };
        is_one || self.profile.as_deref().is_none_or(seen_twice)
    }

    /// Whether its place may be blamed.
    pub(crate) fn is_sure(&self) -> bool {
        self.is_half_seen() && self.is_supported()
    }

    /// What it counts as in sums: its places, each with its own time and severity, and
    /// what is left, if that is much.
    pub(crate) fn parts(&self) -> Vec<Part<'_>> {
        let whole = |stack| self.part(stack, &self.cause, self.duration_ns);
        let profile = self.profile.as_deref();
        let Some(profile) = profile.filter(|_| self.cause.is_programs()) else {
            return vec![whole(self.stack())];
        };
        if !self.is_sure() {
            return vec![whole(None)];
        }
        let mut parts = self.parts_by_finding();
        let counted = self.places().filter(|place| place.severity.is_some());
        let own_ns = profile.rest_ns + counted.map(|place| place.time_ns).sum::<u64>();
        let mut rest_ns = own_ns;
        let is_only = parts.len() == 1;
        parts.retain_mut(|part| {
            let severity = profile.severity_of(part.time_ns);
            // All of it: that it could not be measured to the last is no reason for less.
            let is_all = is_only && part.time_ns >= own_ns / 10 * 9;
            let severity = severity.map(|own| if is_all { self.severity } else { own });
            if let Some(severity) = severity {
                part.severity = severity;
                rest_ns = rest_ns.saturating_sub(part.time_ns);
            }
            severity.is_some()
        });
        if parts.is_empty() {
            return vec![whole(None)];
        }
        if let Some(severity) = profile.severity_of(rest_ns)
            && rest_ns >= self.own_ns() / 4
        {
            parts.push(Part {
                severity,
                ..self.part(None, &Cause::Unknown, rest_ns)
            });
        }
        parts
    }

    /// Its places, those of one finding as one, with the stack that has most of the time:
    /// several lines of one function are one stall of it.
    fn parts_by_finding(&self) -> Vec<Part<'_>> {
        let mut parts: Vec<Part<'_>> = Vec::new();
        for place in self.places() {
            let part = Part {
                held_by: place.held_by,
                ..self.part(Some(place.stack), place.cause, place.time_ns)
            };
            let known = parts.iter_mut().find(|known| known.finding == part.finding);
            match known {
                Some(known) => {
                    known.time_ns += part.time_ns;
                    known.held_by = known.held_by.or(part.held_by);
                }
                None => parts.push(part),
            }
        }
        parts
    }

    /// Where it was, for a line of text.
    pub(crate) fn write_places(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |place: &Place<'_>| place.stack.place();
        let mut places = self.places();
        let first = places.next();
        let mut others = places
            .filter(|place| place.percent() >= NAMED_FROM_PERCENT)
            .peekable();
        match first.and_then(|place| Some((place, named(&place)?))) {
            Some((place, name)) => {
                f.write_str(if self.is_supported() {
                    " at "
                } else {
                    ", seen at "
                })?;
                f.write_str(&name)?;
                if others.peek().is_some() || place.percent() < 90 {
                    write!(f, " ({} %)", place.percent())?;
                } else if let Some(leaf) = place.stack.leaf() {
                    write!(f, " ({})", leaf.shown_function())?;
                }
                if let Some(holder) = self.held_by() {
                    write!(f, ", held by {holder}")?;
                }
            }
            None => {
                if let Some(location) = self.task().and_then(Task::location) {
                    write!(f, " (future made at {location})")?;
                }
            }
        }
        for place in others {
            let Some(name) = named(&place) else { continue };
            write!(f, ", {name} ({} %", place.percent())?;
            let is_other = first.is_some_and(|first| first.cause != place.cause);
            if is_other && *place.cause != Cause::Unknown {
                write!(f, ", {}", place.cause)?;
            }
            f.write_str(")")?;
        }
        if first.is_some() && !self.is_half_seen() {
            write!(f, "; only {:.1?} of it seen", self.seen())?;
        }
        Ok(())
    }

    /// By what a part of it is counted together with others, as it is shown.
    pub(crate) fn name_of(&self, stack: Option<&Stack>) -> String {
        if let Some(place) = stack.and_then(Stack::place) {
            return place;
        }
        match (&self.task, self.worker) {
            (Some(task), _) => match &task.location {
                Some(location) => format!("{} ({location})", part(&task.name)),
                None => part(&task.name).to_string(),
            },
            (None, Some(worker)) => format!("turn of worker {worker}"),
            (None, None) => "unknown".to_owned(),
        }
    }
}
