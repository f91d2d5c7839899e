//! Which unit each poll holds up.

use std::collections::HashSet;

use crate::detector::observation::{Observation, PollId, PollSeen};

/// Polls by what they hold up, as indices into those that are seen; those that hold
/// nothing up are left out.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    on_workers: Vec<Option<usize>>,
    on_threads: Vec<usize>,
}

impl Placed {
    /// Places all polls; of two that claim one worker, the earlier becomes detached.
    pub(crate) fn place(&mut self, seen: &Observation, detached: &mut HashSet<PollId>) {
        if !detached.is_empty() {
            detached.retain(|id| seen.polls.iter().any(|poll| poll.id == *id));
        }
        self.on_workers.clear();
        self.on_workers.resize(seen.workers.len(), None);
        self.on_threads.clear();
        for (index, poll) in seen.polls.iter().enumerate() {
            if detached.contains(&poll.id) {
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
                    detached.extend(other.map(|other| other.id));
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
