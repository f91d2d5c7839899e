//! A poll or a turn in progress.

use crate::detector::age::Age;
use crate::detector::observation::{Account, Observation, PollSeen, WorkerSeen};
use crate::detector::waiting::ThreadTimes;

/// A watched poll in progress.
#[derive(Clone, Debug)]
pub(crate) struct PollHold {
    pub(crate) seen: PollSeen,
    pub(crate) age: Age,
    /// The worker when the poll was first seen: it cannot change while it is polling.
    worker: Option<WorkerSeen>,
    /// When it began at the earliest.
    after_ns: u64,
    /// The turn that it is in, at the last look before the poll was seen.
    turn_before: Option<Age>,
}

impl PollHold {
    /// `last_ns` is that of the look before, which has not seen it.
    pub(crate) fn new(
        seen: &PollSeen,
        worker: Option<WorkerSeen>,
        at: &Observation,
        last_ns: u64,
        turn: Option<&TurnHold>,
        times: Option<ThreadTimes>,
        account: Option<&Account>,
    ) -> Self {
        let since_ns = seen.start_ns().unwrap_or(at.now_ns).min(at.now_ns);
        let lasted_ns = at.now_ns - since_ns;
        let age = Age::new(since_ns);
        let account = account.filter(|account| account.thread == seen.id.thread);
        let age = match account {
            Some(account) => age.spending(account.before(lasted_ns), account.polls),
            None => age,
        };
        PollHold {
            seen: *seen,
            age: age.first(at.now_ns, at.excuse(0), times),
            worker,
            after_ns: seen.start_ns().unwrap_or(last_ns).min(since_ns),
            turn_before: turn.map(|turn| turn.age.clone()),
        }
    }

    /// The same poll one tick later.
    pub(crate) fn advance(
        &mut self,
        seen: &PollSeen,
        at: &Observation,
        times: Option<ThreadTimes>,
    ) {
        self.seen = *seen;
        self.age.advance(at.now_ns, at.excuse(0), times);
    }

    /// What there was of this turn before the poll, and when the poll began at the
    /// earliest; `None` where nothing is known of that.
    pub(crate) fn before(&self, turn: &TurnHold) -> Option<(&Age, u64)> {
        let before = self.turn_before.as_ref()?;
        let same = before.since_ns() == turn.age.since_ns();
        same.then_some((before, self.after_ns))
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
    pub(crate) fn new(
        worker: WorkerSeen,
        at: &Observation,
        after_ns: u64,
        rest: bool,
        times: Option<ThreadTimes>,
        account: Option<&Account>,
    ) -> Self {
        // Without an account, what came before this tick may all have been a wait.
        let began = account.filter(|_| !rest).and_then(|account| account.began);
        let computed_since_ns = at.now_ns.saturating_sub(worker.computed_ns);
        let since_ns = began
            .map_or(computed_since_ns, |(began_ns, _)| began_ns)
            .max(after_ns)
            .min(at.now_ns);
        let lasted_ns = at.now_ns - since_ns;
        let age = Age::new(since_ns);
        let age = match account {
            Some(account) => {
                let mut computed = account.now;
                computed.cpu_ns = computed.cpu_ns.saturating_sub(lasted_ns);
                let spent = began.map_or(computed, |(_, spent)| spent);
                age.spending(spent, account.polls)
            }
            None => age,
        };
        TurnHold {
            worker,
            age: age.first(at.now_ns, at.excuse(worker.own_work_ns), times),
            after_ns: began.map_or(after_ns, |_| since_ns),
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
        let excuse = at.excuse(worker.own_work_ns);
        self.age.advance(at.now_ns, excuse, times);
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
        // Else it has begun since, and all that is known of it is its own.
        if at_ns > self.age.since_ns() {
            self.age = self.age.again(at_ns);
        }
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
