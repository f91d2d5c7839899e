//! Which unit each poll holds up.

use crate::detector::observation::{Observation, PollId, PollSeen};
use crate::room::room_for;

/// Polls in progress that hold up no worker any more: few, so a list that is kept.
#[derive(Debug)]
pub(crate) struct Detached(Vec<PollId>);

impl Default for Detached {
    fn default() -> Self {
        // More than there are threads in `block_in_place` as a rule.
        Detached(room_for(64))
    }
}

impl Detached {
    pub(crate) fn insert(&mut self, poll: PollId) {
        if !self.contains(poll) {
            self.0.push(poll);
        }
    }

    pub(crate) fn contains(&self, poll: PollId) -> bool {
        self.0.contains(&poll)
    }

    fn keep_those_in(&mut self, seen: &Observation) {
        self.0
            .retain(|id| seen.polls.iter().any(|poll| poll.id == *id));
    }
}

/// Polls by what they hold up, as indices into those that are seen; those that hold
/// nothing up are left out.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    on_workers: Vec<Option<usize>>,
    on_threads: Vec<usize>,
}

impl Placed {
    /// Places all polls; of two that claim one worker, the earlier becomes detached.
    pub(crate) fn place(&mut self, seen: &Observation, detached: &mut Detached) {
        detached.keep_those_in(seen);
        self.on_workers.clear();
        self.on_workers.resize(seen.workers.len(), None);
        self.on_threads.clear();
        for (index, poll) in seen.polls.iter().enumerate() {
            if detached.contains(poll.id) {
                continue;
            }
            let place = poll
                .worker
                .and_then(|worker| self.on_workers.get_mut(worker));
            let Some(place) = place else {
                self.on_threads.push(index);
                continue;
            };
            match place.and_then(|other| seen.polls.get(other)) {
                // An untimed poll began before the watchdog, so before any timed one.
                Some(other) if other.start_ns() > poll.start_ns() => {
                    detached.insert(poll.id);
                }
                other => {
                    if let Some(other) = other {
                        detached.insert(other.id);
                    }
                    *place = Some(index);
                }
            }
        }
    }

    pub(crate) fn on_worker<'a>(
        &self,
        worker: usize,
        seen: &'a Observation,
    ) -> Option<&'a PollSeen> {
        let index = *self.on_workers.get(worker)?;
        seen.polls.get(index?)
    }

    pub(crate) fn on_threads<'a>(
        &self,
        seen: &'a Observation,
    ) -> impl Iterator<Item = &'a PollSeen> {
        self.on_threads
            .iter()
            .filter_map(|index| seen.polls.get(*index))
    }
}
