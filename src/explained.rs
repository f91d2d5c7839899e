//! The stacks of stalls that are still told of: which are here, which are coming.

use std::collections::BTreeMap;

use crate::stall::{Stack, StallId};

/// How many stalls at once.
const MAX_KEPT: usize = 256;

#[derive(Debug, Default)]
struct OfStall {
    /// Less than none where a stack overtook the event that tells of it.
    coming: i64,
    latest: Option<Stack>,
}

/// By stall, until its end is told.
#[derive(Debug, Default)]
pub(crate) struct Explained(BTreeMap<StallId, OfStall>);

impl Explained {
    /// So many stacks of this stall are being symbolized.
    pub(crate) fn coming(&mut self, id: StallId, stacks: u32) {
        if stacks > 0 {
            self.of(id).coming += i64::from(stacks);
        }
    }

    /// One that was at hand.
    pub(crate) fn here(&mut self, id: StallId, stack: Stack) {
        self.of(id).latest = Some(stack);
    }

    /// One of those that were coming.
    pub(crate) fn arrived(&mut self, id: StallId, stack: Option<Stack>) {
        let of_stall = self.of(id);
        of_stall.coming -= 1;
        of_stall.latest = stack.or(of_stall.latest.take());
    }

    fn of(&mut self, id: StallId) -> &mut OfStall {
        // The oldest may never be forgotten: the telling of its end can have
        // been lost, or its stack have come too late.
        if self.0.len() >= MAX_KEPT && !self.0.contains_key(&id) {
            self.0.pop_first();
        }
        self.0.entry(id).or_default()
    }

    pub(crate) fn is_coming(&self, id: StallId) -> bool {
        self.0.get(&id).is_some_and(|of_stall| of_stall.coming > 0)
    }

    /// The latest that is here.
    pub(crate) fn stack(&self, id: StallId) -> Option<&Stack> {
        self.0.get(&id)?.latest.as_ref()
    }

    /// Its end has been told.
    pub(crate) fn forget(&mut self, id: StallId) {
        self.0.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_coming_until_it_is_here_and_kept_until_the_end() {
        let mut explained = Explained::default();
        let id = StallId(7);
        assert!(!explained.is_coming(id));
        explained.here(id, Stack::default());
        explained.coming(id, 0);
        assert!(!explained.is_coming(id));
        assert!(explained.stack(id).is_some());
        explained.coming(id, 2);
        explained.arrived(id, Some(Stack::default()));
        assert!(explained.is_coming(id));
        assert!(explained.stack(id).is_some());
        explained.arrived(id, Some(Stack::default()));
        assert!(!explained.is_coming(id));
        explained.forget(id);
        assert!(explained.stack(id).is_none());
    }

    #[test]
    fn a_stack_may_overtake_its_event() {
        let mut explained = Explained::default();
        explained.arrived(StallId(7), Some(Stack::default()));
        explained.coming(StallId(7), 1);
        assert!(!explained.is_coming(StallId(7)));
        assert!(explained.stack(StallId(7)).is_some());
    }

    #[test]
    fn stalls_without_an_end_do_not_pile_up() {
        let mut explained = Explained::default();
        for number in 0..10_000 {
            explained.coming(StallId(number), 1);
        }
        assert_eq!(explained.0.len(), MAX_KEPT);
        assert!(explained.is_coming(StallId(9_999)));
    }
}
