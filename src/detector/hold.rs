//! A poll or a turn in progress.

use crate::detector::age::Age;
use crate::detector::observation::{Observation, PollSeen, WorkerSeen};
use crate::detector::waiting::ThreadTimes;

/// A watched poll in progress.
#[derive(Clone, Debug)]
pub(crate) struct PollHold {
    pub(crate) seen: PollSeen,
    pub(crate) age: Age,
    /// The worker when the poll was first seen: it cannot change while it is polling.
    worker: Option<WorkerSeen>,
}

impl PollHold {
    pub(crate) fn new(seen: &PollSeen, worker: Option<WorkerSeen>, at: &Observation) -> Self {
        let since_ns = seen.start_ns().unwrap_or(at.now_ns).min(at.now_ns);
        PollHold {
            seen: seen.clone(),
            age: Age::new(since_ns, at.gap_ns.min(at.now_ns - since_ns)),
            worker,
        }
    }

    /// The same poll one tick later.
    pub(crate) fn advance(
        &mut self,
        seen: &PollSeen,
        at: &Observation,
        times: Option<ThreadTimes>,
    ) {
        self.seen.clone_from(seen);
        self.age.advance(at.now_ns, at.gap_ns, times);
    }

    /// Whether its worker has gone on without it.
    pub(crate) fn left_behind(&self, worker: Option<WorkerSeen>) -> bool {
        self.worker
            .zip(worker)
            .is_some_and(|(was, is)| !was.same_turn(&is))
    }
}

/// A turn of a worker's loop in progress.
#[derive(Clone, Debug)]
pub(crate) struct TurnHold {
    pub(crate) worker: WorkerSeen,
    /// From its beginning where that is known, else from the first tick that saw it,
    /// and so at most one tick too young.
    pub(crate) age: Age,
    /// The last tick that did not see it, or when what was told of it ended.
    after_ns: u64,
    /// The last tick that saw it.
    last_ns: u64,
    /// What is left of one that has been judged already.
    pub(crate) rest: bool,
}

impl TurnHold {
    /// `wait_ns`: how long its thread has waited for a CPU since the last tick.
    pub(crate) fn new(
        worker: WorkerSeen,
        at: &Observation,
        after_ns: u64,
        rest: bool,
        wait_ns: Option<u64>,
    ) -> Self {
        // Without the wait, what came before this tick may all have been one.
        let began_ns = worker.began_ns.filter(|_| wait_ns.is_some() && !rest);
        let since_ns = began_ns
            .map_or(at.now_ns, |began_ns| began_ns.max(after_ns))
            .min(at.now_ns);
        let lasted_ns = at.now_ns - since_ns;
        let mut age = Age::new(since_ns, at.gap_ns.min(lasted_ns));
        age.excuse(wait_ns.unwrap_or(0).min(lasted_ns));
        TurnHold {
            worker,
            age,
            after_ns: began_ns.map_or(after_ns, |_| since_ns),
            last_ns: at.now_ns,
            rest,
        }
    }

    /// The same turn one tick later.
    pub(crate) fn advance(
        &mut self,
        worker: WorkerSeen,
        at: &Observation,
        times: Option<ThreadTimes>,
    ) {
        self.worker.driven = worker.driven;
        self.last_ns = at.now_ns;
        self.age.advance(at.now_ns, at.gap_ns, times);
    }

    /// When it began and ended, now that it is known to be over.
    ///
    /// The worker's busy time has grown by the turn and, if it was not idle
    /// around it, by its neighbours; so it counts within what the ticks allow.
    pub(crate) fn span_ns(&self, worker: Option<WorkerSeen>, now_ns: u64) -> (u64, u64) {
        let Some(worker) = worker else {
            return (self.age.since_ns(), now_ns);
        };
        let busy_ns = worker.busy_ns.saturating_sub(self.worker.busy_ns);
        let shortest_ns = self.last_ns.saturating_sub(self.age.since_ns());
        let longest_ns = now_ns.saturating_sub(self.after_ns);
        let lasted_ns = busy_ns.clamp(shortest_ns, longest_ns.max(shortest_ns));
        let end_ns = self
            .after_ns
            .saturating_add(lasted_ns)
            .clamp(self.last_ns, now_ns.max(self.last_ns));
        (end_ns.saturating_sub(lasted_ns), end_ns)
    }

    /// For how long somebody surely drove the worker in this turn, in hindsight.
    ///
    /// tokio counts busy time from when somebody begins to drive the runtime
    /// (1.54, `current_thread/mod.rs`, `block_on`), so the time in which nobody
    /// did is not in it. What came after the last look is taken off.
    pub(crate) fn driven_ns(&self, worker: WorkerSeen, now_ns: u64) -> u64 {
        worker
            .busy_ns
            .saturating_sub(self.worker.busy_ns)
            .saturating_sub(now_ns.saturating_sub(self.last_ns))
    }

    /// What was before has been told already: only the rest counts.
    pub(crate) fn begin_again(&mut self, at_ns: u64) {
        self.after_ns = self.after_ns.max(at_ns);
        self.age = Age::new(at_ns.max(self.age.since_ns()), 0);
    }

    /// When it began at the earliest.
    pub(crate) const fn after_ns(&self) -> u64 {
        self.after_ns
    }

    /// The last tick that saw it.
    pub(crate) const fn last_ns(&self) -> u64 {
        self.last_ns
    }
}
