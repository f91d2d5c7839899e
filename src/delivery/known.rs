//! What has been found out about stalls whose end is not delivered yet.

use crate::cause::Judgement;
use crate::report::Confidence;
use crate::room::room_for;
use crate::stall::StallId;
use crate::watchdog::transition::{Finding, Whereabouts};

/// How many stalls at once.
const MAX_KEPT: usize = 256;

/// What is known of one stall.
#[derive(Clone, Debug)]
pub(super) struct Known {
    id: StallId,
    /// The transition that was answered last.
    pub(super) serial: u64,
    pub(super) judgement: Judgement,
    pub(super) one_poll: Option<Confidence>,
    pub(super) polls: u64,
    pub(super) seen: Whereabouts,
    is_waiting: bool,
}

impl Known {
    const fn new(id: StallId) -> Self {
        Known {
            id,
            serial: 0,
            judgement: Judgement::Unknown,
            one_poll: None,
            polls: 0,
            seen: Whereabouts::NOTHING,
            is_waiting: false,
        }
    }

    /// They come in the order in which they were found out.
    fn see(&mut self, seen: Whereabouts) {
        self.is_waiting = !seen.is_complete;
        self.seen = seen;
    }

    /// Whether a stack is coming.
    pub(super) const fn is_waiting(&self) -> bool {
        self.is_waiting
    }
}

/// By stall, in their order, until its end is delivered. Asks for no memory once it is
/// made.
#[derive(Debug)]
pub(super) struct KnownStalls(Vec<Known>);

impl KnownStalls {
    pub(super) fn new() -> Self {
        KnownStalls(room_for(MAX_KEPT))
    }

    pub(super) fn get(&self, id: StallId) -> Option<&Known> {
        self.0.get(self.search(id).ok()?)
    }

    pub(super) fn add(&mut self, finding: Finding) {
        let known = self.of(finding.id);
        known.serial = finding.serial;
        known.judgement = finding.judgement;
        known.one_poll = finding.one_poll;
        known.polls = finding.polls;
        known.see(finding.seen);
    }

    /// What the thread that looks could see, until more is found out.
    pub(super) fn note(&mut self, id: StallId, judgement: Judgement) {
        let known = self.of(id);
        if judgement != Judgement::Unknown {
            known.judgement = judgement;
        }
    }

    /// More is known of where the thread was.
    pub(super) fn see(&mut self, id: StallId, seen: Whereabouts) {
        self.of(id).see(seen);
    }

    /// Where this stall is, or belongs.
    fn search(&self, id: StallId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&id, |known| known.id)
    }

    fn of(&mut self, id: StallId) -> &mut Known {
        let at = self.search(id).unwrap_or_else(|mut at| {
            // The oldest may never be forgotten: its end can have been dropped, or its
            // stack have come too late.
            if self.0.len() >= MAX_KEPT {
                self.0.remove(0);
                at = at.saturating_sub(1);
            }
            self.0.insert(at, Known::new(id));
            at
        });
        &mut self.0[at]
    }

    /// The end of this stall has been delivered.
    pub(super) fn forget(&mut self, id: StallId) {
        if let Ok(at) = self.search(id) {
            self.0.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stall::Stack;

    fn seen(has_stack: bool, is_complete: bool) -> Whereabouts {
        Whereabouts {
            stack: has_stack.then(Stack::default),
            is_complete,
            ..Whereabouts::NOTHING
        }
    }

    fn finding(id: u64, is_complete: bool) -> Finding {
        Finding {
            serial: 1,
            id: StallId(id),
            judgement: Judgement::OnCpu,
            one_poll: None,
            polls: 0,
            seen: seen(false, is_complete),
            stacks_are_prompt: true,
        }
    }

    fn is_waiting(stalls: &KnownStalls, id: u64) -> bool {
        stalls.get(StallId(id)).is_some_and(Known::is_waiting)
    }

    #[test]
    fn a_stack_is_coming_until_it_is_here_and_kept_until_the_end() {
        let mut stalls = KnownStalls::new();
        let id = StallId(7);
        stalls.add(finding(7, false));
        assert!(is_waiting(&stalls, 7));
        stalls.see(id, seen(true, false));
        assert!(is_waiting(&stalls, 7));
        stalls.see(id, seen(true, true));
        assert!(!is_waiting(&stalls, 7));
        assert!(stalls.get(id).unwrap().seen.stack.is_some());
        stalls.forget(id);
        assert!(stalls.get(id).is_none());
    }

    #[test]
    fn stalls_without_an_end_do_not_pile_up() {
        let mut stalls = KnownStalls::new();
        for id in 0..10_000 {
            stalls.add(finding(id, false));
        }
        assert_eq!(stalls.0.len(), MAX_KEPT);
        assert!(is_waiting(&stalls, 9_999));
    }
}
