//! What an audit remembers of polls that are over, in bounded memory.
//!
//! Detail can be lost, a verdict cannot: what can be in no finding goes first, then what is
//! lightest; and what else is left out is counted, which the checks heed.

use std::sync::Arc;

use crate::audit::session::{AllowedSection, AllowedSum, Call, Noted, OthersTurn, TaskName};
use crate::recorder::Recorder;
use crate::report::SeverityCounts;
use crate::severity::Severity;

/// How many polls are remembered one by one.
pub(super) const MAX_NOTED: usize = 1_000;
/// How many reasons to allow blocking.
const MAX_ALLOWED: usize = 256;

/// What is known of polls that are over.
#[derive(Debug, Default)]
pub(crate) struct Polls {
    pub(crate) by_name: Vec<(Arc<TaskName>, Recorder)>,
    pub(crate) noted: Vec<Noted>,
    /// Calls of other tasks of a runtime that is audited as a whole.
    pub(crate) neighbours: Vec<Call>,
    /// Turns of them, as seen from outside.
    pub(crate) others: Vec<OthersTurn>,
    /// Stalls that were left out.
    pub(crate) omitted_stalls: SeverityCounts,
    /// How many more polls and calls may have been blocking.
    pub(crate) omitted_blocking: u64,
    pub(crate) allowed: Vec<AllowedSum>,
    /// A poll could not be measured: the system does not tell.
    pub(crate) unmeasured: bool,
}

impl Polls {
    /// Takes in how long a poll took, and what was allowed in it.
    pub(super) fn count(&mut self, noted: &Noted, sections: Vec<AllowedSection>) {
        let by_name = &mut self.by_name;
        let at = by_name.iter().position(|(name, _)| *name == noted.name);
        let at = at.unwrap_or_else(|| {
            by_name.push((Arc::clone(&noted.name), Recorder::new()));
            by_name.len() - 1
        });
        if let Some((_, recorder)) = by_name.get(at) {
            recorder.record(noted.spent.wall_ns);
        }
        for section in sections {
            self.allow(section);
        }
        self.unmeasured |= !noted.measured;
    }

    fn allow(&mut self, section: AllowedSection) {
        let same = |sum: &&mut AllowedSum| {
            sum.section.location == section.location && sum.section.reason == section.reason
        };
        if let Some(sum) = self.allowed.iter_mut().find(same) {
            sum.count += 1;
            sum.section.wall_ns = sum.section.wall_ns.saturating_add(section.wall_ns);
            sum.section.sleeps += section.sleeps;
        } else if self.allowed.len() < MAX_ALLOWED {
            self.allowed.push(AllowedSum { section, count: 1 });
        }
    }

    /// Remembers a poll. Where there is no more room, `matters` says which of those that
    /// are remembered can be in a finding; `severity_of` which are stalls.
    pub(super) fn remember(
        &mut self,
        noted: Noted,
        severity_of: impl Fn(&Noted) -> Option<Severity>,
        matters: impl Fn(&Noted) -> bool,
    ) {
        self.noted.push(noted);
        if self.noted.len() <= MAX_NOTED {
            return;
        }
        self.noted
            .retain(|noted| severity_of(noted).is_some() || matters(noted));
        if self.noted.len() <= MAX_NOTED {
            return;
        }
        let weight = |noted: &Noted| (severity_of(noted).is_some(), noted.counts_ns());
        let weights = self.noted.iter().map(weight).enumerate();
        let Some((lightest, _)) = weights.min_by_key(|(_, weight)| *weight) else {
            return;
        };
        match severity_of(&self.noted.swap_remove(lightest)) {
            Some(severity) => self.omitted_stalls.count(severity),
            None => self.omitted_blocking += 1,
        }
    }

    /// Remembers a call of another task of the same runtime; of more than have room, the
    /// longest. `severity_of` says which are stalls.
    pub(super) fn remember_neighbours(
        &mut self,
        call: Call,
        severity_of: impl Fn(&Call) -> Option<Severity>,
    ) {
        self.neighbours.push(call);
        if self.neighbours.len() <= MAX_NOTED {
            return;
        }
        let lengths = self.neighbours.iter().map(Call::counts_ns).enumerate();
        let Some((shortest, _)) = lengths.min_by_key(|(_, ns)| *ns) else {
            return;
        };
        match severity_of(&self.neighbours.swap_remove(shortest)) {
            Some(severity) => self.omitted_stalls.count(severity),
            None => self.omitted_blocking += 1,
        }
    }

    /// Remembers a turn of another task of the same runtime; of more than have room, the
    /// longest.
    pub(super) fn remember_others(&mut self, turn: OthersTurn) {
        self.others.push(turn);
        if self.others.len() <= MAX_NOTED {
            return;
        }
        let lengths = self.others.iter().map(|turn| turn.ns).enumerate();
        if let Some((shortest, _)) = lengths.min_by_key(|(_, ns)| *ns) {
            self.others.swap_remove(shortest);
            self.omitted_blocking += 1;
        }
    }

    /// How many polls and calls were left out.
    pub(crate) const fn omitted(&self) -> u64 {
        self.omitted_blocking + self.omitted_stalls.total()
    }
}
